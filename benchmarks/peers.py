"""What the peers offer for one system, each called as its documentation says.

Left out on purpose: `control.balred` (treats discrete systems as continuous).
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.linalg
from slycot import ab09ad, sb03md57

Case = tuple[np.ndarray, np.ndarray, np.ndarray]  # A, B, C of one system, discrete


def scipy_stein(A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return X of ``X - A X A^T = W`` by SciPy's bilinear method."""
    return scipy.linalg.solve_discrete_lyapunov(A, W, method="bilinear")


def slycot_stein(A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return the same by SLICOT's SB03MD."""
    return sb03md57(A.copy(), C=-W, dico="D", job="X", trana="T")[2]


def scipy_lyapunov(A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return X of ``A X + X A^T + W = 0`` by SciPy."""
    return scipy.linalg.solve_continuous_lyapunov(A, -W)


def slycot_lyapunov(A: np.ndarray, W: np.ndarray) -> np.ndarray:
    """Return the same by SLICOT's SB03MD."""
    return sb03md57(A.copy(), C=-W, dico="C", job="X", trana="T")[2]


STEIN = {"SciPy": scipy_stein, "slycot": slycot_stein}
LYAPUNOV = {"SciPy": scipy_lyapunov, "slycot": slycot_lyapunov}


def pair_removals(P: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the h2 error of removing each pair of states, the read-out of the others fitted again.

    ``sqrt(c_e [(P^-1)_ee]^-1 c_e^T)`` for 2 x 2 blocks, in closed form.
    """
    try:
        X = np.linalg.inv(P)
    except np.linalg.LinAlgError:  # singular in float64
        X = np.linalg.pinv(P, hermitian=True)
    a, b, d = np.diag(X)[0::2], np.diag(X, 1)[0::2], np.diag(X)[1::2]
    u, v = c[0, 0::2], c[0, 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):  # (P^-1)_ee may be singular by rounding
        return np.sqrt(np.abs((d * u * u - 2 * b * u * v + a * v * v) / (a * d - b * b)))


def slycot_balanced(case: Case, order: int, dico: str = "D") -> tuple:
    """Return what SLICOT's AB09AD does: the balanced truncation and all Hankel values."""
    A, B, C = case
    n, m, p = len(A), B.shape[1], len(C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ab09ad(dico, "B", "N", n, m, p, A.copy(), B.copy(), C.copy(), nr=order)


def scipy_factors(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of both Gramians by SciPy: an eigenvalue decomposition of each solution."""
    A, B, C = case

    def factor(X: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(X)
        return vectors * np.sqrt(np.maximum(values, 0))

    return factor(scipy_stein(A, B @ B.T)), factor(scipy_stein(A.T, C.T @ C))


def scipy_hankel(case: Case) -> np.ndarray:
    """Return the Hankel singular values by SciPy."""
    Lp, Lq = scipy_factors(case)
    return np.linalg.svd(Lq.T @ Lp, compute_uv=False)


def scipy_balanced(case: Case, order: int) -> Case:
    """Return the balanced truncation by SciPy (square-root method)."""
    A, B, C = case
    Lp, Lq = scipy_factors(case)
    U, values, Vt = np.linalg.svd(Lq.T @ Lp)
    scale = 1 / np.sqrt(values[:order])
    V, W = Lp @ Vt[:order].T * scale, Lq @ U[:, :order] * scale
    return W.T @ A @ V, W.T @ B, C @ V


def control_object(case: Case) -> object:
    """Return the system as python-control's."""
    import control

    return control.ss(*case, 0, True)


def control_gramian(system: object) -> np.ndarray:
    """Return the controllability Gramian of python-control."""
    import control

    return np.asarray(control.gram(system, "c"))


def pymor_object(case: Case, *, continuous: bool = False) -> object:
    """Return the system as pyMOR's."""
    from pymor.core.logger import set_log_levels
    from pymor.models.iosys import LTIModel

    set_log_levels({"pymor": "ERROR"})
    return LTIModel.from_matrices(*case, sampling_time=0 if continuous else 1)


def pymor_gramian(model: object) -> object:
    """Return the controllability Gramian of pyMOR."""
    return model.gramian("c_dense")


def pymor_hankel(model: object) -> np.ndarray:
    """Return the Hankel singular values of pyMOR."""
    return model.hsv()


def pymor_balanced(model: object, order: int) -> object:
    """Return the balanced truncation of pyMOR."""
    from pymor.reductors.bt import BTReductor

    return BTReductor(model).reduce(order)
