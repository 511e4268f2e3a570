"""Carry what is known about one signal of the network: its range and how far it can move.

A :class:`Value` bounds, for every input of the declared set, the signal ``x^`` in the reduced
network and the difference ``x - x^`` between the original and the reduced network. The facts it
holds sharpen each other (``theory/error-rules.md``, lemma 0).

**Infinity** means that no finite bound is known; the signal itself is finite always. So a factor
that is exactly 0 makes a bound of 0 whatever stands beside it, and :func:`times` says
``0 * inf = 0``. **Rounding**: every bound is rounded up by an a-priori count of the operations that
made it (:func:`up`, :func:`outward`), so that float64 evaluation does not eat the guarantee. Where
numbers are so small that roundings are absolute, not relative, the smallest float64 number is
added: a product of two bounds that are not 0 is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssmred.errors import AccuracyError, ShapeError, message

__all__ = ["ErrorBall", "Value", "magnitude", "norm", "outward", "times", "up", "weighted_sum"]

EPS = float(np.finfo(np.float64).eps)
SMALLEST = float(np.finfo(np.float64).smallest_subnormal)  # two roundings where eps says nothing
SMALL = 1e-290  # sums below it may have lost terms to underflow


def up(value: Any, operations: int = 2) -> Any:
    """Return a nonnegative float64 result rounded up past ``operations`` relative roundings."""
    return value * (1.0 + (operations + 2) * EPS)


def outward(
    lo: np.ndarray, hi: np.ndarray, scale: Any = None, operations: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Widen an interval by the rounding of some operations on numbers of size ``scale``."""
    scale = np.maximum(np.abs(lo), np.abs(hi)) if scale is None else scale
    slack = (operations + 2) * (EPS * scale + SMALLEST * (scale > 0.0))
    known = np.isfinite(slack)
    if np.all(known):
        return lo - slack, hi + slack
    slack = np.where(known, slack, 0.0)  # an overflow on the way leaves nothing known
    return np.where(known, lo - slack, -math.inf), np.where(known, hi + slack, math.inf)


def times(a: npt.ArrayLike, b: npt.ArrayLike) -> Any:
    """Return the product of two bounds, where ``0 * inf = 0``, rounded up.

    Examples
    --------
    >>> float(times(0.0, float("inf"))), float(times(2.0, float("inf")))
    (0.0, inf)
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        product = up(a * b, 1) + SMALLEST
    return np.where((a == 0.0) | (b == 0.0), 0.0, product)[()]


def norm(values: npt.ArrayLike, *, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the 2-norm of nonnegative bounds (over all entries or some axes), rounded up.

    Examples
    --------
    >>> norm(np.array([[3e200, 4e200], [3e-200, 4e-200]]), axis=1) >= [5e200, 5e-200]
    array([ True,  True])
    """
    values = np.asarray(values, dtype=np.float64)
    unknown = np.isinf(values)
    if unknown.any():
        known = norm(np.where(unknown, 0.0, values), axis=axis)
        return np.where(unknown.any(axis=axis), math.inf, known)[()]
    peaks = np.max(values, axis=axis, keepdims=True, initial=0.0)
    with np.errstate(under="ignore", over="ignore"):
        # each slice scaled by its own peak: its squares are at most 1, and one of them is 1
        scaled = values / np.where(peaks > 0.0, peaks, 1.0)
        root = np.sqrt(np.sum(np.square(scaled), axis=axis))
        peak = np.squeeze(peaks, axis=axis)
        terms = values.size // max(1, peak.size)
        return np.where(peak == 0.0, 0.0, up(peak * root, terms + 4) + 2 * SMALLEST)[()]


def magnitude(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Return the largest absolute value of an interval."""
    return np.maximum(np.abs(lo), np.abs(hi))


def weighted_sum(weights: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return ``bounds @ weights.T`` for nonnegative arrays, where ``0 * inf = 0``, rounded up.

    Parameters
    ----------
    weights : (out, in) float64
    bounds : (..., in) float64

    Returns
    -------
    (..., out) float64
    """
    terms = weights.shape[1] + 1

    def touched(entries: np.ndarray) -> np.ndarray:
        return entries.astype(np.float64) @ (weights > 0.0).astype(np.float64).T > 0.0

    unknown = np.isinf(bounds)
    total = up(np.where(unknown, 0.0, bounds) @ weights.T, terms)
    if np.any(total < SMALL) and np.any(bounds > 0.0):  # products may have underflowed
        total = np.where(touched(bounds > 0.0), total + (terms + 2) * SMALLEST, total)
    return np.where(touched(unknown), math.inf, total) if unknown.any() else total


@dataclass(frozen=True, eq=False)
class ErrorBall:
    """Hold a weighted ball: ``sum_f (||x_f - x^_f||_2 / scale_f)^2 <= radius^2``.

    A feature whose scale is 0 does not differ at all. The weights let a spectral norm see the gains
    that stand before it: ``W diag(scale)`` instead of ``||W|| max(scale)``.
    """

    scale: np.ndarray
    radius: float

    def __add__(self, other: ErrorBall) -> ErrorBall:
        """Return a ball that holds every sum of a point of each (lemma 0.3)."""
        if self.radius == 0.0 or other.radius == 0.0:
            return self if other.radius == 0.0 else other
        if math.isinf(self.radius) or math.isinf(other.radius):
            return ErrorBall(np.ones_like(self.scale), math.inf)
        first, second = times(self.scale, self.radius), times(other.scale, other.radius)
        with np.errstate(over="ignore"):
            scale = first + second
        if np.isinf(scale).any():
            return ErrorBall(np.ones_like(scale), math.inf)
        safe = np.where(scale > 0.0, scale, 1.0)
        radius = np.max(first / safe, initial=0.0) + np.max(second / safe, initial=0.0)
        return ErrorBall(scale, float(up(radius, 6)))

    def plus_box(self, bounds: np.ndarray) -> ErrorBall:
        """Return a ball that holds every sum of a point of it and one with entries ``bounds``."""
        size = float(norm(bounds))
        if size == 0.0:
            return self
        with np.errstate(over="ignore"):
            first = times(self.scale, self.radius)
            scale = first + size
        if not np.isfinite(scale).all():
            return ErrorBall(np.ones_like(self.scale), math.inf)
        radius = np.max(first / scale, initial=0.0) + norm(bounds / scale)
        return ErrorBall(scale, float(up(radius, 6)))


@dataclass(frozen=True, eq=False)
class Value:
    """Bound one signal of the reduced network and its distance from the original's.

    Arrays have the shape of one sample (no batch axis) with the time axis collapsed to length 1:
    every bound holds at all times. What is not given is unknown (infinite), never zero.

    Parameters
    ----------
    lo, hi : array
        ``lo <= x^ <= hi`` for every entry at every time.
    axes : tuple of str
        ``"time"`` or ``"feature"`` for every axis.
    length : float
        Number of time steps T; inf means any number; 1 where there is no time axis.
    l2 : float, optional
        Bound on the 2-norm of the whole signal, over time and features.
    l2_features : array, optional
        Bound on the 2-norm over time of every feature.
    error_sup : array, optional
        Bound on ``|x - x^|`` of every entry at every time.
    error_l2 : float, optional
        Bound on the 2-norm of the whole difference.
    error_features : array, optional
        Bound on the 2-norm over time of every feature's difference.
    error_ball : ErrorBall, optional
        Weighted bound on the difference.

    Raises
    ------
    ShapeError
        If shapes and axes do not fit.
    AccuracyError
        If a bound is nan or negative, or an interval is empty: a rule is wrong.

    Examples
    --------
    Bounds sharpen each other: 4 steps within 0.5 have a 2-norm of at most 1.

    >>> import numpy as np
    >>> x = Value(np.full((1, 1), -0.5), np.full((1, 1), 0.5), ("time", "feature"), 4.0)
    >>> round(x.l2, 12), x.error_l2
    (1.0, inf)
    """

    lo: np.ndarray
    hi: np.ndarray
    axes: tuple[str, ...]
    length: float = 1.0
    l2: float = math.inf
    l2_features: Any = None
    error_sup: Any = None
    error_l2: float = math.inf
    error_features: Any = None
    error_ball: ErrorBall = None  # type: ignore[assignment]  # becomes the plain ball

    def __post_init__(self) -> None:
        shape = np.shape(self.lo)
        if len(self.axes) != len(shape) or any(
            tag == "time" and size != 1 for tag, size in zip(self.axes, shape, strict=True)
        ):
            raise ShapeError(
                message(
                    "certify.Value",
                    "axes do not fit the arrays",
                    expected="one tag per axis, the time axis collapsed to length 1",
                    got=f"axes {self.axes}, shape {shape}",
                )
            )
        unknown = np.full(shape, math.inf)
        fill = {key: unknown for key in _ARRAYS if getattr(self, key) is None}
        facts = {key: getattr(self, key) for key in ("lo", "hi", *_ARRAYS)} | fill
        facts = {
            key: np.broadcast_to(np.asarray(array, dtype=np.float64), shape)
            for key, array in facts.items()
        }
        l2, error_l2 = float(self.l2), float(self.error_l2)
        ball = self.error_ball
        if ball is None:
            ball = ErrorBall(np.ones(shape), math.inf)
        scale = np.broadcast_to(np.asarray(ball.scale, dtype=np.float64), shape)
        bounds = [l2, error_l2, ball.radius, scale, *(facts[key] for key in _ARRAYS)]
        if not (
            all(np.all(np.asarray(bound) >= 0.0) for bound in bounds)
            and np.all(facts["lo"] <= facts["hi"])
        ):  # nan fails these comparisons as well
            raise AccuracyError(
                message(
                    "certify.Value",
                    "a bound is nan or negative, or an interval is empty",
                    expected="lo <= hi and bounds >= 0",
                    cure="The rule that made it is wrong, or its input is.",
                )
            )
        root = math.sqrt(self.steps)
        # Lemma 0: sup and l2 bounds of one signal sharpen each other.
        entry = np.minimum(facts["l2_features"], times(root, magnitude(facts["lo"], facts["hi"])))
        entry = np.minimum(entry, l2)
        l2 = min(l2, float(norm(entry)))
        facts["l2_features"] = entry
        facts["lo"] = np.maximum(facts["lo"], -entry)
        facts["hi"] = np.minimum(facts["hi"], entry)
        error_l2 = min(error_l2, float(times(np.max(scale, initial=0.0), ball.radius)))
        entry = np.minimum(facts["error_features"], times(root, facts["error_sup"]))
        entry = np.minimum(np.minimum(entry, error_l2), times(scale, ball.radius))
        error_l2 = min(error_l2, float(norm(entry)))
        facts["error_features"] = entry
        facts["error_sup"] = np.minimum(facts["error_sup"], entry)
        if error_l2 < ball.radius * np.min(scale, initial=math.inf):  # the plain ball lies inside
            scale, ball = np.ones(shape), ErrorBall(np.ones(shape), error_l2)
        facts |= {"error_ball": ErrorBall(scale, float(ball.radius))}
        for key, value in facts.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "l2", l2)
        object.__setattr__(self, "error_l2", error_l2)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample with the time axis collapsed."""
        return self.lo.shape

    @property
    def steps(self) -> float:
        """Number of time steps of the signal: T with a time axis, else 1."""
        return self.length if "time" in self.axes else 1.0

    @property
    def root_steps(self) -> float:
        """``sqrt(T)``, rounded up."""
        return float(up(math.sqrt(self.steps)))

    @property
    def center(self) -> np.ndarray:
        """A point of each interval, its middle where both ends are finite, else 0."""
        with np.errstate(invalid="ignore"):
            middle = 0.5 * self.lo + 0.5 * self.hi
        return np.where(np.isfinite(middle), middle, 0.0)

    @property
    def radius(self) -> np.ndarray:
        """Largest distance of the interval from :attr:`center`, rounded up."""
        center = self.center
        return up(np.maximum(self.hi - center, center - self.lo), 1)

    @property
    def magnitude(self) -> np.ndarray:
        """Largest absolute value of every entry in the reduced network."""
        return magnitude(self.lo, self.hi)

    @property
    def original_lo(self) -> np.ndarray:
        """Lower end of every entry in the original network."""
        return outward(self.lo - self.error_sup, self.hi)[0]

    @property
    def original_hi(self) -> np.ndarray:
        """Upper end of every entry in the original network."""
        return outward(self.lo, self.hi + self.error_sup)[1]

    @property
    def original_magnitude(self) -> np.ndarray:
        """Largest absolute value of every entry in the original network."""
        return np.maximum(np.abs(self.original_lo), np.abs(self.original_hi))

    def error_facts(self) -> dict[str, Any]:
        """Return the four error fields, to hand them on unchanged."""
        return {
            "error_sup": self.error_sup,
            "error_l2": self.error_l2,
            "error_features": self.error_features,
            "error_ball": self.error_ball,
        }

    def facts(self) -> dict[str, Any]:
        """Return every field that has a value per entry or per signal, except the axes."""
        return {
            "lo": self.lo,
            "hi": self.hi,
            "length": self.length,
            "l2": self.l2,
            "l2_features": self.l2_features,
            **self.error_facts(),
        }

    def scaled_error(self, slope: npt.ArrayLike) -> dict[str, Any]:
        """Return the error fields of an entrywise ``f``, ``|f(x) - f(x^)| <= slope |x - x^|``.

        Parameters
        ----------
        slope : array_like
            Scalar or array of the sample's shape, nonnegative.
        """
        slope = np.broadcast_to(np.asarray(slope, dtype=np.float64), self.shape)
        return {
            "error_sup": times(slope, self.error_sup),
            "error_l2": float(times(np.max(slope, initial=0.0), self.error_l2)),
            "error_features": times(slope, self.error_features),
            "error_ball": ErrorBall(times(slope, self.error_ball.scale), self.error_ball.radius),
        }

    def pointwise(
        self,
        lo: npt.ArrayLike,
        hi: npt.ArrayLike,
        slope: npt.ArrayLike,
        *,
        gain: npt.ArrayLike = math.inf,
    ) -> Value:
        """Return the value of an entrywise function of this signal.

        Parameters
        ----------
        lo, hi : array_like
            Range of ``f`` over ``[lo, hi]`` of this value.
        slope : array_like
            ``|f(x) - f(x^)| <= slope |x - x^|`` for ``x^`` in this value's range and ``x`` within
            the error of it (the interval ``original_lo``, ``original_hi`` holds both).
        gain : array_like
            ``|f(x^)| <= gain |x^|``, where such a bound exists.

        Examples
        --------
        The rule of a user's own activation ``x + sin(x)``:

        >>> import numpy as np
        >>> x = Value(np.array([-1.0]), np.array([1.0]), ("feature",), error_sup=np.array([0.1]))
        >>> y = x.pointwise(x.lo - 1, x.hi + 1, 2.0, gain=2.0)
        >>> y.lo, y.error_sup.round(12)
        (array([-2.]), array([0.2]))
        """
        gain = np.broadcast_to(np.asarray(gain, dtype=np.float64), self.shape)
        linear = np.isfinite(gain)  # without such a bound f(0) may be anything: not 0 * inf
        peak = np.max(gain, initial=0.0)
        return Value(
            np.broadcast_to(np.asarray(lo, dtype=np.float64), self.shape),
            np.broadcast_to(np.asarray(hi, dtype=np.float64), self.shape),
            self.axes,
            self.length,
            l2=float(times(peak, self.l2)) if linear.all() else math.inf,
            l2_features=np.where(linear, times(gain, self.l2_features), math.inf),
            **self.scaled_error(slope),
        )

    def with_errors(self, **errors: Any) -> Value:
        """Return the same range with these error fields and no others (absent ones unknown)."""
        kept: Mapping[str, Any] = {
            key: value for key, value in self.facts().items() if not key.startswith("error")
        }
        return Value(axes=self.axes, **kept, **errors)

    def without_error(self) -> Value:
        """Return the same range with no difference between original and reduced."""
        return self.with_errors(error_sup=np.zeros(self.shape), error_l2=0.0)


_ARRAYS = ("l2_features", "error_sup", "error_features")
