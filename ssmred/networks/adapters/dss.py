"""Read and write the DSS layer of gated-state-spaces-pytorch (also inside its GSS layer).

``A = -exp(Lambda_real) + i g(Lambda_imag)``, g the exponential or nothing; one step, dt = 1, and
the same modes for all channels: ``h_k = Re sum C (exp(A) - 1) / A exp(A)^k``, without a factor 2,
on the normalised input, ``param_D`` on top. Sequences are (batch, T, features).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.drop_in import agrees, answer_of, cast_module
from ssmred.networks.adapters.s4_names import check_not_selective
from ssmred.networks.adapters.s4_reading import as_arrays
from ssmred.networks.adapters.s4d_parts import own_tensors
from ssmred.networks.adapters.s4d_writing import replace_tensor
from ssmred.networks.cores import full_core
from ssmred.networks.reduced import ReducedSSM
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["DSSAdapter", "read_dss", "recognises_tensors"]

_NAMES = ("Lambda_real", "Lambda_imag", "C_real", "C_imag", "param_D")

CHECKED_SAMPLES = 40
"""Samples of the response compared after reading and writing."""

KERNEL_MARGIN = 16.0
"""Roundings per term that two evaluations of the same response may differ by; the layer's own goes
through Fourier transforms."""


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one DSS layer; others may be among them."""
    return len(_prefixes(names_to_shapes)) == 1


def read_dss(
    tensors: Mapping[str, Any], *, imag_exp: bool | None = None
) -> dict[str, DiagonalSystem]:
    """Return ``{"core": system}`` of a DSS layer from the tensors of its state dict.

    Parameters
    ----------
    tensors : mapping of str to array or torch.Tensor
        ``Lambda_real``, ``Lambda_imag (N)``, ``C_real``, ``C_imag (H, N)``, ``param_D (H)``.
    imag_exp : bool
        Whether the imaginary parts are exponentials (``dss_kernel_lambda_imag_exp``, True by
        default there); the tensors do not tell.

    Returns
    -------
    dict
        ``"core"``: DiagonalSystem, poles (H, N), the same in every channel; post-update, real
        outputs; it filters the *normalised* input.

    Raises
    ------
    CheckpointError
        If a tensor is missing, misshapen, nan or inf, or `imag_exp` is missing.
    """
    where = "read_dss"
    arrays = as_arrays(tensors, where)
    check_not_selective(arrays, where=where)
    prefixes = _prefixes(arrays)
    if len(prefixes) != 1:
        prefix = next(
            (n.removesuffix("Lambda_real") for n in arrays if n.endswith("Lambda_real")), ""
        )
        missing = [f"{prefix}{n}" for n in _NAMES if f"{prefix}{n}" not in arrays]
        raise CheckpointError(
            message(
                where,
                f"{missing[0]} is missing" if missing else "more than one DSS layer",
                expected=", ".join(_NAMES),
                got=", ".join(sorted(arrays)),
            )
        )
    if imag_exp is None:
        raise CheckpointError(
            message(
                where,
                "the tensors do not tell whether Lambda_imag is an exponent",
                cure="Pass imag_exp=True if the layer was built with the package's defaults.",
            )
        )
    own = {name: arrays[f"{prefixes[0]}{name}"] for name in _NAMES}
    modes, channels = own["Lambda_real"].shape[-1:], own["param_D"].shape[:1]
    shapes = dict.fromkeys(_NAMES[:2], modes) | dict.fromkeys(_NAMES[2:4], (*channels, *modes))
    for name, shape in (shapes | {"param_D": channels}).items():
        if own[name].shape != shape or 0 in shape:
            raise CheckpointError(
                message(
                    where,
                    f"{prefixes[0]}{name} has the wrong shape",
                    expected=f"{shape}",
                    got=f"{own[name].shape}",
                )
            )
    return {"core": _system(own, imag_exp, prefixes[0])}


def _system(own: Mapping[str, np.ndarray], imag_exp: bool, prefix: str) -> DiagonalSystem:
    with np.errstate(over="ignore"):
        imag = np.exp(own["Lambda_imag"]) if imag_exp else own["Lambda_imag"]
        A = -np.exp(own["Lambda_real"]) + 1j * imag
    if not (np.isfinite(A) & (A.real < 0)).all():
        raise CheckpointError(
            message(
                "read_dss",
                f"{prefix}Lambda_real or {prefix}Lambda_imag is out of range",
                expected="exponentials that are finite and not 0",
            )
        )
    shape = own["C_real"].shape
    return DiagonalSystem(
        np.broadcast_to(np.exp(A), shape),
        np.broadcast_to(np.expm1(A) / A, shape)[..., None],
        (own["C_real"] + 1j * own["C_imag"])[:, None, :],
        own["param_D"][:, None, None],
        recurrence="post-update",
        real_output=True,
    )


class DSSAdapter:
    """Translate DSS layers: a norm, one set of modes for all channels, no mixing.

    Parameters
    ----------
    imag_exp : bool, optional
        Whether imaginary parts are exponentials; found by comparing by default.

    Notes
    -----
    The norm stays in front of the filter. The gated layer (GSS) around it stays as it is.
    """

    family = "dss"

    def __init__(self, imag_exp: bool | None = None) -> None:
        self.imag_exp = imag_exp

    def recognises(self, module: nn.Module) -> bool:
        """Tell whether the module is built like a DSS layer."""
        tensors = own_tensors(module)
        return set(tensors) == set(_NAMES) and _norm_name(module) is not None

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the system of the stored weights, compared with the layer's own response.

        Raises
        ------
        CheckpointError
            If a weight is nan or inf, or the layer's response is not the system's.
        """
        return {"core": self._read(module)[0]}

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in that filters with the core, behind the layer's own norm.

        Raises
        ------
        CheckpointError
            If with the layer's own system the drop-in answers otherwise than the layer.
        """
        system, _ = self._read(module)
        norm = getattr(module, _norm_name(module) or "")
        block = FilterBlock(
            full_core(system), before=norm, features_last=True, transposed=False, paired=False
        )
        if not agrees(module, block, width=system.batch_shape[0]):
            raise CheckpointError(
                message(
                    "DSSAdapter.to_block",
                    f"{type(module).__name__} has a DSS layer's weights but computes otherwise",
                    expected="K * norm(x) + param_D norm(x)",
                )
            )
        block.core = cores["core"]
        return block.train(module.training)

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a copy of the layer, of its own class, whose response is that of the system.

        Parameters
        ----------
        module : nn.Module
            The layer that the system was made from.
        systems : mapping
            ``"core"``: DiagonalSystem, (H, n) poles, post-update, real outputs.
        states : int, optional
            Real states, two per mode; what the system needs by default.

        Returns
        -------
        nn.Module
            ``state_dict()`` loads into the original class built with ``kernel_N=states // 2``.

        Raises
        ------
        OrderError
            If `states` is odd or too few.
        CheckpointError
            If a pole has no such parameters, or the written layer does not give the response.

        Notes
        -----
        All channels share the modes, so the layer gets every mode that any channel has, with C = 0
        where one does not have it.
        """
        where = "DSSAdapter.from_systems"
        _, imag_exp = self._read(module)
        core = ReducedSSM.from_system(systems["core"])
        plain = core.to_system()
        used = np.arange(plain.poles.shape[1]) < core.orders[:, None]
        union = np.array(list(dict.fromkeys(plain.poles[used].tolist())), dtype=np.complex128)
        stored = {
            name: tensor.detach().cpu().double().numpy()
            for name, tensor in own_tensors(module).items()
        }
        real, imag = _parameters(union, stored, imag_exp, where)
        modes = max(len(union), 1)
        count = 2 * modes if states is None else states
        if count % 2 or count < 2 * modes or core.channels != len(stored["param_D"]):
            raise OrderError(
                message(
                    where,
                    "states or channels do not fit",
                    expected=f"{len(stored['param_D'])} channels, an even number >= {2 * modes} of "
                    "states: all channels share the modes",
                    got=f"{core.channels} channels, states={states}",
                )
            )
        room = (0, count // 2 - len(union))
        values = {"Lambda_real": np.pad(real, room), "Lambda_imag": np.pad(imag, room)}
        dtype = module.C_real.detach().cpu().numpy().dtype
        values = {name: value.astype(dtype) for name, value in values.items()}
        rounded = {name: value.astype(np.float64) for name, value in values.items()}
        turn = np.exp(rounded["Lambda_imag"]) if imag_exp else rounded["Lambda_imag"]
        A = -np.exp(rounded["Lambda_real"]) + 1j * turn
        C = np.zeros((core.channels, count // 2), dtype=np.complex128)
        place = {pole: index for index, pole in enumerate(union.tolist())}
        for channel, order in enumerate(core.orders):
            for index in range(order):
                pole, residue = plain.poles[channel, index], plain.C[channel, 0, index]
                at = place[complex(pole)]
                turned = abs(np.exp(A[at]).conj() - pole) < abs(np.exp(A[at]) - pole)
                C[channel, at] += np.conj(residue) if turned else residue
        C = C * A / np.expm1(A)
        values |= {"C_real": C.real, "C_imag": C.imag, "param_D": plain.D[:, 0, 0]}
        result = copy.deepcopy(module)
        for name, value in values.items():
            replace_tensor(result, name, np.array(value, dtype=dtype))
        mistake = _mistake(result, plain, imag_exp=imag_exp, rounded=np.finfo(dtype).eps)
        if mistake is not None:
            raise mistake
        return result

    def _read(self, module: nn.Module) -> tuple[DiagonalSystem, bool]:
        """Return the system, and whether the imaginary parts are exponentials."""
        tensors = dict(own_tensors(module))
        if self.imag_exp is None:
            system = read_dss(tensors, imag_exp=True)["core"]
            if _mistake(module, system, imag_exp=True) is None:
                return system, True
        imag_exp = bool(self.imag_exp)
        system = read_dss(tensors, imag_exp=imag_exp)["core"]
        mistake = _mistake(module, system, imag_exp=imag_exp)
        if mistake is not None:
            raise mistake
        return system, imag_exp


def _parameters(
    poles: np.ndarray, stored: Mapping[str, np.ndarray], imag_exp: bool, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return Lambda_real and Lambda_imag of poles, bit for bit where they are known."""
    turn = np.exp(stored["Lambda_imag"]) if imag_exp else stored["Lambda_imag"]
    same = poles[:, None] == np.exp(-np.exp(stored["Lambda_real"]) + 1j * turn)
    known, source = same.any(axis=1), same.argmax(axis=1)
    usable = (np.abs(poles) < 1.0) & (poles != 0)
    A = np.log(np.where(usable, poles, 0.5))
    usable &= (A.imag != 0) | (not imag_exp)
    bad = ~known & ~usable
    if bad.any():
        raise CheckpointError(
            message(
                where,
                "a pole has no parameters in this layer",
                expected="0 < |pole| < 1" + (", not real" if imag_exp else ""),
                got=f"{poles[bad][0]:.6g}",
                cure="Keep the reduced layer; it holds any pole.",
            )
        )
    with np.errstate(divide="ignore"):
        imag = np.log(np.abs(A.imag)) if imag_exp else A.imag
        real = np.log(-A.real)
    return (
        np.where(known, stored["Lambda_real"][source], real),
        np.where(known, stored["Lambda_imag"][source], imag),
    )


def _mistake(
    module: nn.Module, system: DiagonalSystem, *, imag_exp: bool, rounded: float = 0.0
) -> CheckpointError | None:
    """Return an error unless the layer's response without its norm is the system's."""
    channels, length = system.batch_shape[0], CHECKED_SAMPLES
    impulse = torch.zeros(1, length, channels, dtype=torch.float64)
    impulse[:, 0] = 1.0
    own = None
    for dtype in (torch.float64, module.C_real.dtype):
        bare = cast_module(copy.deepcopy(module), dtype).eval()
        setattr(bare, _norm_name(module) or "", nn.Identity())
        with torch.no_grad():
            own, _ = answer_of(bare, impulse.to(dtype))
        if own is not None:
            break
    if own is None or own.shape != impulse.shape:
        return CheckpointError(
            message("DSSAdapter", f"{type(module).__name__} does not run on (batch, T, {channels})")
        )
    eps = max(torch.finfo(own.dtype).eps, rounded)
    A = np.abs(np.log(np.where(system.poles == 0, 0.5, system.poles)))
    sizes = np.abs(system.C[:, 0, :] * system.B[..., 0])
    terms = (sizes * (1.0 + 1.0 / np.maximum(A, 1e-300) + np.log2(length))).sum(axis=1)
    terms = terms + np.abs(system.D[:, 0, 0]) + sizes.sum(axis=1) * system.order / KERNEL_MARGIN
    # a mode turns by the angle it stands for, of which only what is left below 2 pi is in the pole
    turn = _rates(module, imag_exp).max(initial=0.0)
    allowed = KERNEL_MARGIN * eps * (terms + sizes.sum(axis=1) * turn * length)
    values, wanted = own[0].T.double().numpy(), system.impulse_response(length)[..., 0, 0]
    wrong = ~(np.abs(values - wanted) <= allowed[:, None])
    if wrong.any():
        channel, step = (int(i) for i in np.argwhere(wrong)[0])
        return CheckpointError(
            message(
                "DSSAdapter",
                f"the response of {type(module).__name__} is not that of its weights (channel "
                f"{channel}, step {step})",
                expected=f"{wanted[channel, step]:.6g}",
                got=f"{values[channel, step]:.6g}",
                cure="The class computes something else; register an adapter of its own.",
            )
        )
    return None


def _rates(module: nn.Module, imag_exp: bool) -> np.ndarray:
    """Return |A| of the stored modes."""
    stored = {n: t.detach().cpu().double().numpy() for n, t in own_tensors(module).items()}
    turn = np.exp(stored["Lambda_imag"]) if imag_exp else stored["Lambda_imag"]
    return np.hypot(np.exp(stored["Lambda_real"]), turn)


def _norm_name(module: nn.Module) -> str | None:
    """Return the name of the only child, a norm over features."""
    children = dict(module.named_children())
    if len(children) != 1:
        return None
    name, child = next(iter(children.items()))
    shapes = {tuple(tensor.shape) for tensor in own_tensors(child).values()}
    return name if shapes <= {tuple(own_tensors(module)["param_D"].shape)} else None


def _prefixes(names: Mapping[str, Any]) -> list[str]:
    found = [name.removesuffix("Lambda_real") for name in names if name.endswith("Lambda_real")]
    return [prefix for prefix in found if all(f"{prefix}{name}" in names for name in _NAMES)]
