"""Balanced truncation with weights on input and output frequencies.

Theory: ``theory/weighted-balancing.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import ShapeError, UnsupportedOperationError, message
from ssmred.gramians.closed_form import compressed
from ssmred.gramians.gramian import controllability_factor, observability_factor
from ssmred.reductors.balancing import FactorBalancing, dense_result
from ssmred.reductors.moving import MovingReductor
from ssmred.reductors.reduction import Projection, Reduction
from ssmred.reductors.residualised import residualised
from ssmred.systems.dense import DenseSystem
from ssmred.systems.linear import LinearSystem
from ssmred.systems.stability import check_stable

__all__ = ["FrequencyWeightedReductor"]


class FrequencyWeightedReductor(MovingReductor):
    """Keep ``W_o (H - H_r) W_i`` small: balance the Gramians of the weighted system.

    Parameters
    ----------
    input_weight, output_weight : DiagonalSystem or DenseSystem, optional
        Stable single systems in the same time as the system: the input weight has as many outputs
        as the system has inputs, the output weight as many inputs as the system has outputs.
    residualised : bool
        Set the weak states to their equilibrium instead of truncating them; keeps the static gain.
    form : {"input", "dense", "diagonal"}

    Notes
    -----
    There is no bound on the error: ``Reduction.bound`` is None and tol is refused. With two weights
    the reduced system may be unstable. With one it is stable if truncated in discrete time; in
    continuous time, or residualised, poles may lie on the stability boundary (never beyond), where
    no output sees them (input weight) or no input reaches them (output weight). Level FLOAT.
    Theory: ``theory/weighted-balancing.md``. Source: [Enns1984], [VargaAnderson2003].

    Examples
    --------
    >>> system = DenseSystem([[-1.0, 0.0], [0.0, -9.0]], [1.0, 1.0], [1.0, 1.0], dt=0)
    >>> fast = DenseSystem([[-100.0]], [[100.0]], [[1.0]], dt=0)
    >>> reductor = FrequencyWeightedReductor(input_weight=fast)
    >>> reductor.reduce(system, order=1).bound is None
    True
    """

    method = "frequency-weighted"

    def __init__(
        self,
        *,
        input_weight: LinearSystem | None = None,
        output_weight: LinearSystem | None = None,
        residualised: bool = False,
        form: str = "input",
    ) -> None:
        super().__init__(form=form)
        self.input_weight = _checked_weight(input_weight, "input_weight")
        self.output_weight = _checked_weight(output_weight, "output_weight")
        self.residualised = bool(residualised)
        self.moves_direct_term = self.residualised

    def check_accepts(self, system: LinearSystem) -> None:
        """Raise an error unless the system is stable and fits the weights."""
        super().check_accepts(system)
        where = "FrequencyWeightedReductor"
        check_stable(system, where)
        for weight, size, wanted, name in (
            (self.input_weight, "outputs", system.inputs, "input_weight"),
            (self.output_weight, "inputs", system.outputs, "output_weight"),
        ):
            if weight is None:
                continue
            if getattr(weight, size) != wanted:
                raise ShapeError(
                    message(
                        where,
                        f"{name} does not fit the system",
                        expected=f"{wanted} {size}",
                        got=f"{getattr(weight, size)}",
                    )
                )
            if system.is_real and not weight.is_real:
                raise UnsupportedOperationError(
                    message(
                        where,
                        f"{name} is complex, but the system is real",
                        expected="a weight with real matrices",
                        cure="A filter of a real signal is real: add the conjugate modes.",
                    )
                )
            if weight.dt != system.dt:
                raise UnsupportedOperationError(
                    message(
                        where,
                        f"{name} lives in another time than the system",
                        expected=f"dt = {system.dt:g}",
                        got=f"dt = {weight.dt:g}",
                    )
                )

    def reduce(
        self, system: LinearSystem, *, order: int | None = None, tol: float | None = None
    ) -> Reduction:
        """Return a reduced system; see :meth:`Reductor.reduce`.

        Raises
        ------
        UnsupportedOperationError
            If tol is given: no bound on the error is known.
        """
        if order is None and tol is not None:
            raise UnsupportedOperationError(
                message(
                    "FrequencyWeightedReductor.reduce",
                    "no bound on the weighted error is known, so tol has no meaning",
                    cure="Pass order= and evaluate the error of the result.",
                )
            )
        return super().reduce(system, order=order, tol=tol)

    def core(self, system: LinearSystem) -> _WeightedCore:
        """Return the bases that balance the weighted Gramians of a flat batch."""
        plain = system.realified() if system.is_real else system.to_dense()
        Lp = _input_factor(plain, self.input_weight)
        Lq = _output_factor(plain, self.output_weight)
        balancing = FactorBalancing(plain, Lp, Lq, "FrequencyWeightedReductor")
        return _WeightedCore(system, balancing, self.residualised)


class _WeightedCore:
    """Truncate or residualise; the errors that rank orders are no bounds."""

    norm = "hinf"
    theorem = None

    def __init__(self, system: LinearSystem, balancing: FactorBalancing, rests: bool) -> None:
        self.system, self.balancing, self.rests = system, balancing, rests
        self.hankel = balancing.values
        self.errors = balancing.tail_bounds()
        self.norms = self.hankel[:, 0]

    def reduced(
        self, channels: np.ndarray, order: int
    ) -> tuple[DenseSystem, Projection | None, None]:
        """Return the reduced systems."""
        if self.rests:
            return residualised(self.system, self.balancing, channels, order), None, None
        part = self.balancing.compression(channels, order)
        D = self.system.D[channels]
        return dense_result(self.system, part.A, part.B, part.C, D), part.projection, None


def _checked_weight(weight: LinearSystem | None, name: str) -> DenseSystem | None:
    """Return a stable single system in standard form, dense, real where it can be."""
    where = "FrequencyWeightedReductor"
    if weight is None:
        return None
    if not isinstance(weight, LinearSystem) or weight.batch_shape:
        raise UnsupportedOperationError(
            message(
                where,
                f"{name} is not a single system",
                expected="DiagonalSystem or DenseSystem without a batch",
                got=repr(weight) if isinstance(weight, LinearSystem) else type(weight).__name__,
            )
        )
    check_stable(weight, where)
    if weight.is_discrete:
        weight = weight.with_recurrence("standard")
    return weight.realified() if weight.is_real else weight.to_dense()


def _input_factor(system: DenseSystem, weight: DenseSystem | None) -> np.ndarray:
    """Return L with ``L L^*`` the block of the system's states in the Gramian of ``H W_i``."""
    system = system.replace(recurrence="standard")
    if weight is None:
        return controllability_factor(system)
    n, k, lead = system.order, weight.order, system.B.shape[0]
    A = np.zeros((lead, n + k, n + k), np.result_type(system.A, system.B, weight.A, weight.C))
    A[:, :n, :n], A[:, :n, n:], A[:, n:, n:] = system.A, system.B @ weight.C, weight.A
    both = [system.B @ weight.D, np.broadcast_to(weight.B, (lead, *weight.B.shape))]
    B = np.concatenate(both, axis=-2)
    C = np.zeros((lead, 0, n + k))
    series = DenseSystem(A, B, C, np.zeros((lead, 0, B.shape[-1])), system.dt)
    return compressed(controllability_factor(series)[:, :n], n)


def _output_factor(system: DenseSystem, weight: DenseSystem | None) -> np.ndarray:
    """Return L with ``L L^*`` the block of the system's states in the Gramian of ``W_o H``."""
    system = system.replace(recurrence="standard")
    if weight is None:
        return observability_factor(system)
    n, k, lead = system.order, weight.order, system.B.shape[0]
    A = np.zeros((lead, n + k, n + k), np.result_type(system.A, system.C, weight.A, weight.B))
    A[:, :n, :n], A[:, n:, :n], A[:, n:, n:] = system.A, weight.B @ system.C, weight.A
    both = [weight.D @ system.C, np.broadcast_to(weight.C, (lead, *weight.C.shape))]
    C = np.concatenate(both, axis=-1)
    B = np.zeros((lead, n + k, 0))
    series = DenseSystem(A, B, C, np.zeros((lead, C.shape[-2], 0)), system.dt)
    return compressed(observability_factor(series)[:, :n], n)
