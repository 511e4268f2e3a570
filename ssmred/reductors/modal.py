"""Modal truncation: the dominant modes stay as they are.

Theory: ``theory/modal-truncation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ssmred.checks import check_choice, check_integer
from ssmred.errors import ShapeError, message
from ssmred.gramians import hankel_singular_values
from ssmred.reductors.moving import Core, MovingReductor
from ssmred.reductors.real_blocks import real_blocks
from ssmred.reductors.reduction import Reduction
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem, of_kind
from ssmred.systems.stability import check_stable, stability_margins

__all__ = ["ModalReductor"]

RANDOM = "random"
"""No measure at all: chance orders the modes that have a norm."""

MEASURES = ("hinf", "h2", RANDOM)
ROUNDING = 2.0**-50
"""Relative rounding of a norm, a gap and their quotient, doubled."""


class ModalReductor(MovingReductor):
    """Keep the dominant modes with their poles, B and C.

    ``H(z) - H_r(z) = sum_i c_i b_i / (z - l_i)`` over the modes that go, so no bound is simpler:
    ``||H - H_r||_inf <= sum_i ||c_i|| ||b_i|| / (1 - |l_i|)``, in continuous time with
    ``-Re l_i``. Of real systems both modes of a conjugate pair stay or go.

    Parameters
    ----------
    form : {"input", "dense", "diagonal"}
        In which form the reduced system comes back.
    measure : {"hinf", "h2", "random"}
        What makes a mode dominant: its H-infinity norm (the summand of the bound), or its h2 norm,
        ``||c_i|| ||b_i|| / (1 - |l_i|^2)^(1/2)``. ``"random"``: nothing does; chance
        orders the modes of every channel, as a baseline. The same bound holds.
    match_dc : bool
        Add ``sum_i c_i b_i / (1 - l_i)`` (continuous: ``-c_i b_i / l_i``) to D, so that both
        systems agree at frequency 0. The summands of the bound become
        ``2 ||c_i|| ||b_i|| / (1 - |l_i|^2)``, at most twice as large (post-update: times ``|l_i|``,
        not larger); in continuous time they stay as they are.
    seed : int or sequence of int
        Of the order by chance, for ``numpy.random.default_rng``.

    Raises
    ------
    AccuracyError
        By ``reduce``: if a dense system has no well-conditioned eigenvectors.
    OrderError
        If a seed is not an integer of at least 0.

    Notes
    -----
    Level FLOAT. Cost O(n (p + m)) per channel for diagonal systems, plus the Hankel norm that
    relative tolerances refer to when they are asked for; dense systems are diagonalised first
    (``Reduction.condition``), and their bound is raised to the computed error by
    ``Reduction.bound``. Theory: ``theory/modal-truncation.md``.

    Examples
    --------
    The mode at 0.5 contributes ``1 / (1 - 0.5) = 2`` to the bound:

    >>> system = DiagonalSystem([0.9, 0.5], [1.0, 1.0], [1.0, 1.0])
    >>> reduction = ModalReductor().reduce(system, order=1)
    >>> reduction.system.poles.tolist(), float(reduction.claim.value.round(12))
    ([(0.9+0j)], 2.0)
    """

    method = "modal"
    theorem = "modal-truncation"

    def __init__(
        self,
        *,
        form: str = "input",
        measure: str = "hinf",
        match_dc: bool = False,
        seed: int | Sequence[int] = 0,
    ) -> None:
        super().__init__(form=form)
        self.measure = check_choice(measure, MEASURES, "measure", "ModalReductor")
        if not isinstance(match_dc, (bool, np.bool_)):
            raise ShapeError(
                message("ModalReductor", "match_dc is not a bool", got=f"{match_dc!r}")
            )
        self.match_dc = bool(match_dc)
        parts = seed if isinstance(seed, (list, tuple)) else [seed]
        self.seed = [check_integer(part, "seed", "ModalReductor") for part in parts]

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise UnstableSystemError unless every pole is stable."""
        super().check_accepts(system)
        check_stable(system, "ModalReductor")

    def core(self, system: LinearSystem) -> _ModalCore:
        """Return the modes in the order of their dominance."""
        return _ModalCore(system, self)

    def finished(self, reduction: Reduction, core: Core | None) -> Reduction:
        """Return a reduction with the conditioning of the eigenvectors of a dense system."""
        condition = core.condition if isinstance(core, _ModalCore) else None
        if condition is None or reduction.condition is not None:
            return reduction
        return replace(reduction, condition=condition.reshape(reduction.full.batch_shape))


class _ModalCore:
    norm = "hinf"
    theorem = "modal-truncation"
    hankel = None

    def __init__(self, system: LinearSystem, reductor: ModalReductor) -> None:
        self.condition = None
        if isinstance(system, DenseSystem):
            result = diagonalised(system, half=system.is_real)
            self.condition = result.condition
            modes = result.system
            states = system.realified().order if system.is_real else system.order
        else:
            system = of_kind(system, DiagonalSystem, "ModalReductor")
            modes, states = system, 2 * system.order if system.real_output else system.order
        self.dense = isinstance(system, DenseSystem)
        self.match_dc = reductor.match_dc
        norms = _mode_norms(modes, reductor.match_dc)
        dominance = norms if reductor.measure == "hinf" else _mode_norms(modes, False, energy=True)
        if reductor.measure == RANDOM:
            chance = np.random.default_rng(reductor.seed).random(norms.shape)
            dominance = np.where(dominance > 0, 1 + chance, 0)
        # padding and undriven modes last, among equals the first stays
        self.order = np.argsort(-dominance, axis=-1, kind="stable")
        self.modes = _taken(modes, self.order)
        self.sizes = np.take_along_axis(_sizes(modes), self.order, axis=-1)
        norms = np.take_along_axis(norms, self.order, axis=-1)
        tails = np.cumsum(norms[:, ::-1], axis=-1)[:, ::-1]
        tails = np.concatenate([tails, np.zeros((len(tails), 1))], axis=-1)
        tails *= 1 + ROUNDING * (1 + norms.shape[-1])
        self.kept = np.stack([self._count(order) for order in range(states + 1)], axis=-1)
        self.errors = np.take_along_axis(tails, self.kept, axis=-1)

    @property
    def norms(self) -> np.ndarray:
        """Hankel norms (H,)."""
        return hankel_singular_values(self.modes)[:, 0]

    def reduced(self, channels: np.ndarray, order: int) -> tuple[LinearSystem, None, None]:
        """Return the first modes of every channel, as many as fit."""
        kept = self.kept[channels, order]
        modes = _part(self.modes, channels)
        stays = np.arange(modes.order) < kept[:, None]
        if self.match_dc:
            gap = (1 if modes.is_discrete else 0) - modes.poles
            gone = np.where(stays, 0, 1 / np.where(stays, 1, gap))
            static = (modes.C * gone[:, None, :]) @ modes.B
            modes = modes.replace(D=modes.D + (static.real if modes.is_real else static))
        width = int(kept.max(initial=0))
        rest = 0.0 if modes.is_discrete else -1.0
        modes = modes.replace(
            poles=np.where(stays, modes.poles, rest)[:, :width],
            B=np.where(stays[..., None], modes.B, 0)[:, :width],
            C=np.where(stays[:, None, :], modes.C, 0)[:, :, :width],
        )
        if self.dense and modes.real_output:
            return real_blocks(modes, order), None, None
        return modes, None, None

    def _count(self, order: int) -> np.ndarray:
        """Return how many modes (H,), most dominant first, have at most so many states."""
        return np.sum(np.cumsum(self.sizes, axis=-1) <= order, axis=-1)


def _mode_norms(modes: DiagonalSystem, match_dc: bool, energy: bool = False) -> np.ndarray:
    """Return the norm (H, n) of every mode."""
    residues = np.linalg.norm(modes.C, axis=-2) * np.linalg.norm(modes.B, axis=-1)
    margins = stability_margins(modes)
    if energy:
        return residues / np.sqrt(margins if modes.is_discrete else 2 * margins)
    if not modes.is_discrete:
        return residues / margins
    if match_dc:  # in the post-update recurrence there is a factor |l| more
        lift = np.abs(modes.poles) if modes.is_post_update else 1.0
        return 2 * residues * lift / margins
    return residues * (1 + np.abs(modes.poles)) / margins


def _sizes(modes: DiagonalSystem) -> np.ndarray:
    """Return how many real (or complex) states each mode stands for."""
    if not modes.real_output:
        return np.ones(modes.poles.shape, dtype=np.int64)
    own = (modes.poles.imag == 0) & np.all(modes.B.imag == 0, axis=-1)
    return np.where(own, 1, 2)


def _taken(modes: DiagonalSystem, order: np.ndarray) -> DiagonalSystem:
    return modes.replace(
        poles=np.take_along_axis(modes.poles, order, axis=-1),
        B=np.take_along_axis(modes.B, order[..., None], axis=-2),
        C=np.take_along_axis(modes.C, order[..., None, :], axis=-1),
    )


def _part(modes: DiagonalSystem, channels: np.ndarray) -> DiagonalSystem:
    return modes.replace(
        poles=modes.poles[channels],
        B=modes.B[channels],
        C=modes.C[channels],
        D=modes.D[channels],
    )
