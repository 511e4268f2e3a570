"""What every reductor returns: a reduced system, what bounds its error, and what the error is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ssmred.norms import Enclosure, h2_error, hinf_error
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["ErrorBound", "Projection", "Reduction"]


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """Hold a bound on the error of a reduced system and the theorem that it rests on.

    Attributes
    ----------
    value : (...) float64
        Bound on the norm of the error, one per batch entry.
    reference : (...) float64
        What relative errors are relative to, in the same norm or below it: the h2 norm of the full
        system, or its Hankel norm for bounds of the H-infinity error.
    norm : str
        ``"hinf"``, ``"h2"``, ``"h2, horizon T"``, ``"hankel"``, ``"calibrated, ..."``.
    theorem : str
        Slug of the page in ``theory/``.
    exact : bool
        Whether the value is the norm of the error itself, evaluated in float64.
    """

    value: np.ndarray
    reference: np.ndarray
    norm: str
    theorem: str
    exact: bool = False

    @property
    def relative(self) -> np.ndarray:
        """Value over reference, (...) float64; 0 where both are 0."""
        value, reference = np.asarray(self.value), np.asarray(self.reference)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(value == 0, 0.0, value / reference)


@dataclass(frozen=True, eq=False)
class Projection:
    """Hold the bases of a projection: ``A_r = W^* A V``, ``B_r = W^* B``, ``C_r = C V``.

    Attributes
    ----------
    V, W : (..., N, r) float64 or complex128
        With ``W^* V = I``; columns of zeros in channels of smaller order. N counts the states of
        ``system.realified()`` where the outputs of a complex system are real.
    """

    V: np.ndarray
    W: np.ndarray


@dataclass(frozen=True, eq=False)
class Reduction:
    """Hold a reduced system with the bound on its error; the errors are computed on demand.

    Attributes
    ----------
    full, system : DiagonalSystem or DenseSystem
        Before and after. In a batch, channels of smaller order are padded at the end with modes of
        B = 0, C = 0 (and pole 0, or -1 in continuous time).
    orders : (...) int64
        Modes kept in each channel.
    method : str
        Name of the reductor.
    claim : ErrorBound or None
        What the theorem says in exact arithmetic; None where no theorem bounds the error.
    hankel : (..., N) float64, optional
        Hankel singular values that decided.
    kept : (..., n) bool, optional
        Which modes were kept, where the reductor keeps modes.
    projection : Projection, optional
        Where the reduced system is a projection of the full one and came back dense.
    condition : (...) float64, optional
        Condition number of the eigenvectors, where the reduced system was diagonalised.
    compared : (LinearSystem, LinearSystem), optional
        Stable systems with the difference of ``full`` and ``system``, where these are not: the
        parts that were really reduced (:class:`SplitReductor`).
    converged : (...) bool, optional
        Where the result meets the conditions of a minimum, for methods that search for one.
    sweeps : (...) int64, optional
        Sweeps that were made, for methods that fit parts in turn.
    """

    full: LinearSystem
    system: LinearSystem
    orders: np.ndarray
    method: str
    claim: ErrorBound | None
    hankel: np.ndarray | None = None
    kept: np.ndarray | None = None
    projection: Projection | None = None
    condition: np.ndarray | None = None
    compared: tuple[LinearSystem, LinearSystem] | None = None
    converged: np.ndarray | None = None
    sweeps: np.ndarray | None = None

    @property
    def states(self) -> int:
        """Real states kept, all channels together; a complex mode counts as two."""
        system = self.system if self.system.order else self.full
        per_mode = system.states // system.order if system.order else 1
        return per_mode * int(np.sum(self.orders))

    @cached_property
    def bound(self) -> ErrorBound | None:
        """The bound that holds for the system as it is stored.

        A claim on the H-infinity error is raised to the enclosure of that error where rounding of
        the stored system takes it above the claim. Level FLOAT.
        """
        if self.claim is None or self.claim.exact or self.claim.norm != "hinf":
            return self.claim
        value = np.maximum(self.claim.value, self.hinf_error.upper)
        return replace(self.claim, value=value)

    @cached_property
    def hinf_error(self) -> Enclosure:
        """Enclosure of the H-infinity norm of ``full - system``, with the worst frequency.

        0 where a channel is stored as it was.
        """
        full, system = self._pair
        same = _is_same(full, system)
        if same.all():
            zero = np.zeros(same.shape) if same.ndim else 0.0
            return Enclosure(zero, zero, zero)
        error = hinf_error(full, system)
        if not same.any():
            return error
        return Enclosure(
            *(np.where(same, 0, x) for x in (error.lower, error.upper, error.frequency))
        )

    @cached_property
    def h2_error(self) -> np.ndarray | float:
        """The h2 norm of ``full - system``; 0 where a channel is stored as it was."""
        full, system = self._pair
        same = _is_same(full, system)
        if same.all():
            return np.zeros(same.shape) if same.ndim else 0.0
        error = h2_error(full, system)
        return np.where(same, 0, error) if same.any() else error

    @property
    def _pair(self) -> tuple[LinearSystem, LinearSystem]:
        return self.compared or (self.full, self.system)


def _is_same(one: LinearSystem, two: LinearSystem) -> np.ndarray:
    """Tell which channels (...) of two systems are the same numbers."""
    none = np.zeros(one.batch_shape, bool)
    kinds = (type(one), one.order, one.recurrence, one.real_output)
    if kinds != (type(two), two.order, two.recurrence, two.real_output):
        return none
    poles = "poles" if isinstance(one, DiagonalSystem) else "A"
    same = ~none
    for name in (poles, "B", "C", "D"):
        equal = getattr(one, name) == getattr(two, name)
        same &= equal.all(axis=tuple(range(none.ndim, equal.ndim)))
    return same
