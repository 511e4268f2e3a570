"""Measure state-space layers: the gains that the rule of a layer needs, per channel.

A layer on a finite horizon is its first T impulse-response samples; gains, differences and step
responses are taken from them. The difference of two systems that share poles is formed from the
differences of their coefficients, in double-double arithmetic: reductions to relative errors of
1e-14 are real there, not noise (``theory/network-bound.md``).
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.certify.layer_forms import check_layer
from ssmred.certify.values import EPS, norm, up
from ssmred.checks import check_finite
from ssmred.errors import ShapeError, message
from ssmred.kernels.compensated import fill_difference_response
from ssmred.norms import (
    h2_error,
    h2_norm,
    impulse_l1_gain,
    impulse_l2_gain,
    l1_gain_error,
    l2_gain_error,
)
from ssmred.systems import DiagonalSystem

__all__ = ["LayerGains", "layer_gains", "reduction_gains"]

LARGEST = 1e280  # terms above it are near the splitting limit of error-free products
CACHED_LAYERS = 128  # gains kept; a search asks for the same original layers again and again
_known: OrderedDict[Any, Any] = OrderedDict()


@dataclass(frozen=True, eq=False)
class LayerGains:
    """Hold the gains of H independent channels, each an upper bound.

    Parameters
    ----------
    l1 : (H,) float64
        ``sum_k |h_k|``: largest output per largest input.
    l2 : (H,) float64
        2-norm of the output per 2-norm of the input.
    h2 : (H,) float64
        ``(sum_k h_k^2)^(1/2)``: largest output per 2-norm of the input.
    step_lo, step_hi : (H,) float64
        Range of the step response ``sum_{j <= k} h_j`` over time.
    step_l2 : (H,) float64
        2-norm of the step response over the horizon; inf where that is infinite.
    """

    l1: np.ndarray
    l2: np.ndarray
    h2: np.ndarray
    step_lo: np.ndarray
    step_hi: np.ndarray
    step_l2: np.ndarray

    @property
    def step(self) -> np.ndarray:
        """Largest absolute value of the step response, at most ``l1``."""
        return np.minimum(np.maximum(np.abs(self.step_lo), np.abs(self.step_hi)), self.l1)

    def column(self, key: str) -> np.ndarray:
        """Return one gain as an (H, 1) array, to meet values of shape (H, 1)."""
        return getattr(self, key)[:, None]


def fingerprint(system: DiagonalSystem) -> bytes:
    """Return a hash of a system's data."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (system.poles, system.B, system.C, system.D):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.digest()


def _remembered(key: Any, make: Callable[[], Any]) -> Any:
    """Return a cached answer, making it first if need be."""
    if key not in _known:
        _known[key] = make()
        if len(_known) > CACHED_LAYERS:
            _known.popitem(last=False)
    _known.move_to_end(key)
    return _known[key]


def layer_gains(system: DiagonalSystem, horizon: int | None) -> LayerGains:
    """Return the gains of a layer's channels.

    Parameters
    ----------
    system : DiagonalSystem
        H real-output post-update channels.
    horizon : int or None
        Number of samples; None for an infinite horizon.

    Raises
    ------
    UnstableSystemError
        If the horizon is infinite and a pole is not inside the unit circle.
    """
    check_layer(system, "layer_gains")

    def make() -> LayerGains:
        if horizon is None:
            return _infinite_gains(system, _no_modes(system))
        return _finite_gains(*_response(system, horizon))

    return _remembered((fingerprint(system), horizon), make)


def reduction_gains(
    original: DiagonalSystem, reduced: DiagonalSystem, horizon: int | None
) -> tuple[LayerGains, LayerGains]:
    """Return the gains of the difference ``original - reduced`` and of ``reduced``.

    Parameters
    ----------
    original, reduced : DiagonalSystem
        Real-output post-update channels, equally many; orders may differ, poles may be shared.
    horizon : int or None
        Number of samples; None for an infinite horizon.
    """
    check_layer(original, "reduction_gains")
    check_layer(reduced, "reduction_gains")
    if original.batch_shape != reduced.batch_shape:
        raise ShapeError(
            message(
                "reduction_gains",
                "the layers have different numbers of channels",
                expected=str(original.batch_shape),
                got=str(reduced.batch_shape),
            )
        )
    first, second = fingerprint(original), fingerprint(reduced)
    if first == second:
        zero = np.zeros(original.batch_shape)
        return LayerGains(*[zero] * 6), layer_gains(reduced, horizon)

    def make() -> tuple[LayerGains, LayerGains]:
        if horizon is None:
            alone = _infinite_gains(reduced, _no_modes(reduced))
            return _infinite_gains(original, reduced), alone
        h, noise = _response(original, horizon)
        difference, extra = _difference_response(original, reduced, horizon)
        rounded = EPS * (np.sum(np.abs(h), axis=-1) + np.sum(np.abs(difference), axis=-1))
        alone = _finite_gains(h - difference, up(noise + extra + rounded, horizon + 4))
        return _finite_gains(difference, extra), alone

    return _remembered((first, second, horizon), make)


def h2_sizes(
    original: DiagonalSystem, reduced: DiagonalSystem, horizon: int | None
) -> tuple[float, float]:
    """Return the h2 norms of a layer and of ``original - reduced``, over all channels.

    On a finite horizon the norm of the layer is a lower bound and that of the difference an upper
    one. The lower one is 0 where the response is smaller than the rounding of its own terms.
    """
    if horizon is not None:
        h, noise = _response(check_layer(original, "h2_sizes"), horizon)
        # || |h| || - noise, and norm rounds up: twice its allowance down again, at both steps
        sizes = norm(np.abs(h), axis=-1) * (1.0 - 4 * (horizon + 16) * EPS) - noise
        size = float(norm(np.maximum(sizes, 0.0))) * (1.0 - 4 * (len(h) + 16) * EPS)
        return size, float(norm(reduction_gains(original, reduced, horizon)[0].h2))
    key = ("h2", fingerprint(original), fingerprint(reduced))

    def make() -> tuple[float, float]:
        size = float(norm(h2_norm(original, horizon=None)))
        return size, float(norm(h2_error(original, reduced, horizon=None)))

    return _remembered(key, make)


def _no_modes(system: DiagonalSystem) -> DiagonalSystem:
    """Return the zero layer with as many channels."""
    H = system.poles.shape[0]
    empty = np.zeros((H, 0))
    return system.replace(poles=empty, B=empty[:, :, None], C=empty[:, None, :], D=np.zeros(H))


def _infinite_gains(original: DiagonalSystem, reduced: DiagonalSystem) -> LayerGains:
    """Return the gains of the difference over an infinite horizon."""
    l1 = np.asarray(l1_gain_error(original, reduced, horizon=None))
    l2 = np.minimum(l2_gain_error(original, reduced, horizon=None), l1)
    # the h2 norm is no upper bound against its own rounding; the l2 gain is one, and is larger
    h2 = np.minimum(up(np.asarray(h2_error(original, reduced, horizon=None)), 2**20), l2)
    return LayerGains(l1, l2, h2, -l1, l1, np.where(l1 > 0.0, math.inf, 0.0))


def _geometric(poles: np.ndarray, horizon: int) -> np.ndarray:
    """Return an upper bound on ``sum_{k < T} |l|^k``, good to a factor of a few."""
    radius = np.abs(poles) * (1.0 + 4 * EPS)
    with np.errstate(over="ignore", divide="ignore"):
        bounded = np.minimum(1.0 / np.maximum(1.0 - radius, 0.0), float(horizon))
        growing = horizon * radius**horizon
    return np.where(radius <= 1.0, bounded, growing)


def _response(system: DiagonalSystem, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``h`` (H, T) and, per channel, a bound on ``sum_k |rounding_k|``; remembered."""
    key = ("response", fingerprint(system), horizon)
    return _remembered(key, lambda: _difference_response(system, _no_modes(system), horizon))


def _difference_response(
    original: DiagonalSystem, reduced: DiagonalSystem, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``h - h^`` (H, T) and, per channel, a bound on ``sum_k |rounding_k|``.

    Every sample is correct to one rounding and 2^-90 of the terms it is the sum of.
    """
    h = np.empty((original.poles.shape[0], horizon))
    columns = [
        np.ascontiguousarray(array)
        for system in (original, reduced)
        for array in (system.poles, system.B[..., 0], system.C[:, 0, :])
    ]
    fill_difference_response(*columns, h)
    poles = np.concatenate([original.poles, reduced.poles], axis=-1)
    size = np.abs(np.concatenate([columns[1] * columns[2], columns[4] * columns[5]], axis=-1))
    terms = np.sum(size * _geometric(poles, horizon), axis=-1)
    # near overflow the double-doubles lose their low halves
    precision = np.where(terms < LARGEST, 2.0**-90, 2.0**-40)
    noise = terms * precision * (horizon + poles.shape[-1])
    direct = original.D[:, 0, 0].real - reduced.D[:, 0, 0].real
    noise += EPS * (np.sum(np.abs(h), axis=-1) + np.abs(h[:, 0]) + 2.0 * np.abs(direct))
    h[:, 0] += direct
    check_finite(h, "impulse response", "network_bound")
    return h, up(noise, horizon + 8)


def _finite_gains(h: np.ndarray, noise: np.ndarray) -> LayerGains:
    """Return the gains of responses (H, T) known up to ``sum_k |rounding_k| <= noise``."""
    horizon = h.shape[-1]
    size = np.abs(h)
    l1 = up(impulse_l1_gain(h) + noise)
    l2 = np.minimum(up(impulse_l2_gain(h) + noise), l1)
    h2 = np.minimum(up(np.atleast_1d(norm(size, axis=-1)) + noise), l2)
    steps = np.cumsum(h, axis=-1)
    slack = up(noise + (horizon + 2) * EPS * l1)
    step_l2 = up(norm(np.abs(steps), axis=-1) + math.sqrt(horizon) * slack, 4)
    return LayerGains(
        l1, l2, h2, steps.min(axis=-1) - slack, steps.max(axis=-1) + slack, np.atleast_1d(step_l2)
    )
