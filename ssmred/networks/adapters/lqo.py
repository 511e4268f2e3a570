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
from ssmred.networks.copying import copy_module
from ssmred.networks.layers.lqo import QuadraticOutputs
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem, of_kind

__all__ = ["LQOAdapter"]

SHAPES = {
    "nu_log": "n",
    "theta_log": "n",
    "gamma_log": "n",
    "B_re": "nh",
    "B_im": "nh",
    "C_re": "hn",
    "C_im": "hn",
    "U_re": "rhn",
    "U_im": "rhn",
    "D": "h",
}
"""Tensors and their axes: modes, features, squares per output."""


class LQOAdapter(LayerAdapter):
    """Translate layers ``y = Re(C x) + D u + sum_r Re(U_r x)^2``.

    Their filter has outputs ``(C, U)``; the squares come after it. Theory:
    ``theory/lqo-layer.md``.
    """

    family = "lqo"

    def recognises(self, module: nn.Module) -> bool:
        """Tell by the tensors whether the module is such a layer."""
        tensors = module.state_dict()
        sizes: dict[str, int] = {}
        return set(tensors) == set(SHAPES) and all(
            tensors[name].ndim == len(axes)
            and all(
                sizes.setdefault(axis, size) == size
                for axis, size in zip(axes, tensors[name].shape, strict=True)
            )
            for name, axes in SHAPES.items()
        )

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return ``{"core": system}``, (1 + r) H outputs; D reaches the first H.

        Raises
        ------
        CheckpointError
            If a tensor holds nan or inf, or a pole is not inside the unit circle.
        """
        where = "LQOAdapter.to_systems"
        values = _arrays(module)
        for name, array in values.items():
            if not np.isfinite(array).all():
                raise CheckpointError(message(where, f"{name} holds nan or inf"))
        poles = np.exp(-np.exp(values["nu_log"]) + 1j * np.exp(values["theta_log"]))
        if not (np.abs(poles) < 1).all():
            raise CheckpointError(
                message(
                    where,
                    "a pole is not inside the unit circle",
                    expected="exp(-exp(nu_log)) < 1 in double precision",
                    got=f"nu_log = {values['nu_log'][int(np.argmax(np.abs(poles)))]:.6g}",
                )
            )
        B, C, U = (values[f"{name}_re"] + 1j * values[f"{name}_im"] for name in "BCU")
        B = np.exp(values["gamma_log"])[:, None] * B
        rows = np.concatenate([C, U.reshape(-1, len(poles))])
        direct = np.zeros((1, len(rows), B.shape[1]))
        direct[0, : B.shape[1]] = np.diag(values["D"])
        system = DiagonalSystem(
            poles[None], B[None], rows[None], direct, recurrence="post-update", real_output=True
        )
        return {"core": system}

    def parts(self, module: nn.Module) -> dict[str, Any]:
        """Return the squares, which take the place of an activation."""
        rank, channels, _ = module.get_parameter("U_re").shape
        return {"activation": QuadraticOutputs(channels, rank), "heeds_options": True}

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
        diagonal = not np.any(system.D * (1.0 - np.eye(*wanted))) if (
            system.D.shape[1:] == wanted
        ) else False  # fmt: skip
        if not (diagonal and system.real_output and system.is_post_update):
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


def _arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: tensor.detach().cpu().double().numpy() for name, tensor in module.state_dict().items()
    }
