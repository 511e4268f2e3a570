"""Balanced truncation by the square-root method.

Theory: ``theory/balanced-truncation.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_horizon
from ssmred.errors import OrderError, ShapeError, UnsupportedOperationError, message
from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.features import driven_rows
from ssmred.gramians.gramian import observability_factor
from ssmred.gramians.hankel import gramian_factors, hankel_singular_values
from ssmred.norms import h2_error, h2_norm
from ssmred.reductors.balancing import (
    Balancing,
    FactorBalancing,
    ResidueBalancing,
    dense_result,
)
from ssmred.reductors.conjugation import find_conjugate_pairs
from ssmred.reductors.moving import MovingReductor
from ssmred.reductors.reduction import Projection, Reduction
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_stable

__all__ = ["BalancedReductor"]


class BalancedReductor(MovingReductor):
    """Truncate the states that are hard to reach and hard to observe at once.

    Parameters
    ----------
    form : {"input", "dense", "diagonal"}
        In which form the reduced system comes back.
    horizon : int, optional
        Balance the Gramians of so many samples; None is infinite. Then poles may be unstable, and
        the reduced system may be unstable too.
    moments : InputMoments, optional
        Balance the states that calibration inputs really excite, over the horizon of these inputs.

    Notes
    -----
    Infinite horizon: ``||H - H_r||_inf <= 2 (sigma_{r+1} + ... + sigma_n)``, discrete and
    continuous. The reduced system is stable, in continuous time where ``sigma_r > sigma_{r+1}``
    (else poles may lie on the axis, which no input reaches and no output sees). With a horizon no
    such bound holds: the claim is the h2 norm of the error over the horizon itself, evaluated. With
    moments there is neither (``Reduction.bound`` is None); ``tol`` is refused. Level FLOAT. Cost
    O(n^3) per channel, all channels in one kernel. Theory: ``theory/balanced-truncation.md``.
    Source: [LallBeck2003] for the inequalities.

    Examples
    --------
    A mode that the output hardly sees goes first:

    >>> system = DiagonalSystem([0.5, 0.4], [1.0, 1.0], [1.0, 1e-6])
    >>> reduction = BalancedReductor(form="dense").reduce(system, order=1)
    >>> bool(abs(reduction.system.A[0, 0] - 0.5) < 1e-6)
    True
    >>> float(reduction.claim.value / 2 - reduction.hankel[1])
    0.0
    """

    method = "balanced"

    def __init__(
        self,
        *,
        form: str = "input",
        horizon: int | None = None,
        moments: InputMoments | None = None,
    ) -> None:
        super().__init__(form=form)
        where = "BalancedReductor"
        self.horizon = check_horizon(horizon, where)
        self.moments = moments
        self.theorem = "balanced-truncation" if self.horizon is None else "h2-norm"
        if self.horizon is not None:
            self.norm = f"h2, horizon {self.horizon}"
        if moments is None:
            return
        self.theorem = None
        if not isinstance(moments, InputMoments):
            raise ShapeError(
                message(
                    where,
                    "moments are not known",
                    expected="InputMoments",
                    got=type(moments).__name__,
                )
            )
        if self.horizon not in (None, moments.horizon):
            raise OrderError(
                message(
                    where,
                    "horizon contradicts the calibration inputs",
                    expected=f"None or {moments.horizon}",
                    got=f"{self.horizon}",
                )
            )

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise an error if the horizon is infinite and a pole not stable, or it does not fit."""
        super().check_accepts(system)
        if self.moments is not None and all(system.batch_shape):
            pairs = find_conjugate_pairs(system) if isinstance(system, DiagonalSystem) else None
            self.moments.check_accepts(system if pairs is None else pairs.half, "BalancedReductor")
        elif self.horizon is None:
            check_stable(system, "BalancedReductor")
        elif not system.is_discrete:
            raise UnsupportedOperationError(
                message(
                    "BalancedReductor",
                    "a finite horizon counts samples, but the system is in continuous time",
                    cure="Discretise it, or leave horizon out.",
                )
            )

    def reduce(
        self, system: LinearSystem, *, order: int | None = None, tol: float | None = None
    ) -> Reduction:
        """Return a reduced system; see :meth:`Reductor.reduce`.

        Raises
        ------
        UnsupportedOperationError
            If tol is given together with moments, for which there is no bound.
        """
        if order is None and tol is not None and self.moments is not None:
            raise UnsupportedOperationError(
                message(
                    "BalancedReductor.reduce",
                    "no bound on the error is known for calibrated Gramians, so tol has no meaning",
                    cure="Pass order=, or use SubsetReductor(metric=moments), whose errors are.",
                )
            )
        return super().reduce(system, order=order, tol=tol)

    def core(self, system: LinearSystem) -> _TruncationCore:
        """Return the balanced bases of a flat batch."""
        where = "BalancedReductor"
        if self.moments is not None:
            dense = system.realified()
            Lp = _calibrated_factor(system, self.moments)
            Lq = observability_factor(dense, horizon=self.moments.horizon)
            return _TruncationCore(system, FactorBalancing(dense, Lp, Lq, where))
        if self.horizon is not None:
            dense = system.realified() if system.is_real else system.to_dense()
            Lp, Lq = gramian_factors(dense, horizon=self.horizon)
            return _HorizonCore(system, FactorBalancing(dense, Lp, Lq, where), self.horizon)
        return _BoundedCore(system, balanced(system, where))


def balanced(system: LinearSystem, where: str) -> Balancing:
    """Return the balanced bases of a flat batch of stable systems, by the fastest way there is."""
    if isinstance(system, DiagonalSystem):
        if system.real_output and system.inputs == 1 and system.outputs == 1:
            return ResidueBalancing(system, where)
        Lp, Lq = gramian_factors(system, real=True)
        plain = system.realified() if system.real_output else system
        return FactorBalancing(plain, Lp, Lq, where)
    dense = system.realified() if system.is_real else system
    return FactorBalancing(dense, *gramian_factors(dense), where)


class _TruncationCore:
    """Truncate balanced bases, without any bound."""

    norm = "hinf"
    theorem: str | None = None

    def __init__(self, system: LinearSystem, balancing: Balancing) -> None:
        self.system, self.balancing = system, balancing
        self.hankel = balancing.values
        self.errors = balancing.tail_bounds()
        self.norms = self.hankel[:, 0]

    def reduced(
        self, channels: np.ndarray, order: int
    ) -> tuple[DenseSystem, Projection, np.ndarray | None]:
        """Return the truncated balanced systems."""
        part = self.balancing.compression(channels, order)
        D = self.system.D[channels]
        return dense_result(self.system, part.A, part.B, part.C, D), part.projection, None


class _BoundedCore(_TruncationCore):
    """Truncate the balanced bases of the infinite horizon."""

    theorem = "balanced-truncation"

    def __init__(self, system: LinearSystem, balancing: Balancing) -> None:
        super().__init__(system, balancing)
        if system.is_post_update:  # balanced is (A, B, C), the past reaches the future through C A
            self.norms = hankel_singular_values(system)[:, 0]


class _HorizonCore(_TruncationCore):
    """Truncate the balanced bases of a finite horizon; errors are evaluated, not bounded.

    Before an order is chosen they are estimated by the energy of the states that go,
    ``sum_{k > r} sigma_k ||c_k||^2``.
    """

    theorem = "h2-norm"
    exact = True

    def __init__(self, system: LinearSystem, balancing: FactorBalancing, horizon: int) -> None:
        super().__init__(system, balancing)
        self.horizon = horizon
        self.norm = f"h2, horizon {horizon}"
        self.norms = np.asarray(h2_norm(system, horizon=horizon))
        channels = np.arange(len(self.hankel))
        columns = balancing.compression(channels, self.hankel.shape[-1]).C
        energies = self.hankel * np.sum(np.abs(columns) ** 2, axis=-2)
        tails = np.cumsum(energies[:, ::-1], axis=-1)[:, ::-1]
        zeros = np.zeros((len(tails), 1))
        self.errors = np.sqrt(np.concatenate([tails, zeros], axis=-1))

    def reduced(
        self, channels: np.ndarray, order: int
    ) -> tuple[DenseSystem, Projection, np.ndarray | None]:
        """Return the truncated systems with the norm of their errors over the horizon."""
        system, projection, _ = super().reduced(channels, order)
        names = ("poles" if isinstance(self.system, DiagonalSystem) else "A", "B", "C", "D")
        full = self.system.replace(**{k: getattr(self.system, k)[channels] for k in names})
        return system, projection, np.asarray(h2_error(full, system, horizon=self.horizon))


def _calibrated_factor(system: DiagonalSystem, moments: InputMoments) -> np.ndarray:
    """Return L with ``L L^T = W``, the moments of the real states under calibration inputs."""
    root = moments.square_root(system)
    return driven_rows(np.swapaxes(root.factor[:, :, root.fixed :], -1, -2), system)
