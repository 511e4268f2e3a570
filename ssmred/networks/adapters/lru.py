"""LRU layers: LRU-pytorch, minimal-LRU, neural-ssm, lru-reduction, and our own.

Facts: ``docs/conventions.md``. Parametrisation: Orvieto et al., arXiv 2303.06349.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters.shared_adapter import (
    CORE,
    SharedModes,
    SharedStateAdapter,
    shared_system,
)
from ssmred.networks.adapters.shared_checks import Candidate, Rounding
from ssmred.networks.adapters.shared_tensors import LayerTensors, layer_prefix, prefixes
from ssmred.systems import DiagonalSystem

__all__ = ["LRUAdapter", "LRUSettings", "read_lru", "recognises_tensors", "ring_parameters"]

RATES = frozenset({"nu_log", "theta_log", "D"})
GAMMA, START = "gamma_log", "x0_param"
MATRICES = (
    frozenset({"B", "C"}),  # LRU-pytorch
    frozenset({"Bp", "C"}),  # neural-ssm
    frozenset({"B_re", "B_im", "C_re", "C_im"}),  # minimal-LRU, lru-reduction
)

MARKERS = tuple(RATES | matrices for matrices in MATRICES)

NEVER = 40.0
"""``exp(-NEVER)`` is 0 to rounding: the decay per step of a pole at 0."""

NO_ANGLE = -80.0
"""``exp(NO_ANGLE)`` turns nothing: the exponent of an angle of 0, whose logarithm is -inf."""


@dataclass(frozen=True)
class LRUSettings:
    """Say what the tensors of an LRU layer do not.

    Attributes
    ----------
    delayed : bool
        Whether the output reads the state before its update: ``y_k = Re(C x_{k-1}) + D u_k``.
    doubled : bool
        Whether it is ``2 Re(C x)``.
    """

    delayed: bool = False
    doubled: bool = False


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one LRU layer; others may be among them."""
    return len(prefixes(names_to_shapes, MARKERS)) == 1


def read_lru(
    tensors: Mapping[str, Any], *, delayed: bool | None = None, doubled: bool = False
) -> dict[str, DiagonalSystem]:
    """Return the system of an LRU layer from its tensors: a state dict or a parameter tree.

    Parameters
    ----------
    tensors : mapping of str to array_like or torch.Tensor
        ``nu_log``, ``theta_log (N,)``, ``gamma_log (N,)`` where there is one, B and C complex or
        as ``B_re``, ``B_im (N, H)``, ``C_re``, ``C_im (P, N)``, ``D (P, H)`` or ``(H,)``. Behind
        one prefix, ``.`` or ``/`` between its parts; other keys are not looked at.
    delayed, doubled : bool
        See `LRUSettings`; the tensors do not tell. By default a layer is delayed if its B is called
        ``Bp``, as in neural-ssm.

    Returns
    -------
    dict
        ``"core"``: DiagonalSystem of batch shape (1,), every pole two real states.

    Raises
    ------
    CheckpointError
        If a tensor is missing, misshapen, nan or inf, a pole does not lie inside the unit circle in
        double precision, or there is more than one layer. An angle of 0, ``theta_log = -inf``, is
        read.
    """
    where = "read_lru"
    layer = LayerTensors(tensors, layer_prefix(tensors, MARKERS, "LRU", where), where)
    late = "Bp" in layer.stored if delayed is None else delayed
    return _candidate(layer, LRUSettings(late, doubled)).systems


class LRUAdapter(SharedStateAdapter):
    """Translate LRU layers of LRU-pytorch and neural-ssm, and of classes with their tensor names.

    Whether the output reads the state before or after its update, and whether it has the factor 2,
    is found by comparing with the layer's own output. A learnt initial state is refused unless it
    is 0.
    """

    family = "lru"

    def fits(self, names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Tell whether these are a layer's tensors, all of them and no others."""
        names = set(names_to_shapes) - {GAMMA, START}
        return names in MARKERS

    def candidates(self, module: nn.Module, tensors: Mapping[str, Any]) -> Sequence[Candidate]:
        """Return the readings of a layer's tensors, the usual one first."""
        layer = LayerTensors(tensors, "", "LRUAdapter.to_systems")
        late = "Bp" in tensors
        return [
            _candidate(layer, LRUSettings(delayed, doubled))
            for doubled in (False, True)
            for delayed in (late, not late)
        ]

    def parameters(
        self,
        tensors: Mapping[str, torch.Tensor],
        settings: LRUSettings,
        wanted: SharedModes,
        modes: int,
    ) -> dict[str, np.ndarray]:
        """Return the tensors of a layer that has so many modes and computes what is wanted."""
        room = modes - wanted.modes
        nu, theta, gamma = ring_parameters(wanted.poles, room, "LRUAdapter.from_systems")
        scale = np.exp(gamma) if GAMMA in tensors else np.ones(modes)
        B = np.pad(wanted.B, ((0, room), (0, 0))) / scale[:, None]
        C = np.pad(wanted.C[CORE], ((0, 0), (0, room))) / (2.0 if settings.doubled else 1.0)
        values = {"nu_log": nu, "theta_log": theta}
        values["D"] = wanted.D if self.holds_matrix(tensors) else np.diag(wanted.D)
        if GAMMA in tensors:
            values[GAMMA] = gamma.reshape(-1, *tensors[GAMMA].shape[1:])
        if START in tensors:
            values[START] = np.zeros((*tensors[START].shape[:-1], modes))
        if "B_re" in tensors:
            return values | {"B_re": B.real, "B_im": B.imag, "C_re": C.real, "C_im": C.imag}
        return values | {("Bp" if "Bp" in tensors else "B"): B.astype(complex), "C": C + 0j}

    def resize(self, module: nn.Module, modes: int) -> None:
        """Tell a written layer its new number of modes: LRU-pytorch keeps a state of that size."""
        if hasattr(module, "state_features"):
            module.state_features = modes
        state = getattr(module, "state", None)
        if isinstance(state, torch.Tensor):
            module.state = state.new_zeros((*state.shape[:-1], modes))


def ring_parameters(
    poles: np.ndarray, room: int, where: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nu_log, theta_log and gamma_log of poles, and of so many idle modes after them.

    Raises
    ------
    CheckpointError
        If a pole is not inside the unit circle.
    """
    radius = np.abs(poles)
    if not (radius < 1).all():
        raise CheckpointError(
            message(
                where,
                f"the pole {poles[int(np.argmax(radius))]:.6g} has no parameters",
                expected="poles inside the unit circle: exp(-exp(nu_log)) is below 1",
            )
        )
    with np.errstate(divide="ignore"):
        decay = np.minimum(-np.log(radius), NEVER)
        theta = np.log(np.mod(np.angle(poles), 2 * np.pi))
    nu = np.pad(np.log(decay), (0, room))
    theta = np.pad(np.maximum(theta, NO_ANGLE), (0, room))
    return nu, theta, 0.5 * np.log(-np.expm1(-2.0 * np.exp(nu)))


def _candidate(layer: LayerTensors, settings: LRUSettings) -> Candidate:
    names = set(layer.stored)
    matrices = next((m for m in MATRICES if "B_re" in m and "B_re" in names), None)
    matrices = matrices or (MATRICES[1] if "Bp" in names else MATRICES[0])
    layer.check_names(RATES | matrices, {GAMMA, START})
    nu = layer.take("nu_log", "N", infinite=-np.inf)
    theta = layer.take("theta_log", "N", infinite=-np.inf)
    if "B_re" in names:
        B = layer.take("B_re", "N", "H") + 1j * layer.take("B_im", "N", "H")
        C = layer.take("C_re", "P", "N") + 1j * layer.take("C_im", "P", "N")
    else:
        B = layer.take_complex("Bp" if "Bp" in names else "B", "N", "H")
        C = layer.take_complex("C", "P", "N")
    diagonal = layer.stored["D"].ndim == 1
    D = layer.take("D", *(("P",) if diagonal else ("P", "H")))
    if diagonal and layer.sizes["P"] != layer.sizes["H"]:
        layer.take("D", "P", "H")  # refuses
    with np.errstate(over="ignore", invalid="ignore"):
        decay, angle = np.exp(nu), np.exp(theta)
        poles = np.exp(-decay + 1j * angle)
        if GAMMA in names:
            shape = layer.stored[GAMMA].ndim
            gamma = layer.take(GAMMA, "N", *((1,) if shape == 2 else ())).ravel()
        else:
            gamma = np.zeros_like(nu)
        driven = np.exp(gamma)[:, None] * B
    for name, bad in (
        ("nu_log", ~(np.exp(-decay) < 1.0)),
        ("theta_log", ~np.isfinite(angle)),
        (GAMMA, ~np.isfinite(driven).all(axis=-1)),
    ):
        if bad.any():
            index = int(np.argmax(bad))
            raise CheckpointError(
                message(
                    layer.where,
                    f"{layer.prefix}{name} is out of range",
                    expected="a pole inside the unit circle: exp(-exp(nu_log)) < 1 in double "
                    "precision, finite angles and inputs",
                    got=f"{ {'nu_log': nu, 'theta_log': theta, GAMMA: gamma}[name][index] } "
                    f"at {index}",
                )
            )
    if START in names and bool(torch.as_tensor(layer.stored[START]).abs().max() > 0):
        raise UnsupportedOperationError(
            message(
                layer.where,
                f"{layer.prefix}{START} starts the layer from a learnt state",
                expected="0: a filter starts at rest",
                cure="Such an output is not a function of the input alone; set it to 0.",
            )
        )
    turn = angle * (2.0 + np.abs(np.where(np.isfinite(theta), theta, 0)))
    moved = np.abs(poles) * (2.0 + decay * (2.0 + np.abs(np.where(decay > 0, nu, 0))) + turn)
    inputs = np.abs(driven) * (3.0 + np.abs(gamma))[:, None]
    system = shared_system(
        poles, driven, (2.0 if settings.doubled else 1.0) * C, D, delayed=settings.delayed
    )
    return Candidate(settings, {CORE: system}, Rounding(moved, inputs))
