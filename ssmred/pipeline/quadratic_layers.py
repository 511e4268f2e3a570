"""Make layers with quadratic outputs smaller: search states, read out by linear read-outs.

Theory: ``theory/quadratic-h2.md``, ``theory/lqo-layer.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ssmred.networks import ImportedLayer
from ssmred.pipeline.feedthrough import FULL, moved_modes, shapes_direct, with_diagonal
from ssmred.pipeline.measured import h2_root, united, with_read_out
from ssmred.pipeline.removal import held
from ssmred.reductors import QuadraticH2Reductor, Reduction
from ssmred.reductors.path import ReductionPath
from ssmred.reductors.quadratic_h2 import QuadraticH2Path
from ssmred.reductors.quadratic_modes import ModalStates, modal_states
from ssmred.systems import DiagonalSystem, QuadraticOutputSystem
from ssmred.systems.linear import of_kind
from ssmred.systems.stability import is_stable

__all__ = ["QuadraticLayerPath", "quadratic_layer"]

LOOKED_AT = 32
"""Orders that are balanced at first."""

STEPS = 20
"""Steps of a two-sided iteration; descent takes up to five times as many."""


def quadratic_layer(filtered: DiagonalSystem, unit: float = 1.0) -> QuadraticOutputSystem:
    """Return a layer, filter and squares after it, as one real system.

    Parameters
    ----------
    filtered : DiagonalSystem
        Batch shape (1,), real outputs; those beyond the number of inputs are squared.
    unit : float
        Unit of the input: the system maps v to what the layer makes of ``unit v``.

    Returns
    -------
    QuadraticOutputSystem
        States ``(Re x_1, Im x_1, ...)``, M in factors ``(p, 2 n, rank)``.
    """
    p = filtered.inputs
    names = {name: getattr(filtered, name)[0] for name in ("poles", "B", "C", "D")}
    dense = filtered.replace(**names).realified()
    rows = dense.C[p:].reshape(filtered.outputs // p - 1, p, dense.order)
    linear = dense.replace(B=unit * dense.B, C=dense.C[:p], D=unit * dense.D[:p])
    return QuadraticOutputSystem.of(linear, (np.moveaxis(rows, 0, -1),))


class QuadraticLayerPath(ReductionPath):
    """Hold what every order costs a layer in the h2 norm of linear and quadratic outputs.

    Parameters
    ----------
    layer : ImportedLayer
        With squares.
    horizon : int or None
        Samples that read-outs are fitted over, and errors compared.
    search : {"h2", "balanced", "limited"}
        States of a search for the least h2 error, of balanced truncation, or of the two-sided
        iteration over the horizon. Errors are those of balanced truncation with the best read-out
        until `improve` has searched.
    unit : float
        Unit of the layer's input.

    Attributes
    ----------
    errors, norms, metric
        As of `ReductionPath`, batch shape (1,); each mode counts for two states. Errors are those
        with the full D; orders that were not looked at have the error of the next smaller one.
    full : QuadraticOutputSystem
        The layer as a real system.

    Notes
    -----
    Poles are judged by an infinite horizon, which leaves stable layers stable; unstable layers,
    and "limited", by the horizon.
    """

    def __init__(
        self, layer: ImportedLayer, horizon: int | None, *, search: str = "h2", unit: float = 1.0
    ) -> None:
        self.layer, self.horizon, self.search, self.unit = layer, horizon, search, unit
        self.system = of_kind(layer.system, DiagonalSystem, "QuadraticLayerPath")
        self.full = quadratic_layer(self.system, unit)
        stable = is_stable(self.full.linear)
        judged = None if stable and search != "limited" else horizon
        method = "descent" if search == "h2" and not stable else "tsia"
        # the class's D is diagonal: kept, it is nearer to that than a free one
        reductor = QuadraticH2Reductor(method=method, horizon=judged, steps=STEPS, direct=False)
        self.path: QuadraticH2Path = reductor.path(self.full)  # type: ignore[assignment]
        self.metric = "h2, linear and quadratic outputs"
        self.metric += "" if horizon is None else f", horizon {horizon}"
        self.norms = np.reshape(self.path.norms, 1)
        n = self.system.order
        self._states: dict[int, ModalStates] = {}
        self._found = np.full(n + 1, np.inf)  # by modes kept
        self._found[0], self._found[n] = np.sqrt(self.path.objective.energy), 0.0
        self._seen, self._searched = {0, n}, {0, n}
        for modes in np.unique(np.geomspace(1, n - 1, LOOKED_AT).round()) if n > 1 else ():
            self.look(int(modes))

    @property
    def least(self) -> np.ndarray:
        """The least error found with at most k modes, (n + 1,)."""
        return np.minimum.accumulate(self._found)

    @property
    def errors(self) -> np.ndarray:  # type: ignore[override]
        """The error with k modes gone, (1, n + 1)."""
        return self.least[None, ::-1]

    def look(self, modes: int) -> bool:
        """Balance to an order that was not looked at yet; tell whether it has a new error."""
        if modes in self._seen:
            return False
        self._seen.add(modes)
        return self._note(modes, self.path.balanced_states)

    def improve(self, modes: int) -> bool:
        """Search for better states of an order; tell whether some were found."""
        if self.search == "balanced" or modes in self._searched:
            return False
        self._searched.add(modes)
        return self._note(modes, self._search)

    def reduction(self, kept: npt.ArrayLike) -> Reduction:
        """Return the filter with at most so many modes and the best read-out."""
        most = int(self._check_kept(kept)[0])
        modes = int(np.argmin(self._found[: most + 1]))
        full = self.system
        if modes == full.order:
            return Reduction(full, full, np.array([modes]), self.metric, None)
        poles, rows = np.zeros(0), np.zeros((0, full.inputs))
        if modes:
            poles, rows = self._states[modes].poles, self._states[modes].rows
        silent = np.zeros((1, full.outputs, len(poles)))
        moved = full.replace(poles=poles[None], B=rows[None], C=silent)
        reduction = held(
            self.layer, Reduction(full, moved, np.array([len(poles)]), self.metric, None)
        )
        root = h2_root(united(reduction), self.horizon)
        reduction = with_read_out(reduction, root, self.metric)
        if shapes_direct(self.layer, FULL):
            reduction = with_diagonal(reduction, root, moved_modes(reduction))
        return reduction

    def _search(self, order: int) -> ModalStates | None:
        linear = self.path.reduced(order).system.linear.to_dense()
        return modal_states(linear.A, linear.B, real=True)

    def _note(self, modes: int, make: Callable[[int], ModalStates | None]) -> bool:
        """Keep the states that are made, of the largest order that fits, if they are better."""
        for order in range(2 * modes, 0, -1):  # a real pole takes a mode, too
            states = make(order)
            if states is None or len(states.poles) > modes:
                continue
            value = self.path.objective(*states.written_out()).value
            error = float(np.sqrt(max(value, 0.0)))
            better = error < self._found[modes]  # nan is not
            if better:
                self._found[modes], self._states[modes] = error, states
            return better
        return False
