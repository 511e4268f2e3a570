"""Read S4 layers from named tensors, without the class that wrote them.

``A = -f(A_real) - i g(A_imag)`` (``+ i`` under the old names), ``dt = d(inv_dt)``; head h uses the
parameters of system ``h mod n_ssm``; ``y = 2 Re(C x) + D u``. Diagonal layers: zero-order hold
``b = B (exp(dt A) - 1) / A``, bilinear ``b = B dt / (1 - dt A / 2)``, or the softmax of DSS, which
depends on the length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_dplr import dense_heads, untwisted
from ssmred.networks.adapters.s4_names import S4Names, find_names, without_wrappers
from ssmred.networks.adapters.s4_settings import RELU_FLOOR, S4Settings, transformed
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = [
    "DSS_FLOOR",
    "S4Weights",
    "as_arrays",
    "complex_weights",
    "diagonal_modes",
    "floor_of",
    "in_channel_order",
    "in_output_order",
    "read_s4",
    "systems_of",
    "with_told",
]

DSS_FLOOR = 1e-7
"""Upstream adds it to a squared modulus before it divides."""


@dataclass(frozen=True, eq=False)
class S4Weights:
    """Hold the complex parameters of one layer, head by head.

    Attributes
    ----------
    A, dt, B : (H, n) complex128, float64, complex128
    C : (directions * channels, H, n) complex128
        As stored: of a layer with a low-rank term, made for `length`.
    P : (rank, H, n) complex128
    D : (channels, H) float64
    length : int
        0 where C is not made for a length.
    """

    A: np.ndarray
    dt: np.ndarray
    B: np.ndarray
    C: np.ndarray
    P: np.ndarray
    D: np.ndarray
    length: int


def read_s4(
    tensors: Mapping[str, Any], settings: S4Settings | None = None
) -> dict[str, LinearSystem]:
    """Return the systems of an S4 layer from the tensors of its state dict.

    Parameters
    ----------
    tensors : mapping of str to array or torch.Tensor
        ``layer.D``, ``layer.kernel.C`` and so on, or any other generation of the names; further
        tensors (mixing) are left alone.
    settings : S4Settings, optional
        What the tensors do not tell; an error names what is missing.

    Returns
    -------
    dict
        ``"core"``, and ``"backward"`` for a bidirectional layer: post-update, real outputs, batch
        (channels * H,), channel-major unless ``swap_channels``. Diagonal layers: DiagonalSystem,
        poles (channels * H, N/2), C with its factor 2. With a low-rank term: DenseSystem of N real
        states.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unknown, misshapen, nan or inf, a setting is missing, or a mode
        does not decay; the key is named.
    UnsupportedOperationError
        For the tensors of a selective layer.

    Notes
    -----
    The second filter of a bidirectional layer runs on the reversed sequence and starts one step
    late: ``sum_{s > t} k_{s-t-1} u_s``.
    """
    settings = settings or S4Settings()
    arrays = as_arrays(tensors, "read_s4")
    names = find_names({name: array.shape for name, array in arrays.items()})
    settings = with_told(settings, names)
    settings.require("disc", "real_transform", "imag_transform", "dt_transform")
    if names.channels > 1:
        settings.require("swap_channels")
    weights = complex_weights(arrays, names, settings)
    return systems_of(weights, names, settings)


def systems_of(weights: S4Weights, names: S4Names, settings: S4Settings) -> dict[str, LinearSystem]:
    """Return the systems of complex weights; see `read_s4`."""
    _check_decay(weights, names)
    if names.rank:
        return _dense_systems(weights, names, settings)
    if settings.disc == "dss" and not settings.length:
        settings.replace(length=None).require("length")
    poles, hold, factor = diagonal_modes(weights, settings.disc or "", settings.length)
    found = {}
    for core, C, D in _directions(weights, names):
        shape = (names.channels, names.heads, names.modes)
        rows = [in_output_order(np.broadcast_to(x, shape), settings) for x in (poles, hold)]
        found[core] = DiagonalSystem(
            rows[0],
            rows[1][..., None],
            in_output_order(factor * C, settings)[:, None, :],
            in_output_order(D, settings)[:, None, None],
            recurrence="post-update",
            real_output=True,
        )
    return found


def as_arrays(tensors: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """Return named tensors as NumPy arrays, without the prefixes of wrappers.

    Raises
    ------
    CheckpointError
        If one holds nan or inf, or is no array of numbers.
    """
    arrays = {}
    for name, stored in without_wrappers(tensors).items():
        value = tensors[stored]
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value
            value = value.resolve_conj() if value.is_complex() else value
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise CheckpointError(
                message(where, f"{name} is no array of numbers", got=type(tensors[stored]).__name__)
            )
        if not np.isfinite(array).all():
            raise CheckpointError(
                message(
                    where,
                    f"{name} holds nan or inf",
                    expected="finite weights",
                    cure="Load a checkpoint from before the training diverged.",
                )
            )
        arrays[name] = array.astype(np.float64) if array.dtype.kind == "f" else array
    return arrays


def complex_weights(
    arrays: Mapping[str, np.ndarray], names: S4Names, settings: S4Settings
) -> S4Weights:
    """Return the parameters under the transforms that `settings` names."""
    tile = np.arange(names.heads) % names.systems
    real = transformed(settings.real_transform or "", arrays[names.real], floor=floor_of(names))
    if names.imag:
        imag = transformed(settings.imag_transform or "", arrays[names.imag])
        B, C = (_paired(arrays[name]) for name in (names.B, names.C))
    else:  # "is_real" upstream
        imag = np.zeros_like(real)
        B, C = (arrays[name].astype(np.complex128) for name in (names.B, names.C))
    A = np.empty(real.shape, dtype=np.complex128)
    A.real, A.imag = -real, -imag if names.is_current else imag  # either may be inf
    A = A[tile]
    step = arrays[names.step].reshape(names.heads, -1)
    dt = np.broadcast_to(transformed(settings.dt_transform or "", step), A.shape)
    if settings.bandlimit is not None:
        C = np.where(dt * np.abs(A.imag) / (2.0 * np.pi) < 0.5 * settings.bandlimit, C, 0.0)
    P = _paired(arrays[names.P])[:, tile] if names.P else np.zeros((0, *A.shape), complex)
    length = int(arrays[names.length].reshape(())) if names.length else 0
    if names.rank and not names.length:
        settings.require("length")
        length = settings.length or 0
    if length < 0:
        raise CheckpointError(
            message("read_s4", f"{names.length} is negative", expected=">= 0", got=f"{length}")
        )
    B = B.reshape(names.systems, names.modes)[tile]
    return S4Weights(A, dt, B, C, P, arrays[names.D], length)


def with_told(settings: S4Settings, names: S4Names) -> S4Settings:
    """Return the settings, completed by what the names tell.

    Raises
    ------
    CheckpointError
        If a transform contradicts the names.
    """
    for name, told in names.told.items():
        given = getattr(settings, name)
        if name != "disc" and given not in (None, told):
            raise CheckpointError(
                message(
                    "read_s4",
                    f"{name} contradicts the names {names.step}, {names.real}, {names.imag}",
                    expected=told,
                    got=given,
                )
            )
    return settings.replace(**names.told)


def floor_of(names: S4Names) -> float:
    """Return what the layer's class adds to a relu."""
    return 0.0 if names.P and not names.is_current else RELU_FLOOR


def diagonal_modes(
    weights: S4Weights, disc: str, length: int | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return poles and input rows (H, n) of a diagonal layer, and the factor of its read-out."""
    A, dt, B = weights.A, weights.dt, weights.B
    exponent = A * dt
    if disc == "bilinear":
        return (1.0 + exponent / 2) / (1.0 - exponent / 2), B * dt / (1.0 - exponent / 2), 2.0
    if disc == "zoh":
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = np.where(A == 0, dt, np.expm1(exponent) / A)
        return np.exp(exponent), B * rate, 2.0
    whole = np.expm1(exponent * (length or 1)) * A
    with np.errstate(over="ignore"):  # of parameters read under a wrong setting: share is then 0
        share = np.conj(whole) / (np.abs(whole) ** 2 + DSS_FLOOR)
    return np.exp(exponent), B * np.expm1(exponent) * share, 1.0


def in_output_order(values: np.ndarray, settings: S4Settings) -> np.ndarray:
    """Merge (channels, H, ...) into (channels * H, ...) in the order of the layer's output."""
    ordered = np.swapaxes(values, 0, 1) if settings.swap_channels else values
    return ordered.reshape(-1, *values.shape[2:])


def in_channel_order(values: np.ndarray, names: S4Names, settings: S4Settings) -> np.ndarray:
    """Return values (channels * H, ...) in the layer's output order as (channels, H, ...)."""
    if settings.swap_channels:
        apart = values.reshape(names.heads, names.channels, *values.shape[1:])
        return np.swapaxes(apart, 0, 1)
    return values.reshape(names.channels, names.heads, *values.shape[1:])


def _dense_systems(
    weights: S4Weights, names: S4Names, settings: S4Settings
) -> dict[str, LinearSystem]:
    A, B = dense_heads(weights.A, weights.P, weights.B, weights.dt[:, 0])
    found = {}
    for core, C, D in _directions(weights, names):
        read_out = untwisted(A, C, weights.length)
        shape = (names.channels, names.heads)
        found[core] = DenseSystem(
            in_output_order(np.broadcast_to(A, (*shape, *A.shape[1:])), settings),
            in_output_order(np.broadcast_to(B, (*shape, B.shape[1])), settings)[..., None],
            in_output_order(read_out, settings)[:, None, :],
            in_output_order(D, settings)[:, None, None],
            recurrence="post-update",
        )
    return found


def _directions(weights: S4Weights, names: S4Names) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return core name, C and D of the filter, and of the one that runs backwards."""
    count = names.channels
    forward = ("core", weights.C[:count], weights.D)
    if names.directions == 1:
        return [forward]
    return [forward, ("backward", weights.C[count:], np.zeros_like(weights.D))]


def _check_decay(weights: S4Weights, names: S4Names) -> None:
    for key, bad, wanted in (
        (names.step, ~((weights.dt > 0) & np.isfinite(weights.dt)), "a finite step dt > 0"),
        (
            f"{names.real} or {names.imag}",
            ~(np.isfinite(weights.A) & (weights.A.real < 0)),
            "Re(A) < 0 and finite: modes that decay",
        ),
    ):
        if bad.any():
            head, mode = (int(i) for i in np.argwhere(bad)[0])
            value = weights.dt[head, mode] if key == names.step else weights.A[head, mode]
            raise CheckpointError(
                message(
                    "read_s4",
                    f"{key} is out of range (head {head}, mode {mode})",
                    expected=wanted,
                    got=f"{value:.6g}",
                    cure="Check the transforms in S4Settings.",
                )
            )


def _paired(array: np.ndarray) -> np.ndarray:
    return array[..., 0] + 1j * array[..., 1]
