"""What is known about one signal, in balls: its range and how far it can move.

The facts of ``theory/error-rules.md`` for a signal of d features, at every time, with lemma 0
applied whenever a value is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.rigour.balls import (
    INFINITY,
    ONE,
    ZERO,
    arb,
    filled,
    largest,
    maximum,
    middle,
    minimum,
    norm,
    size,
    smallest,
    times,
)

__all__ = ["Ball", "Value", "far"]


@dataclass(frozen=True, eq=False)
class Ball:
    """Hold a weighted ball: ``sum_f (||x_f - x^_f|| / scale_f)^2 <= radius^2``."""

    scale: np.ndarray
    radius: arb

    @classmethod
    def plain(cls, count: int, radius: arb = INFINITY) -> Ball:
        """Return a ball with equal weights."""
        return cls(filled(count, ONE), radius)

    def __add__(self, other: Ball) -> Ball:
        """Return a ball of all sums (lemma 0.3)."""
        if self.radius.is_zero() or other.radius.is_zero():
            return self if other.radius.is_zero() else other
        if not (self.radius.is_finite() and other.radius.is_finite()):
            return Ball.plain(len(self.scale))
        first, second = times(self.scale, self.radius), times(other.scale, other.radius)
        scale = first + second
        if not _finite(scale):
            return Ball.plain(len(scale))
        return Ball(scale, largest(_parts(first, scale)) + largest(_parts(second, scale)))

    def plus_box(self, bounds: np.ndarray) -> Ball:
        """Return a ball of all sums with one of features within `bounds` (lemma 0.3)."""
        length = norm(bounds)
        if length.is_zero():
            return self
        first = times(self.scale, self.radius)
        scale = first + length
        if not _finite(scale):
            return Ball.plain(len(scale))
        return Ball(scale, largest(first / scale) + norm(bounds / scale))


def _finite(balls: np.ndarray) -> bool:
    return all(ball.is_finite() for ball in balls)


def _parts(part: np.ndarray, whole: np.ndarray) -> list[arb]:
    # where the whole is 0 so is the part, and the feature does not differ
    return [a / b for a, b in zip(part, whole, strict=True) if not b.is_zero()]


def far(count: int) -> np.ndarray:
    """Return bounds of which nothing is known."""
    return filled(count, INFINITY)


@dataclass(frozen=True, eq=False)
class Value:
    """Bound one signal of the reduced network and its distance from the original's.

    Parameters
    ----------
    lo, hi : (d,) array
        ``lo <= x^ <= hi`` at every time.
    steps : int
        Number of time steps T; 1 where there is no time any more.
    l2 : arb
        Of the 2-norm of the signal, over time and features.
    l2_each : (d,) array
        Of the 2-norm over time of every feature.
    sup, each : (d,) array
        Of ``|x - x^|`` at every time, and of its 2-norm over time.
    error : arb
        Of the 2-norm of the whole difference.
    ball : Ball
        Weighted bound on the difference.
    """

    lo: np.ndarray
    hi: np.ndarray
    steps: int
    l2: arb = INFINITY
    l2_each: Any = None
    sup: Any = None
    error: arb = INFINITY
    each: Any = None
    ball: Any = None

    def __post_init__(self) -> None:
        count = len(self.lo)
        l2_each, sup, each = (
            far(count) if given is None else given for given in (self.l2_each, self.sup, self.each)
        )
        ball = Ball.plain(count) if self.ball is None else self.ball
        root = self.root_steps
        l2_each = minimum(
            minimum(l2_each, times(root, maximum(size(self.lo), size(self.hi)))), self.l2
        )
        l2 = self.l2.min(norm(l2_each))
        error = self.error.min(times(largest(ball.scale), ball.radius))
        each = minimum(minimum(each, times(root, sup)), error)
        each = minimum(each, times(ball.scale, ball.radius))
        error = error.min(norm(each))
        if middle(error) < middle(times(smallest(ball.scale), ball.radius)):
            ball = Ball.plain(count, error)  # the plain ball lies inside
        facts = {
            "lo": maximum(self.lo, -l2_each),
            "hi": minimum(self.hi, l2_each),
            "l2": l2,
            "l2_each": l2_each,
            "sup": minimum(sup, each),
            "error": error,
            "each": each,
            "ball": ball,
        }
        for key, fact in facts.items():
            object.__setattr__(self, key, fact)

    @property
    def root_steps(self) -> arb:
        """``sqrt(T)``."""
        return arb(self.steps).sqrt()

    @property
    def center(self) -> np.ndarray:
        """Middle of each interval, 0 where it has none."""
        ends = (self.lo + self.hi) / 2
        return np.array([ball if ball.is_finite() else ZERO for ball in ends], dtype=object)

    @property
    def radius(self) -> np.ndarray:
        """Largest distance of the interval from its center."""
        center = self.center
        return maximum(maximum(self.hi - center, center - self.lo), filled(len(center), ZERO))

    @property
    def magnitude(self) -> np.ndarray:
        """Largest absolute value in the reduced network."""
        return maximum(size(self.lo), size(self.hi))

    @property
    def original(self) -> tuple[np.ndarray, np.ndarray]:
        """Interval that holds the signal of the original network, and everything between."""
        return self.lo - self.sup, self.hi + self.sup

    @property
    def original_magnitude(self) -> np.ndarray:
        """Largest absolute value in the original network."""
        lo, hi = self.original
        return maximum(size(lo), size(hi))

    def ranges(self) -> dict[str, Any]:
        """Return the fields that speak of the signal itself."""
        return {
            "lo": self.lo,
            "hi": self.hi,
            "steps": self.steps,
            "l2": self.l2,
            "l2_each": self.l2_each,
        }

    def errors(self) -> dict[str, Any]:
        """Return the fields that speak of the difference."""
        return {"sup": self.sup, "error": self.error, "each": self.each, "ball": self.ball}

    def with_errors(self, **errors: Any) -> Value:
        """Return the same ranges with another difference."""
        return Value(**self.ranges(), **errors)

    def scaled_errors(self, slope: np.ndarray) -> dict[str, Any]:
        """Return the difference after ``|f(x) - f(x^)| <= slope |x - x^|``, entry by entry."""
        return {
            "sup": times(slope, self.sup),
            "error": times(largest(slope), self.error),
            "each": times(slope, self.each),
            "ball": Ball(times(slope, self.ball.scale), self.ball.radius),
        }
