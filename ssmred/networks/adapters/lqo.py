"""Layers with linear and quadratic outputs: our own `LQOLayer`, and modules with its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, message
from ssmred.networks.adapters.lru import ring_parameters
from ssmred.networks.adapters.own import LayerAdapter
from ssmred.networks.adapters.shared_adapter import shared_system
from ssmred.networks.adapters.shared_tensors import LayerTensors, layer_prefix, prefixes
from ssmred.networks.copying import copy_module
from ssmred.networks.layers.lqo import QuadraticOutputs
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind

__all__ = ["LQOAdapter", "read_lqo", "recognises_tensors"]

AXES = {
    "nu_log": "N",
    "theta_log": "N",
    "gamma_log": "N",
    "B_re": "NH",
    "B_im": "NH",
    "C_re": "HN",
    "C_im": "HN",
    "U_re": "RHN",
    "U_im": "RHN",
    "D": "H",
}
"""Tensors and their axes: modes, features, squares per output."""

MARKERS = (frozenset(AXES),)


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one layer; others may be among them."""
    return len(prefixes(names_to_shapes, MARKERS)) == 1


def read_lqo(tensors: Mapping[str, Any]) -> dict[str, DiagonalSystem]:
    """Return the filter of an `LQOLayer` from its tensors, without the squares after it.

    Parameters
    ----------
    tensors : mapping of str to array_like or torch.Tensor
        ``nu_log``, ``theta_log``, ``gamma_log (N,)``, ``B_re``, ``B_im (N, H)``, ``C_re``,
        ``C_im (H, N)``, ``U_re``, ``U_im (R, H, N)``, ``D (H,)``, behind one prefix; other keys are
        not looked at.

    Returns
    -------
    dict
        ``"core"``: DiagonalSystem of batch shape (1,), (1 + R) H outputs; D reaches the first H.

    Raises
    ------
    CheckpointError
        If a tensor is missing, misshapen, nan or inf, a pole does not lie inside the unit circle in
        double precision, or there is more than one layer.
    """
    where = "read_lqo"
    layer = LayerTensors(tensors, layer_prefix(tensors, MARKERS, "LQO", where), where)
    layer.check_names(AXES)
    values = {
        name: layer.take(name, *axes, infinite=-np.inf if name.endswith("log") else None)
        for name, axes in AXES.items()
    }
    poles = np.exp(-np.exp(values["nu_log"]) + 1j * np.exp(values["theta_log"]))
    if not (np.abs(poles) < 1).all():
        raise CheckpointError(
            message(
                where,
                f"{layer.prefix}nu_log is out of range",
                expected="a pole inside the unit circle: exp(-exp(nu_log)) < 1 in double precision",
                got=f"{values['nu_log'][int(np.argmax(np.abs(poles)))]:.6g}",
            )
        )
    B, C, U = (values[f"{name}_re"] + 1j * values[f"{name}_im"] for name in "BCU")
    rows = np.concatenate([C, U.reshape(-1, len(poles))])
    direct = np.pad(np.diag(values["D"]), ((0, len(rows) - len(C)), (0, 0)))
    driven = np.exp(values["gamma_log"])[:, None] * B
    return {"core": shared_system(poles, driven, rows, direct)}


class LQOAdapter(LayerAdapter):
    """Translate layers ``y = Re(C x) + D u + sum_r Re(U_r x)^2``.

    Their filter has outputs ``(C, U)``; the squares come after it. Theory:
    ``theory/lqo-layer.md``.
    """

    family = "lqo"

    def recognises(self, module: nn.Module) -> bool:
        """Tell by the tensors whether the module is such a layer, whole and alone."""
        return set(module.state_dict()) == set(AXES)

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the filter of the stored weights; see `read_lqo`, which says what is refused."""
        return dict(read_lqo(module.state_dict()))

    def parts(self, module: nn.Module) -> dict[str, Any]:
        """Return the squares, which take the place of an activation."""
        rank, channels, _ = module.get_parameter("U_re").shape
        return {"activation": QuadraticOutputs(channels, rank)}

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a copy of the layer, of its own class, padded, that holds the system.

        Raises
        ------
        OrderError
            If `states` is odd or too few.
        CheckpointError
            If the system is none of the layer's kind, or a pole is not inside the unit circle.
        """
        where = "LQOAdapter.from_systems"
        rank, channels, _ = module.get_parameter("U_re").shape
        if set(systems) != {"core"}:
            raise CheckpointError(
                message(where, "other filters", expected="core", got=f"{sorted(systems)}")
            )
        system = of_kind(systems["core"], DiagonalSystem, where)
        wanted = ((1 + rank) * channels, channels)
        fits = system.D.shape == (1, *wanted) and system.real_output and system.is_post_update
        if not fits or np.any(system.D * (1.0 - np.eye(*wanted))):
            raise CheckpointError(
                message(
                    where,
                    "the layer cannot hold this system",
                    expected=f"{wanted[0]} outputs, {wanted[1]} inputs, a diagonal D for the first "
                    f"{channels} outputs and none for those that are squared",
                    got=f"{system!r}",
                    cure="Keep the drop-in.",
                )
            )
        used = np.any(system.B[0] != 0, axis=-1) & np.any(system.C[0] != 0, axis=-2)
        poles, B, rows = system.poles[0][used], system.B[0][used], system.C[0][:, used]
        count = 2 * max(len(poles), 1) if states is None else states
        if count % 2 or count < 2 * len(poles):
            raise OrderError(
                message(
                    where,
                    "states do not fit",
                    expected=f"an even number >= {2 * len(poles)}",
                    got=f"{states}",
                )
            )
        room = count // 2 - len(poles)
        nu, theta, gamma = ring_parameters(poles, room, where)
        B = np.pad(B, ((0, room), (0, 0))) / np.exp(gamma)[:, None]
        rows = np.pad(rows, ((0, 0), (0, room)))
        C, U = rows[:channels], rows[channels:].reshape(rank, channels, -1)
        values = {"nu_log": nu, "theta_log": theta, "gamma_log": gamma}
        values["D"] = np.diagonal(system.D[0])
        for name, array in (("B", B), ("C", C), ("U", U)):
            values |= {f"{name}_re": array.real, f"{name}_im": array.imag}
        plain = copy_module(module)
        for name, array in values.items():
            old = plain.get_parameter(name)
            fresh = torch.tensor(np.ascontiguousarray(array), dtype=old.dtype, device=old.device)
            setattr(plain, name, nn.Parameter(fresh, requires_grad=old.requires_grad))
        return plain
