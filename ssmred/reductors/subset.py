"""Removal of modes, with the optimal read-out of those that stay.

Theory: ``theory/optimal-readout.md``, ``theory/removal-cost.md``, ``theory/nested-pythagoras.md``,
``theory/static-gain.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_choice, check_horizon, check_integer, check_positive
from ssmred.errors import (
    AccuracyError,
    OrderError,
    ShapeError,
    UnsupportedOperationError,
    message,
)
from ssmred.gramians.empirical import InputMoments
from ssmred.gramians.output_metric import OutputMetric
from ssmred.gramians.square_root import (
    SquareRoot,
    basis_coefficients,
    basis_square_root,
    check_diagonal,
)
from ssmred.kernels.blas import blas_threads
from ssmred.kernels.elimination import fill_removals
from ssmred.kernels.shared_elimination import fill_shared_removals
from ssmred.reductors.alternating import Alternation
from ssmred.reductors.conjugation import ConjugatePath, find_conjugate_pairs
from ssmred.reductors.reductor import Reductor
from ssmred.reductors.subset_path import SubsetPath
from ssmred.systems import DiagonalSystem, check_stable

__all__ = ["SubsetPath", "SubsetReductor"]


class SubsetReductor(Reductor):
    """Keep a subset of the modes of a diagonal system, chosen by backward elimination.

    At every step the mode goes whose loss the others' read-out can make up for best; the read-out
    of those that stay (C, and D) is the best one in the metric, ``C P[:, S] P[S, S]^{-1}`` in terms
    of the Gramian P. Poles and B of kept modes are untouched.

    A system with complex data that is real all the same, because its modes come in conjugate pairs
    (to a few units in the last place, every channel of a batch), loses both modes of a pair or
    none, and stays real: it is reduced like its half spectrum with ``real_output=True`` and written
    out again. A pair counts as two modes.

    Parameters
    ----------
    horizon : int, optional
        Number of samples over which impulse responses are compared; None is infinite. Only for
        the h2 metric.
    metric : "h2", InputMoments or OutputMetric
        The h2 norm of the error, its mean square on calibration inputs, or what it does to the
        output of the network around the layer.
    refit : {"output", "both"}
        What is fitted for the modes that stay: the read-out (C and D), or B too, in turn. With
        several inputs and outputs a mode has rank one, and B decides which. Only the h2 metric: on
        signals, B multiplies ``n m`` filtered inputs that no moments of the states hold.
    sweeps : int
        With ``refit="both"``: largest number of sweeps.
    change : float
        With ``refit="both"``: stop once a sweep lowers the error by less than this share of it.

    Notes
    -----
    Level: FLOAT. Cost per channel, all channels in one kernel: ``O(n**3 m log T)`` for the square
    root; for the path ``(2 n)**4 / 24`` with one input and output, else ``O((2 n + m)**2 (2 n +
    p))``; a sweep ``O(n**3 m + n**2 m p)``. Works on square roots throughout: errors are real down
    to about ``1e-15 sum_i |c_i b_i| ||x_i||``. The modes are chosen, and ``tol`` is met, with the
    errors of ``refit="output"``; with ``"both"`` the error of the result is at most that. Theory:
    ``theory/removal-cost.md``, ``theory/shared-elimination.md``, ``theory/alternating-readout.md``.

    Examples
    --------
    Of two modes with the same pole one is redundant:

    >>> system = DiagonalSystem([0.5, 0.5, -0.3], [1.0, 1.0, 1.0], [1.0, 2.0, 4.0])
    >>> reduction = SubsetReductor().reduce(system, order=2)
    >>> bool(reduction.bound.relative < 1e-14)
    True
    >>> np.sort(reduction.system.C[0].real).round(12).tolist()
    [3.0, 4.0]

    A conjugate pair goes as one, so of three modes an order of 2 leaves the pair:

    >>> poles = [0.9j, 0.2, -0.9j]
    >>> real = DiagonalSystem(poles, [1.0, 1.0, 1.0], [2.0 - 1.0j, 1.0, 2.0 + 1.0j])
    >>> SubsetReductor().reduce(real, order=2).kept.tolist()
    [True, False, True]
    >>> SubsetReductor().reduce(real, order=1).kept.tolist()
    [False, False, False]

    One of two equal modes stays; the best single one has both input directions:

    >>> twice = DiagonalSystem([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]])
    >>> [bool(SubsetReductor(refit=r).reduce(twice, order=1).bound.relative < 1e-12)
    ...  for r in ("output", "both")]
    [False, True]
    """

    def __init__(
        self,
        *,
        horizon: int | None = None,
        metric: str | InputMoments | OutputMetric = "h2",
        refit: str = "output",
        sweeps: int = 50,
        change: float = 1e-3,
    ) -> None:
        self.horizon = check_horizon(horizon, "SubsetReductor")
        if metric != "h2" and not isinstance(metric, (InputMoments, OutputMetric)):
            raise ShapeError(
                message(
                    "SubsetReductor",
                    "metric is not known",
                    expected='"h2", an InputMoments or an OutputMetric',
                    got=f"{metric!r}",
                )
            )
        if not isinstance(metric, str) and self.horizon not in (None, metric.horizon):
            raise OrderError(
                message(
                    "SubsetReductor",
                    "horizon contradicts the calibration inputs",
                    expected=f"None or {metric.horizon}",
                    got=f"{self.horizon}",
                )
            )
        self.metric = metric
        self.alternation = None
        if check_choice(refit, ("output", "both"), "refit", "SubsetReductor") == "both":
            if not isinstance(metric, str):
                raise UnsupportedOperationError(
                    message(
                        "SubsetReductor",
                        "calibration inputs hold no moments that B could be fitted by",
                        cure='Reduce with metric="h2" and refit="both"; then fit C and D of the '
                        "result on the data (ssmred.pipeline.measured.with_read_out).",
                    )
                )
            self.alternation = Alternation(
                self.horizon,
                check_integer(sweeps, "sweeps", "SubsetReductor", low=1),
                check_positive(change, "change", "SubsetReductor", allow_zero=True),
            )

    def check_accepts(self, system: DiagonalSystem) -> None:
        """Raise an error unless the system is diagonal and what an input drives decays.

        Over a finite horizon nothing has to decay.
        """
        check_diagonal(system, "SubsetReductor")
        if self.metric != "h2" or self.horizon is not None:
            return
        driven = np.any(system.B != 0, axis=-1)
        rest = 0.0 if system.is_discrete else -1.0
        check_stable(system.replace(poles=np.where(driven, system.poles, rest)), "SubsetReductor")

    def path(self, system: DiagonalSystem) -> SubsetPath:
        """Return the removal path of every channel of a system.

        Parameters
        ----------
        system : DiagonalSystem
            Batched or not, any numbers of inputs and outputs (a calibrated metric: batched
            single-input single-output with real outputs).

        Returns
        -------
        SubsetPath

        Raises
        ------
        UnstableSystemError
            If the horizon is infinite and a driven mode does not decay.
        AccuracyError
            If responses leave the range of float64.
        """
        self.check_accepts(system)
        if isinstance(self.metric, str):  # calibrated metrics take real outputs only
            pairs = find_conjugate_pairs(system)
            if pairs is not None:
                return ConjugatePath.written_out(self.path(pairs.half), pairs)
        batch, n = system.batch_shape, system.order
        theta = basis_coefficients(system)
        theta = np.ascontiguousarray(theta.reshape(-1, *theta.shape[-2:]))
        root = self._square_root(system, theta)
        channels = root.factor.shape[0]
        removal = np.empty((channels, n), dtype=np.int64)
        errors = np.empty((channels, n + 1))
        errors[:, 0] = root.residual
        target = root.mixed(root.factor @ theta + root.extra)
        alone = (system.inputs, system.outputs) == (1, 1)
        fill = fill_removals if alone else fill_shared_removals
        with blas_threads(0):  # the kernel's own threads call it
            fill(root.factor, target, root.fixed, removal, errors)
        if not np.isfinite(errors).all():
            raise AccuracyError(
                message(
                    "SubsetReductor.path",
                    "responses overflow or underflow float64 when squared",
                    cure="Scale B and C to a common size.",
                )
            )
        return SubsetPath(
            system,
            removal.reshape(*batch, n),
            errors.reshape(*batch, n + 1),
            root.norms.reshape(batch),
            self._metric_name(),
            root,
            alternation=self.alternation,
        )

    def _square_root(self, system: DiagonalSystem, theta: np.ndarray) -> SquareRoot:
        if not isinstance(self.metric, str):
            return self.metric.square_root(system)
        factor = basis_square_root(system, horizon=self.horizon)
        factor = np.ascontiguousarray(factor.reshape(-1, *factor.shape[-2:]))
        target = factor @ theta
        norms = np.sqrt(np.sum(target**2, axis=(-2, -1)))
        fixed = factor.shape[-1] - 2 * system.order
        return SquareRoot(factor, fixed, np.zeros_like(target), np.zeros(len(factor)), norms)

    def _metric_name(self) -> str:
        if not isinstance(self.metric, str):
            return self.metric.name
        return "h2" if self.horizon is None else f"h2, horizon {self.horizon}"
