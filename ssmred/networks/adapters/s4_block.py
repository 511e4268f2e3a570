"""The adapter for S4 layers of state-spaces/s4: diagonal, and diagonal plus low rank."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_checks import (
    CHECKED_SAMPLES,
    OwnKernels,
    own_kernels,
    responses,
    same_layer,
    tolerances,
)
from ssmred.networks.adapters.s4_half import realised
from ssmred.networks.adapters.s4_inference import find_settings
from ssmred.networks.adapters.s4_names import S4Names
from ssmred.networks.adapters.s4_parts import (
    S4Parts,
    candidates,
    find_parts,
    layer_arrays,
    parts_of,
)
from ssmred.networks.adapters.s4_reading import complex_weights, in_output_order, systems_of
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.adapters.s4_writing import write_layer
from ssmred.networks.cores import full_core
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["S4Adapter"]

_HINTS = {
    "disc": "disc",
    "real_transform": "real_transform",
    "real_type": "real_transform",
    "imag_transform": "imag_transform",
    "dt_transform": "dt_transform",
}


class S4Adapter:
    """Translate S4 layers, diagonal or with a low-rank term, whatever their class is called.

    Recognised are the inner layer (a tensor D and a kernel), the block of version 4 around it,
    and the single module of versions 2 and 3.

    Parameters
    ----------
    settings : S4Settings, optional
        What is not to be found by comparing: ``length`` for ``disc="dss"``, ``trust`` for layers
        whose own convolution is not the response of their own matrices, ``swap_channels`` where
        no attribute tells it.

    Notes
    -----
    Discretisation and transforms are found by trying all of them on the layer's own kernel, in
    float64 where its class computes in it; exactly one has to agree to rounding. Reading never
    changes the module: a copy is called.
    A layer with ``l_max`` cuts its kernels there; its systems are its response up to that length.

    Examples
    --------
    A layer trained where the CPU fallback of its package was never used:

    >>> adapter = S4Adapter(S4Settings(trust="matrices"))
    >>> adapter.family
    's4'
    """

    family = "s4"

    def __init__(self, settings: S4Settings | None = None) -> None:
        self.settings = settings or S4Settings()

    def recognises(self, module: nn.Module) -> bool:
        """Tell whether the module is built like an S4 layer."""
        return find_parts(module) is not None

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the systems of the stored weights, compared with the layer's own kernels.

        Returns
        -------
        dict
            As of `read_s4`; with ``trust="convolution"`` diagonal systems with poles on the unit
            circle that reproduce the layer's own kernels over ``length`` samples (by default the
            length that C is made for), for work at that horizon.

        Raises
        ------
        CheckpointError
            If a weight is nan or inf, no setting gives the layer's own kernel, the layer's
            convolution is not the response of its matrices and ``trust`` is not given, or
            ``length`` is needed and missing.
        """
        return self._read(module, parts_of(module))[0]

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in that filters with the cores and reuses the layer's other submodules.

        Raises
        ------
        CheckpointError
            If with the layer's own systems the drop-in answers otherwise than the layer.
        """
        parts = parts_of(module)
        systems, names, settings = self._read(module, parts)
        full = {name: full_core(system) for name, system in systems.items()}
        width = names.heads
        if parts.gated:  # the layer is wider than its filter, or at least may be
            width = int(getattr(module, "d_model", width))
        for block in candidates(module, parts, full, names, settings):
            if same_layer(module, parts, names, systems, settings, block, width):
                for name, core in cores.items():
                    setattr(block, name, core)
                return block.train(module.training)
        raise CheckpointError(
            message(
                "S4Adapter.to_block",
                f"{type(module).__name__} has the weights of an S4 layer but computes something "
                "else",
                expected="mixing(dropout(activation(K * u + D u))), or the same with a gate",
                cure="With several channels try S4Settings(swap_channels=True); else register an "
                "adapter of its own.",
            )
        )

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a copy of the layer, of its own class, whose kernels are those of the systems.

        Parameters
        ----------
        module : nn.Module
            The layer that the systems were made from.
        systems : mapping
            ``"core"``, and ``"backward"`` of a bidirectional layer, in the order of `to_systems`:
            DiagonalSystem, post-update, real outputs; or DenseSystem.
        states : int, optional
            Real states per head of the result, even; what the systems need by default.

        Returns
        -------
        nn.Module
            ``state_dict()`` loads into the original class built with that many states and
            ``n_ssm`` left at its default.

        Raises
        ------
        OrderError
            If `states` is odd or too few.
        CheckpointError
            If a pole has no such parameters (0, on or outside the unit circle, or outside the
            range of a transform), a dense system has no well-conditioned modes, or the written
            layer does not give the systems' responses.

        Notes
        -----
        Every head gets modes of its own, so ``n_ssm`` becomes H. All channels and directions of a
        head share the modes that any of them has, with C = 0 where one does not have it. B becomes
        1. A layer with a low-rank term gets P = 0, and C made for its length as before: the systems
        it can hold are the diagonalisable ones. The read-outs are rounded to the module's dtype.
        """
        parts = parts_of(module)
        _, names, settings = self._read(module, parts)
        if settings.trust == "convolution":
            raise CheckpointError(
                message(
                    "S4Adapter.from_systems",
                    "the layer's convolution does not compute what its parameters mean, so no "
                    "parameters give these systems",
                    cure='Keep the reduced layers, or read with trust="matrices".',
                )
            )
        return write_layer(module, parts, names, settings, systems, states)

    def _read(
        self, module: nn.Module, parts: S4Parts
    ) -> tuple[dict[str, LinearSystem], S4Names, S4Settings]:
        """Return the systems, compared with the layer, the names of its tensors and the settings.

        ``trust`` is left in the settings only where there is something to choose.
        """
        arrays, names = layer_arrays(module, parts)
        _check_even(module, parts, names)
        given = self._with_attributes(module, parts, names)
        own = own_kernels(module, parts, names, CHECKED_SAMPLES)
        hints = _attributes(module, parts, _HINTS)
        settings, realisation = find_settings(arrays, names, given, own, hints)
        if realisation == "both":
            settings = settings.replace(trust=None)
        weights = complex_weights(arrays, names, settings)
        systems = systems_of(weights, names, settings)  # asks for length where it is needed
        if settings.disc == "dss":
            length = settings.length or 0
            at_length = own_kernels(module, parts, names, length)
            _check(
                systems, names, settings, at_length, tolerances(weights, names, settings, at_length)
            )
        if realisation == "both":
            return systems, names, settings
        if settings.trust is None:
            raise CheckpointError(_which(module, systems, names, settings, own))
        if settings.trust == "convolution":
            systems = self._convolved(module, parts, names, settings, systems, weights.length)
        return systems, names, settings

    def _with_attributes(self, module: nn.Module, parts: S4Parts, names: S4Names) -> S4Settings:
        """Return the given settings, and what only attributes tell: order of outputs, bandlimit."""
        settings = self.settings
        found = _attributes(module, parts, {n: n for n in ("swap_channels", "bandlimit")})
        for name, default in (("swap_channels", False), ("bandlimit", None)):
            if getattr(settings, name) is None:
                settings = settings.replace(**{name: found.get(name, default)})
        return settings

    def _convolved(
        self,
        module: nn.Module,
        parts: S4Parts,
        names: S4Names,
        settings: S4Settings,
        systems: dict[str, LinearSystem],
        made_for: int,
    ) -> dict[str, LinearSystem]:
        length = settings.length or made_for
        if not length:
            settings.replace(length=None).require("length", where="S4Adapter")
        values = own_kernels(module, parts, names, length).values
        found = {}
        for index, (core, system) in enumerate(systems.items()):
            rows = values[index * names.channels : (index + 1) * names.channels]
            poles, residues = realised(in_output_order(rows, settings))
            found[core] = DiagonalSystem(
                poles,
                np.ones_like(poles)[..., None],
                residues[:, None, :],
                system.D,
                recurrence="post-update",
                real_output=True,
            )
        return found


def _check(
    systems: dict[str, LinearSystem],
    names: S4Names,
    settings: S4Settings,
    own: OwnKernels,
    allowed: np.ndarray,
) -> None:
    expected = responses(systems, names, own.values.shape[-1], settings)
    wrong = ~(np.abs(own.values - expected) <= allowed)
    if wrong.any():
        channel, head, step = (int(i) for i in np.argwhere(wrong)[0])
        raise CheckpointError(
            message(
                "S4Adapter",
                f"the kernel is not the response of its tensors (channel {channel}, head {head}, "
                f"step {step})",
                expected=f"{expected[channel, head, step]:.6g}",
                got=f"{own.values[channel, head, step]:.6g}",
            )
        )


def _check_even(module: nn.Module, parts: S4Parts, names: S4Names) -> None:
    said = [
        vars(module.get_submodule(path)).get(name)
        for path in ("", parts.owner, parts.kernel, parts.generator)
        for name in ("N", "d_state")
    ]
    if 2 * names.modes + 1 in said:
        raise CheckpointError(
            message(
                "S4Adapter",
                f"{names.C} holds {names.modes} pairs of conjugate modes, but the layer was built "
                f"with {2 * names.modes + 1} states: its class drops the last one",
                expected="an even number of states",
                cure=f"Build it with d_state={2 * names.modes}; the tensors are the same.",
            )
        )


def _attributes(module: nn.Module, parts: S4Parts, wanted: Mapping[str, str]) -> dict:
    """Return what the modules of a layer say of themselves, under our names."""
    found = {}
    for path in ("", parts.owner, parts.kernel, parts.generator):
        own = vars(module.get_submodule(path))
        found |= {ours: own[name] for name, ours in wanted.items() if own.get(name) is not None}
    return found


def _which(
    module: nn.Module,
    systems: dict[str, LinearSystem],
    names: S4Names,
    settings: S4Settings,
    own: OwnKernels,
) -> str:
    response = responses(systems, names, own.values.shape[-1], settings)
    apart = np.abs(own.values - response).max() / np.abs(response).max()
    return message(
        "S4Adapter",
        f"the convolution of {type(module).__name__} leaves out the conjugate modes (a slip of the "
        "CPU fallback for Cauchy sums in some packages), so it is not the impulse response of the "
        "layer's own matrices",
        got=f"kernels that differ by {apart:.2g} of the largest sample",
        cure='Say which one counts: S4Settings(trust="matrices") if the network was trained with '
        'the compiled kernels or is run step by step; S4Settings(trust="convolution") to keep what '
        "this class computes here, for one sequence length.",
    )
