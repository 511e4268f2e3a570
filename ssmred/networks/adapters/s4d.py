"""Read and write the minimal S4D layer of state-spaces/s4 (``models/s4/s4d.py``).

``A = -exp(log_A_real) + i A_imag``, ``dt = exp(log_dt)``, zero-order hold with ``B = 1``:
``l = exp(dt A)``, ``b = (l - 1) / A``, ``h_k = 2 Re sum C b l^k`` (post-update), ``D`` on top, then
activation, dropout and a position-wise mixing, gated or not.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.drop_in import agrees
from ssmred.networks.adapters.s4d_checks import candidates, check_kernel
from ssmred.networks.adapters.s4d_parts import (
    S4DParts,
    find_parts,
    parts_of,
    read_weights,
    to_numpy,
)
from ssmred.networks.adapters.s4d_writing import write_layer
from ssmred.networks.reduced import ReducedSSM
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["S4DAdapter"]


class S4DAdapter:
    """Translate minimal S4D layers, whatever their class is called and wherever it lives.

    Notes
    -----
    Reading evaluates the layer's own kernel twice, at `CHECKED_SAMPLES` samples.
    """

    family = "s4d"

    def recognises(self, module: nn.Module) -> bool:
        """Tell whether the module is built like a minimal S4D layer."""
        return find_parts(module) is not None

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the channels of the stored weights and compare them with the layer's own kernel.

        Returns
        -------
        dict
            ``"core"``: DiagonalSystem, poles (H, N/2), B (H, N/2, 1) the zero-order hold,
            C (H, 1, N/2) doubled, D (H, 1, 1).

        Raises
        ------
        CheckpointError
            If a weight is nan or inf, or the layer's kernel is not the system's response.
        """
        system = layer_system(module, parts_of(module))
        check_kernel(module, system)
        return {"core": system}

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in that filters with the core and reuses the layer's other submodules.

        Raises
        ------
        CheckpointError
            If with the layer's own channels the drop-in answers otherwise than the layer.
        """
        parts = parts_of(module)
        full = ReducedSSM.from_system(layer_system(module, parts))
        for candidate in candidates(module, parts, full):
            if agrees(module, candidate):
                candidate.core = cores["core"]
                return candidate.train(module.training)
        raise CheckpointError(
            message(
                "S4DAdapter.to_block",
                f"{type(module).__name__} has the weights of an S4D layer but computes something "
                "else",
                expected="mixing(dropout(activation(K * u + D u)))",
                cure="Register an adapter of its own with ssmred.networks.register_adapter.",
            )
        )

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a copy of the layer, of its own class, whose kernel is that of a system.

        Parameters
        ----------
        module : nn.Module
            The layer that the system was made from: gives steps, dtype and everything else.
        systems : mapping
            ``"core"``: DiagonalSystem, batched, post-update, real output, (H, n) poles; padding
            with pole 0 or B 0.
        states : int, optional
            Real states per channel of the result, even; the largest order by default.

        Returns
        -------
        nn.Module
            ``state_dict()`` loads into the original class built with that many states; padding
            has ``C = 0``.

        Raises
        ------
        OrderError
            If `states` is odd or too few.
        CheckpointError
            If a pole has no such parametrisation (0 or on or outside the unit circle), or the
            written layer's kernel is not the system's response to the module's precision.

        Notes
        -----
        Poles that the layer already has keep their stored parameters, bit for bit. The read-outs
        are rounded to the module's dtype; what that costs is outside every certificate.
        """
        return write_layer(module, systems["core"], states)


def layer_system(module: nn.Module, parts: S4DParts) -> DiagonalSystem:
    A, dt, C = read_weights(module, parts)
    exponent = A * dt[:, None]
    return DiagonalSystem(
        np.exp(exponent),
        (np.expm1(exponent) / A)[..., None],
        2.0 * C[:, None, :],
        to_numpy(module.D)[:, None, None],
        recurrence="post-update",
        real_output=True,
    )
