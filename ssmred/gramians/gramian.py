"""Gramians of any system and their factors.

Theory: ``theory/diagonal-gramian.md``, ``theory/real-output-gramian.md``,
``theory/quadratic-output.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.checks import check_array, check_choice, check_shape
from ssmred.errors import UnsupportedOperationError, message
from ssmred.gramians.closed_form import diagonal_factor, diagonal_gramian, stable_gramian
from ssmred.gramians.dense import dense_factor, dense_finite_gramian
from ssmred.gramians.equations import symmetric_solution
from ssmred.gramians.quadratic import with_quadratic_rows
from ssmred.gramians.solvers import BACKENDS
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.linear import LinearSystem, adjoint
from ssmred.systems.quadratic import AnySystem, QuadraticOutputSystem
from ssmred.systems.stability import check_horizon_of

__all__ = [
    "controllability_factor",
    "controllability_gramian",
    "gramian_factor",
    "observability_factor",
    "observability_gramian",
    "pseudo_gramian",
    "realified_gramian",
]


def controllability_gramian(
    system: AnySystem, *, horizon: int | None = None, backend: str = "ssmred"
) -> np.ndarray:
    """Return the controllability Gramian ``P = sum_k A^k B B^* A^{*k}``.

    Diagonal: ``P_ij = (B B^*)_ij (1 - (l_i conj(l_j))^T) / (1 - l_i conj(l_j))``.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
        Discrete or continuous (``A P + P A^* = -B B^*``) time; either recurrence, same P.
    horizon : int or None
        Number of terms; None is infinite, and the only one in continuous time.
    backend : {"ssmred", "scipy", "slycot"}
        Used for dense systems at infinite horizon only; never chosen by what is installed.

    Returns
    -------
    (..., n, n) float64 or complex128
        Hermitian. For ``real_output`` the Gramian of the complex states; see
        :func:`pseudo_gramian` and :func:`realified_gramian`.

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.
    UnsupportedOperationError
        For a finite horizon in continuous time.

    Notes
    -----
    Level FLOAT; entries of diagonal systems are accurate to a few units in the last place, also for
    poles at ``1 - 1e-12``. Dense systems, infinite horizon: the solution of :func:`stein` or
    :func:`lyapunov`, which rounding may leave with tiny negative eigenvalues;
    :func:`controllability_factor` has none. Cost O(n^2 log T) per diagonal system, O(n^3 log T) per
    dense one.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> controllability_gramian(DiagonalSystem([0.5], [3.0], [1.0])).tolist()
    [[12.0]]
    >>> controllability_gramian(DiagonalSystem([1.0], [3.0], [1.0]), horizon=4).tolist()
    [[36.0]]
    """
    where = "controllability_gramian"
    return _gramian(system, where, horizon, backend, dual=False)


def observability_gramian(
    system: AnySystem, *, horizon: int | None = None, backend: str = "ssmred"
) -> np.ndarray:
    """Return the observability Gramian ``Q = sum_k A^{*k} C^* C A^k``.

    Parameters, errors and notes are those of :func:`controllability_gramian`. For ``real_output``
    it is the Gramian of ``C x`` before the real part is taken. Quadratic outputs see the states
    too: ``Q = sum_k A^{*k} (C^* C + sum_j M_j P M_j) A^k``, P with as many terms (transpose:
    ``M_j^* conj(P) M_j``); for ``real_output`` this, too, is before the real part.

    Returns
    -------
    (..., n, n) float64 or complex128
        Hermitian.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> observability_gramian(DiagonalSystem([0.5], [1.0], [3.0])).tolist()
    [[12.0]]
    """
    return _gramian(system, "observability_gramian", horizon, backend, dual=True)


def pseudo_gramian(
    system: DiagonalSystem, *, horizon: int | None = None, of: str = "controllability"
) -> np.ndarray:
    """Return the pseudo-Gramian ``sum_k x_k x_k^T`` (no conjugate) of a diagonal system.

    ``Pt_ij = (B B^T)_ij (1 - (l_i l_j)^T) / (1 - l_i l_j)``; for ``of="observability"``,
    ``(C^T C)_ij`` in place of ``(B B^T)_ij``.

    Parameters
    ----------
    system : DiagonalSystem
    horizon : int or None
    of : {"controllability", "observability"}

    Returns
    -------
    (..., n, n) complex128
        Symmetric.

    Raises
    ------
    UnsupportedOperationError
        For a dense system: use ``system.realified()``.
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.

    Notes
    -----
    Together with P it gives every second moment of the real and imaginary parts of the states,
    which is what a real output needs: ``sum_k Re(c x_k)^2 = (c P c^* + Re(c Pt c^T)) / 2``.

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> pseudo_gramian(DiagonalSystem([0.5j], [1.0], [1.0], real_output=True)).tolist()
    [[(0.8+0j)]]
    """
    where = "pseudo_gramian"
    length = check_horizon_of(system, horizon, where)
    if not isinstance(system, DiagonalSystem):
        raise UnsupportedOperationError(
            message(where, "the system is dense", cure="Use the Gramian of system.realified().")
        )
    check_choice(of, ("controllability", "observability"), "of", where)
    C_transposed = np.swapaxes(system.C, -1, -2)
    rows = system.B if of == "controllability" else C_transposed
    return diagonal_gramian(
        system.poles,
        rows @ np.swapaxes(rows, -1, -2),
        horizon=length,
        conjugate=False,
        continuous=not system.is_discrete,
        where=where,
    )


def realified_gramian(gramian: np.ndarray, pseudo: np.ndarray) -> np.ndarray:
    """Return the Gramian of the real states ``(Re x_1, Im x_1, Re x_2, ...)``.

    ``sum Re x_i Re x_j = Re(P + Pt)_ij / 2``, ``sum Im x_i Im x_j = Re(P - Pt)_ij / 2``,
    ``sum Re x_i Im x_j = Im(Pt - P)_ij / 2``.

    Parameters
    ----------
    gramian, pseudo : (..., n, n) complex128
        P and Pt of :func:`controllability_gramian` and :func:`pseudo_gramian`.

    Returns
    -------
    (..., 2 n, 2 n) float64
        The controllability Gramian of ``system.realified()``.

    Raises
    ------
    ShapeError, DataError
        If the two are not finite square matrices of one shape.
    """
    where = "realified_gramian"
    gramian, pseudo = check_array(gramian, "gramian", where), check_array(pseudo, "pseudo", where)
    check_shape(gramian, (gramian.shape[-1] if gramian.ndim else None,) * 2, "gramian", where)
    check_shape(pseudo, gramian.shape, "pseudo", where)
    real_real = (gramian + pseudo).real / 2
    imag_imag = (gramian - pseudo).real / 2
    real_imag = (pseudo - gramian).imag / 2
    imag_real = (pseudo + gramian).imag / 2
    left = np.stack([real_real, imag_real], axis=-2)  # (..., n, 2, n)
    right = np.stack([real_imag, imag_imag], axis=-2)
    n = gramian.shape[-1]
    full = np.stack([left, right], axis=-1).reshape(*gramian.shape[:-2], 2 * n, 2 * n)
    return (full + np.swapaxes(full, -1, -2)) / 2  # its two halves round differently


def controllability_factor(system: AnySystem, *, horizon: int | None = None) -> np.ndarray:
    """Return L with ``P = L L^*`` without ever forming P.

    Parameters
    ----------
    system : DiagonalSystem or DenseSystem
    horizon : int or None

    Returns
    -------
    (..., n, n) float64 or complex128

    Raises
    ------
    UnstableSystemError
        If a pole is not stable and the horizon is infinite.

    Notes
    -----
    P of close poles is numerically singular; its factor still holds the small directions to
    relative accuracy ``eps ||L||`` where a Cholesky factor of P stops at ``sqrt(eps) ||L||``.
    Diagonal systems, infinite horizon: triangular, several inputs in an order of pivots, O(n^2 m).
    Finite horizon: QR of the responses, O(n^2 m T).

    Examples
    --------
    >>> from ssmred.systems import DiagonalSystem
    >>> controllability_factor(DiagonalSystem([0.6], [4.0], [1.0])).tolist()
    [[5.0]]
    """
    return gramian_factor(system, "controllability_factor", horizon, dual=False)


def observability_factor(system: AnySystem, *, horizon: int | None = None) -> np.ndarray:
    """Return L with ``Q = L L^*`` without ever forming Q; see :func:`controllability_factor`."""
    return gramian_factor(system, "observability_factor", horizon, dual=True)


def _with_linear_outputs(
    system: AnySystem, where: str, horizon: int | None, *, dual: bool
) -> LinearSystem:
    """Return a linear system with the same Gramians."""
    if not isinstance(system, QuadraticOutputSystem):
        return system
    if not dual:
        return system.linear
    return with_quadratic_rows(system, gramian_factor(system.linear, where, horizon, dual=False))


def _dual_arrays(system: LinearSystem, dual: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (poles or A, B), or (conj(poles) or A^*, C^*) for observability."""
    if isinstance(system, DiagonalSystem):
        return (system.poles.conj(), adjoint(system.C)) if dual else (system.poles, system.B)
    A = system.A  # type: ignore[attr-defined]
    return (adjoint(A), adjoint(system.C)) if dual else (A, system.B)


def _gramian(
    system: AnySystem, where: str, horizon: int | None, backend: str, *, dual: bool
) -> np.ndarray:
    system = _with_linear_outputs(system, where, horizon, dual=dual)
    length = check_horizon_of(system, horizon, where)
    check_choice(backend, BACKENDS, "backend", where)
    A, B = _dual_arrays(system, dual)
    continuous = not system.is_discrete
    if isinstance(system, DiagonalSystem):
        if length is None:
            gramian = stable_gramian(A, B, continuous=continuous, where=where)
        else:
            weights = B @ adjoint(B)
            gramian = diagonal_gramian(
                A, weights, horizon=length, conjugate=True, continuous=continuous, where=where
            )
        return gramian if system._has_complex_data() else gramian.real.copy()
    if length is not None:
        return dense_finite_gramian(A, B, length, where)
    weights = B @ adjoint(B)
    weights = (weights + adjoint(weights)) / 2
    return symmetric_solution(A, weights, None, backend, where, discrete=not continuous).X


def gramian_factor(system: AnySystem, where: str, horizon: int | None, *, dual: bool) -> np.ndarray:
    """Return :func:`controllability_factor` or its dual; errors name the function ``where``."""
    system = _with_linear_outputs(system, where, horizon, dual=dual)
    length = check_horizon_of(system, horizon, where)
    A, B = _dual_arrays(system, dual)
    if isinstance(system, DiagonalSystem):
        if dual:
            batch = system.batch_shape
            empty = np.zeros((*batch, 0, system.order))
            system = system.replace(
                poles=A, B=B, C=empty, D=np.zeros((*batch, 0, B.shape[-1])), real_output=False
            )
        factor = diagonal_factor(system, horizon=length, where=where)
        return factor if system._has_complex_data() else factor.real.copy()
    return dense_factor(A, B, horizon=length, continuous=not system.is_discrete, where=where)
