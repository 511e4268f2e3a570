"""Say what an operator costs on this machine: seconds of every layer against its live operators.

Removing operators makes a layer faster by an amount that depends on the machine, the sequence's
length and on how many are left: a transform's cost per channel is about constant, the first channel
pays for what all of them share. So the layers are timed, at a few numbers of live operators, and
what was measured is joined by straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import nn

from ssmred.checks import check_integer, check_positive
from ssmred.deploy.timing import timed, using_threads
from ssmred.errors import DataError, RequestError, message
from ssmred.prune.latency import ready

__all__ = ["LatencyModel", "LayerLatency", "measure_layers"]


@dataclass(frozen=True)
class LayerLatency:
    """Hold the seconds of one layer at some numbers of live operators.

    Parameters
    ----------
    operators : tuple of int
        Rising, from 0 to the layer's width.
    seconds : tuple of float
        Never falling; linear in between.

    Raises
    ------
    DataError
        If the two do not belong together, or are not in order.
    """

    operators: tuple[int, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        counts = tuple(check_integer(n, "operators", "LayerLatency") for n in self.operators)
        times = tuple(
            check_positive(s, "seconds", "LayerLatency", allow_zero=True) for s in self.seconds
        )
        object.__setattr__(self, "operators", counts)
        object.__setattr__(self, "seconds", times)
        rising = all(a < b for a, b in pairwise(counts))
        ordered = all(a <= b for a, b in pairwise(times))
        if len(counts) != len(times) or len(counts) < 2 or counts[0] != 0 or not rising & ordered:
            raise DataError(
                message(
                    "LayerLatency",
                    "operators and seconds are no curve",
                    expected="as many seconds as operators, from 0, rising; seconds never falling",
                    got=f"operators {counts}, seconds {times}",
                    cure="Call LayerLatency.fit on what was measured.",
                )
            )

    @classmethod
    def fit(cls, operators: Sequence[int], seconds: Sequence[float]) -> LayerLatency:
        """Return the curve that never falls and is closest to measured times.

        Parameters
        ----------
        operators : (k,) int
            In any order; a number that is given several times counts several times.
        seconds : (k,) float

        Returns
        -------
        LayerLatency
            The least sum of squares (pool adjacent violators).

        Examples
        --------
        >>> LayerLatency.fit([0, 2, 4], [1.0, 5.0, 3.0])
        LayerLatency(operators=(0, 2, 4), seconds=(1.0, 4.0, 4.0))
        """
        counts = np.asarray(operators)
        times = np.asarray(seconds, dtype=np.float64)
        if counts.shape != times.shape or not np.isfinite(times).all():
            raise DataError(
                message(
                    "LayerLatency.fit",
                    "the measurements cannot be used",
                    expected="one finite time per number of operators",
                    got=f"{counts.shape} numbers, {times}",
                )
            )
        places, index, weights = np.unique(counts, return_inverse=True, return_counts=True)
        means = np.bincount(index, weights=times) / weights
        fitted = isotonic_regression(means, weights=weights.astype(np.float64)).x
        return cls(tuple(int(n) for n in places), tuple(float(s) for s in fitted))

    @property
    def width(self) -> int:
        """Operators of the whole layer."""
        return self.operators[-1]

    def at(self, live: int) -> float:
        """Return the seconds with so many live operators.

        Raises
        ------
        DataError
            If the layer has not so many.
        """
        live = check_integer(live, "live", "LayerLatency.at")
        if live > self.width:
            raise DataError(
                message(
                    "LayerLatency.at",
                    "the layer has fewer operators",
                    expected=f"0 to {self.width}",
                    got=str(live),
                )
            )
        return float(np.interp(live, self.operators, self.seconds))


@dataclass(frozen=True)
class LatencyModel:
    """Predict the whole-sequence latency of a pruned network on the machine it was measured on.

    Parameters
    ----------
    layers : mapping of str to LayerLatency
        What depends on the live operators.
    rest : float
        Seconds of everything else: embedding, mixing, norms, head.
    """

    layers: Mapping[str, LayerLatency]
    rest: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", dict(self.layers))
        rest = check_positive(self.rest, "rest", "LatencyModel", allow_zero=True)
        object.__setattr__(self, "rest", rest)

    def saved_per_operator(self, layer: str, live: int | None = None) -> float:
        """Return the seconds that removing an operator saves.

        Parameters
        ----------
        layer : str
        live : int, optional
            Live operators before the removal; without it the mean over the whole layer.

        Returns
        -------
        float
            0 where the measurement shows no gain.
        """
        curve = self._curve(layer)
        if live is None:
            return (curve.at(curve.width) - curve.at(0)) / curve.width
        live = check_integer(live, "live", "saved_per_operator", low=1)
        return curve.at(live) - curve.at(live - 1)

    def predict(self, live: Mapping[str, int]) -> float:
        """Return the seconds of one sequence with so many live operators in every layer.

        Raises
        ------
        RequestError
            If a layer is missing or unknown.
        """
        missing = sorted(set(self.layers) - set(live))
        if missing:
            raise RequestError(
                message("LatencyModel.predict", f"live says nothing of {', '.join(missing)}")
            )
        return self.rest + sum(self._curve(name).at(count) for name, count in live.items())

    @property
    def full(self) -> float:
        """Seconds with every operator."""
        return self.predict({name: curve.width for name, curve in self.layers.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return {
            "layers": {
                name: {"operators": list(curve.operators), "seconds": list(curve.seconds)}
                for name, curve in self.layers.items()
            },
            "rest": self.rest,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> LatencyModel:
        """Return what `to_dict` gave.

        Raises
        ------
        DataError
            If it is something else.
        """
        try:
            layers = {
                str(name): LayerLatency(tuple(curve["operators"]), tuple(curve["seconds"]))
                for name, curve in stored["layers"].items()
            }
            return cls(layers, stored["rest"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                message("LatencyModel.from_dict", f"this is no latency model ({error!r})")
            ) from error

    def _curve(self, layer: str) -> LayerLatency:
        if layer not in self.layers:
            raise RequestError(
                message(
                    "LatencyModel",
                    f"there is no layer {layer!r}",
                    expected=f"one of {', '.join(self.layers)}",
                )
            )
        return self.layers[layer]


def measure_layers(
    core_with: Callable[[str, int], nn.Module],
    widths: Mapping[str, int],
    length: int,
    *,
    network: float | None = None,
    repeats: int = 30,
    threads: int | None = 1,
) -> LatencyModel:
    """Time the layers of a network alone, at a few numbers of live operators each.

    Parameters
    ----------
    core_with : function of a layer's name and a number of live operators
        Returns the layer's core with so many left, an nn.Module on (1, H, T).
    widths : mapping of str to int
        Operators H of every layer.
    length : int
        Steps T of a sequence.
    network : float, optional
        Seconds of the whole network with every operator (a median of `alternating`): what is not
        the layers' is then the rest, which no removal shortens.
    repeats, threads
        As in `alternating`; all cores alternate in one run.

    Returns
    -------
    LatencyModel

    Notes
    -----
    Timed at 0, 1, H/4, H/2, 3H/4 and H live operators. All cores are alive at once, with their
    kernels.
    """
    where = "measure_layers"
    length = check_integer(length, "length", where, low=1)
    repeats = check_integer(repeats, "repeats", where, low=1)
    counts = {name: _counts(check_integer(H, name, where, low=1)) for name, H in widths.items()}
    cores = {(name, n): core_with(name, n) for name in counts for n in counts[name]}
    generator = torch.Generator().manual_seed(0)
    signals = {H: torch.randn(1, H, length, generator=generator) for H in set(widths.values())}
    keys = {f"{name} {n}": (name, n) for name, n in cores}
    calls = {
        key: (lambda core=cores[place], u=signals[widths[place[0]]]: core(u))
        for key, place in keys.items()
    }
    with ready(*cores.values()), using_threads(threads), torch.inference_mode():
        samples = timed(calls, repeats)
    medians = {keys[key]: float(np.median(values)) for key, values in samples.items()}
    layers = {
        name: LayerLatency.fit(places, [medians[name, n] for n in places])
        for name, places in counts.items()
    }
    if network is None:
        return LatencyModel(layers)
    network = check_positive(network, "network", where)
    return LatencyModel(layers, max(network - math.fsum(c.seconds[-1] for c in layers.values()), 0))


def _counts(width: int) -> list[int]:
    return sorted({0, 1, width // 4, width // 2, 3 * width // 4, width})
