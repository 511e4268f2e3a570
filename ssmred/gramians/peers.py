"""Linear matrix equations by SciPy and slycot, one system at a time."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg

from ssmred.errors import (
    AccuracyError,
    MissingDependencyError,
    UnsupportedOperationError,
    message,
)

__all__ = ["scipy_solution", "singular_cure", "slycot_solution"]


def scipy_solution(
    A: np.ndarray, B: np.ndarray, W: np.ndarray, where: str, *, same: bool, discrete: bool
) -> np.ndarray:
    """Return X of ``X - A X B^* = W`` (or ``A X + X B^* = W``) from SciPy.

    Parameters
    ----------
    A : (n, n) float64 or complex128
    B : (m, m) float64 or complex128
    W : (n, m) float64 or complex128
    where : str
    same : bool
        Whether B is A.
    discrete : bool

    Returns
    -------
    (n, m) float64 or complex128

    Raises
    ------
    AccuracyError
        If SciPy calls the equation singular.

    Notes
    -----
    The discrete Sylvester equation is solved as a linear system of order ``n m``.
    """
    try:
        with warnings.catch_warnings():
            # SciPy perturbs a singular equation and only warns: ill-conditioned and the like
            warnings.simplefilter("error", RuntimeWarning)
            if same and discrete:
                return scipy.linalg.solve_discrete_lyapunov(A, W)
            if same:
                return scipy.linalg.solve_continuous_lyapunov(A, W)
            if not discrete:
                _check_sums(A, B, where)  # SciPy perturbs a singular equation without a word
                return scipy.linalg.solve_sylvester(A, B.conj().T, W)
            operator = np.eye(W.size, dtype=W.dtype) - np.kron(A, B.conj())
            return scipy.linalg.solve(operator, W.ravel()).reshape(W.shape)
    except (np.linalg.LinAlgError, RuntimeWarning) as error:
        raise _singular(where, "SciPy", error, discrete) from error


def slycot_solution(
    A: np.ndarray, B: np.ndarray, W: np.ndarray, where: str, *, same: bool, discrete: bool
) -> np.ndarray:
    """Return X of ``X - A X B^* = W`` (or ``A X + X B^* = W``) from SLICOT.

    Parameters and returns are those of :func:`scipy_solution`, for real data.

    Raises
    ------
    AccuracyError
        If SLICOT calls the equation singular.
    MissingDependencyError
        If slycot is not installed.
    UnsupportedOperationError
        For complex data, or a Lyapunov or Stein equation with W not symmetric.

    Notes
    -----
    SB03MD, SB04MD and SB04QD.
    """
    symmetric = not same or np.array_equal(W, W.T)
    if np.iscomplexobj(W) or not symmetric:
        raise UnsupportedOperationError(
            message(
                where,
                'backend="slycot" takes real data, and a symmetric W',
                got=f"dtype {W.dtype}{'' if symmetric else ', W not symmetric'}",
                cure="Use the default backend.",
            )
        )
    try:
        from slycot import sb03md57, sb04md, sb04qd
        from slycot.exceptions import SlycotError, SlycotWarning
    except ImportError as error:
        raise MissingDependencyError(
            message(where, "slycot is not installed", cure="Use the default backend.")
        ) from error
    n, m = W.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SlycotWarning)
            if same:
                sign, dico = (-1.0, "D") if discrete else (1.0, "C")
                return sb03md57(A.copy(), C=sign * W, dico=dico, job="X", trana="T")[2]
            if discrete:
                return sb04qd(n, m, -A, B.T.copy(), W.copy())
            return sb04md(n, m, A.copy(), B.T.copy(), W.copy())
    except (SlycotError, SlycotWarning) as error:
        raise _singular(where, "SLICOT", error, discrete) from error


def _check_sums(A: np.ndarray, B: np.ndarray, where: str) -> None:
    """Raise AccuracyError if an eigenvalue of A is minus the conjugate of one of B."""
    left, right = np.linalg.eigvals(A)[:, None], np.linalg.eigvals(B).conj()
    if (np.abs(left + right) <= 2.0**-52 * (np.abs(left) + np.abs(right))).any():
        raise AccuracyError(
            message(
                where,
                "the equation is singular: two eigenvalues have sum 0 within rounding",
                cure=singular_cure(where, discrete=False),
            )
        )


def singular_cure(where: str, *, discrete: bool) -> str:
    """Return what to do about a singular equation."""
    if "sylvester" in where:
        return "Move the eigenvalues of A and B apart."
    if discrete:
        return "Use the Gramian of a finite horizon, or a DiagonalSystem, whose poles are exact."
    return "Use a DiagonalSystem, whose poles are exact, or move the eigenvalues apart."


def _singular(where: str, library: str, error: BaseException, discrete: bool) -> AccuracyError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return AccuracyError(
        message(
            where,
            f"{library} finds the equation singular ({reason.rstrip('.')})",
            cure=singular_cure(where, discrete=discrete),
        )
    )
