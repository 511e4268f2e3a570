"""What is found in a checkpoint: layers, their readings, their filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmred.networks.filters import LinearFilter
from ssmred.systems import DenseSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["Filter", "Reading", "StoredLayer", "filter_of"]


@dataclass(frozen=True, eq=False)
class Filter:
    """Hold a linear filter and how many of its states are there.

    Attributes
    ----------
    system : LinearSystem
        Batch shape (H,).
    states : (H,) int64
        Real states of every channel; what the system has beyond them is padding.
    """

    system: LinearSystem
    states: np.ndarray


@dataclass(frozen=True, eq=False)
class Reading:
    """Hold the filters of a layer under assumptions about what its tensors leave open.

    Attributes
    ----------
    assumed : dict of str to Any
        Empty where the tensors and the given options say everything.
    filters : dict of str to Filter
        ``"core"``, and ``"backward"`` for a filter on the reversed sequence.
    """

    assumed: dict[str, Any]
    filters: dict[str, Filter]


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """Hold one layer of a checkpoint.

    Attributes
    ----------
    name, family : str
    facts : dict of str to Any
        ``"generation"`` and hints.
    tensors : tuple of str
        Names of the tensors of its state-space part.
    readings : tuple of Reading
        At least one.
    silent : dict of str to str
        What its file never says.
    impossible : tuple of str
        Assumptions under which it cannot be read, with the reason.
    """

    name: str
    family: str
    facts: dict[str, Any]
    tensors: tuple[str, ...]
    readings: tuple[Reading, ...]
    silent: dict[str, str]
    impossible: tuple[str, ...] = ()


def filter_of(found: LinearSystem | LinearFilter) -> Filter:
    """Return a system, or a core's, with the number of states in every channel."""
    if isinstance(found, LinearFilter):
        system = found.to_system()
        per_order = 1 if isinstance(system, DenseSystem) else 2
        states = per_order * np.asarray(found.orders, dtype=np.int64)
    else:
        system = found
        states = np.full(max(int(np.prod(system.batch_shape)), 1), system.states)
    if system.batch_shape == ():
        system = system.replace(**{n: getattr(system, n)[None] for n in _arrays(system)})
    return Filter(system, states.reshape(-1))


def _arrays(system: LinearSystem) -> tuple[str, ...]:
    return ("A", "B", "C", "D") if isinstance(system, DenseSystem) else ("poles", "B", "C", "D")
