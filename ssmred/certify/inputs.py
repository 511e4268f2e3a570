"""Declare the set of inputs that a worst-case statement is about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ssmred.certify.graph import Node
from ssmred.certify.values import Value
from ssmred.checks import check_positive, check_real_array
from ssmred.errors import CertificateError, DataError, ShapeError, message

__all__ = ["InputSet"]

KINDS = ("box", "ball", "tokens")


@dataclass(frozen=True, eq=False)
class InputSet:
    """Describe a set of input sequences; make one with a constructor below.

    Parameters
    ----------
    kind : {"box", "ball", "tokens"}
        What is declared.
    low, high : float64 array or None
        Ends of the box, scalars or one value per feature, the same at every time step.
    radius : float or None
        Largest 2-norm of a whole sequence, over time and features.

    Examples
    --------
    >>> InputSet.box(-1, 1)
    InputSet.box(-1.0, 1.0)
    >>> InputSet.from_json(InputSet.ball(3).to_json()) == InputSet.ball(3)
    True
    """

    kind: str
    low: Any = None
    high: Any = None
    radius: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(
                message("InputSet", "kind is not known", expected=str(KINDS), got=repr(self.kind))
            )
        if self.kind == "ball":
            object.__setattr__(
                self, "radius", check_positive(self.radius, "radius", "InputSet", allow_zero=True)
            )
        if self.kind == "box":
            low = check_real_array(self.low, "low", "InputSet")
            high = check_real_array(self.high, "high", "InputSet")
            try:
                low, high = (np.array(a) for a in np.broadcast_arrays(low, high))
            except ValueError as error:
                raise ShapeError(message("InputSet.box", str(error))) from error
            if low.ndim > 1 or low.size == 0:
                raise ShapeError(
                    message(
                        "InputSet.box",
                        "low and high are not scalars or one value per feature",
                        got=f"shape {low.shape}",
                    )
                )
            if np.any(low > high):
                raise DataError(message("InputSet.box", "low is above high somewhere"))
            for name, array in (("low", low), ("high", high)):
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    @classmethod
    def box(cls, low: npt.ArrayLike, high: npt.ArrayLike) -> InputSet:
        """Return all sequences with ``low <= u <= high`` at every step (per feature if arrays)."""
        return cls("box", low=low, high=high)

    @classmethod
    def ball(cls, radius: float) -> InputSet:
        """Return all sequences whose 2-norm over time and features is at most ``radius``."""
        return cls("ball", radius=radius)

    @classmethod
    def tokens(cls) -> InputSet:
        """Return every token sequence, for networks that begin with an Embedding."""
        return cls("tokens")

    @classmethod
    def box_of(cls, data: npt.ArrayLike, slack: float = 0.1) -> InputSet:
        """Return the per-feature box of data (..., T, F), widened on each side.

        Parameters
        ----------
        data : array_like
            Sequences, features on the last axis.
        slack : float
            Part of ``high - low`` that is added at each end; 0 gives the box of the data itself.

        Examples
        --------
        >>> InputSet.box_of([[[0.0], [2.0]]], slack=0.5)
        InputSet.box([-1.0], [3.0])
        """
        slack = check_positive(slack, "slack", "InputSet.box_of", allow_zero=True)
        values = check_real_array(data, "data", "InputSet.box_of")
        if values.ndim < 2 or values.size == 0:
            raise DataError(
                message(
                    "InputSet.box_of",
                    "data holds no sequences",
                    expected="an array (samples, T, features)",
                    got=f"shape {values.shape}",
                )
            )
        rows = values.reshape(-1, values.shape[-1])
        low, high = rows.min(axis=0), rows.max(axis=0)
        margin = slack * (high - low)
        return cls.box(low - margin, high + margin)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputSet) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        if self.kind == "box":
            return f"InputSet.box({self.low.tolist()}, {self.high.tolist()})"
        return f"InputSet.ball({self.radius})" if self.kind == "ball" else "InputSet.tokens()"

    def describe(self) -> str:
        """Return the set in plain words."""
        if self.kind == "tokens":
            return "every token sequence"
        if self.kind == "ball":
            return f"every sequence with 2-norm <= {self.radius:g}"
        low, high = float(self.low.min()), float(self.high.max())
        if np.ptp(self.low) == 0.0 and np.ptp(self.high) == 0.0:
            return f"every sequence with {low:g} <= u <= {high:g} at every step"
        return f"every sequence in a per-feature box within [{low:g}, {high:g}]"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        if self.kind == "box":
            return {"kind": "box", "low": self.low.tolist(), "high": self.high.tolist()}
        return (
            {"kind": "ball", "radius": self.radius} if self.kind == "ball" else {"kind": "tokens"}
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSet:
        """Return the set that :meth:`to_json` described.

        Raises
        ------
        CertificateError
            If the description is not one of an input set.
        """
        try:
            expected = {"box": {"low", "high"}, "ball": {"radius"}, "tokens": set()}[data["kind"]]
            if set(data) != expected | {"kind"}:
                raise KeyError(str(sorted(data)))
            return cls(**data)
        except (KeyError, TypeError, ValueError) as error:
            raise CertificateError(
                message("InputSet.from_json", "this does not describe an input set", got=str(error))
            ) from error

    def contains(self, sequences: npt.ArrayLike) -> np.ndarray:
        """Tell for each sequence of (samples, T, F) whether it lies in the set."""
        values = np.asarray(sequences)
        rest = tuple(range(1, values.ndim))
        if self.kind == "tokens":
            return np.all(values == np.floor(values), axis=rest)
        values = check_real_array(values, "sequences", "InputSet.contains")
        if self.kind == "ball":
            return np.sqrt(np.sum(np.square(values), axis=rest)) <= self.radius
        return np.all((values >= self.low) & (values <= self.high), axis=rest)

    def sample(
        self, rng: np.random.Generator, count: int, horizon: int, features: int
    ) -> np.ndarray:
        """Return sequences of the set, to estimate scales and to look for large errors.

        Half of them are independent at every step; half are piecewise constant with holding times
        log-uniform between 1 and the horizon, so that slow inputs are met as well.

        Parameters
        ----------
        rng : numpy.random.Generator
        count, horizon : int
            Number of sequences and of steps.
        features : int
            Features per step; for tokens the size of the vocabulary.

        Returns
        -------
        (count, horizon, features) float64, or (count, horizon) int64 for tokens
        """
        hold = np.ones(count)
        slow = count // 2
        hold[count - slow :] = np.exp(rng.uniform(0.0, math.log(max(2, horizon)), slow))
        step = np.minimum(np.arange(horizon) / hold[:, None], horizon - 1).astype(np.int64)
        if self.kind == "tokens":
            draws = rng.integers(0, features, (count, horizon))
            return np.take_along_axis(draws, step, axis=1)
        draws = rng.uniform(-1.0, 1.0, (count, horizon, features))
        corners = rng.random(count) < 0.5
        draws[corners] = np.sign(draws[corners])
        draws = np.take_along_axis(draws, step[..., None], axis=1)
        if self.kind == "ball":
            size = np.sqrt(np.sum(np.square(draws), axis=(1, 2), keepdims=True))
            return draws / size * (self.radius * (1.0 - 1e-12))
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return np.clip(middle + half * draws, self.low, self.high)

    def value(self, node: Node, horizon: int | None) -> Value:
        """Return the set as the value of the network's input node: no error, and its range."""
        shape = tuple(
            1 if tag == "time" else int(size)
            for tag, size in zip(node.axes, node.params["shape"], strict=True)
        )
        length = math.inf if horizon is None else float(horizon)
        none = {"error_sup": np.zeros(shape), "error_l2": 0.0}
        if bool(node.param("tokens", False)) != (self.kind == "tokens"):
            raise DataError(
                message(
                    "InputSet",
                    f"{self!r} does not fit the network's input",
                    expected="tokens" if node.param("tokens", False) else "a box or a ball",
                    cure="Declare inputs=InputSet.tokens() exactly when the network begins with "
                    "an Embedding.",
                )
            )
        if self.kind == "box":
            features = [axis for axis, tag in enumerate(node.axes) if tag != "time"]
            size = shape[features[-1]] if features else 1
            if self.low.ndim == 1 and self.low.size not in (1, size):
                raise ShapeError(
                    message(
                        "InputSet.box",
                        "the box has another number of features than the network's input",
                        expected=str(size),
                        got=str(self.low.size),
                    )
                )
            place = [1] * len(shape)
            if features:
                place[features[-1]] = -1
            low, high = (
                np.broadcast_to(end.reshape(place) if end.ndim else end, shape)
                for end in (self.low, self.high)
            )
            return Value(low, high, node.axes, length, **none)
        far = np.full(shape, math.inf if self.kind == "tokens" else self.radius)
        l2 = math.inf if self.kind == "tokens" else float(self.radius)
        return Value(-far, far, node.axes, length, l2=l2, **none)
