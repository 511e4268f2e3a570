"""Hankel-norm approximation of sums of exponentials by con-eigenvalues (Adamjan, Arov, Krein).

Theory: ``theory/aak-con-eigenvalues.md``.
"""

from __future__ import annotations

import numpy as np

from ssmred.errors import AccuracyError, message
from ssmred.kernels.cauchy import fill_complex_factor, fill_conjugate_factor
from ssmred.kernels.con_eigen import fill_balanced_forms, fill_embeddings
from ssmred.kernels.jacobi import LEAST, fill_decompositions, fill_vectors
from ssmred.reductors.all_pass import BalancedData, hankel_approximant, multiplicity_groups
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.diagonalisation import CONDITION_LIMIT
from ssmred.systems.linear import adjoint
from ssmred.systems.stability import stability_margins

__all__ = ["ConEigenCore"]

NEGLIGIBLE = 2.0**-60
"""Con-eigenvalues below this share of the removed one leave no digit in the embedding."""

NEAR = 2.0**-6
"""Hankel values closer than this, relatively, take A from the matrix, not from its equations."""


class ConEigenCore:
    """Know the con-eigenvalues of a flat batch of single-input single-output diagonal systems.

    Parameters
    ----------
    system : DiagonalSystem
        (H,) channels, stable, standard; a half spectrum or complex.
    dense : bool
        Return reduced systems dense.
    """

    norm = "hinf"
    theorem = "aak-con-eigenvalues"

    def __init__(self, system: DiagonalSystem, *, dense: bool) -> None:
        self.system, self.dense = system, dense
        self.centres = _centres(system)
        residues = system.C[:, 0, :] * system.B[:, :, 0]
        margins = stability_margins(system)
        self.margins = margins if system.is_discrete else 2.0 * margins
        self.direct = system.D[:, 0, 0]
        if system.is_discrete:  # the value at the point that s = infinity stands for
            shift = np.sum(residues / (self.centres[:, None] + system.poles), axis=-1)
            self.direct = self.direct - (shift.real if system.real_output else shift)
        form = _real_forms if system.real_output else _complex_forms
        self.hankel, self.form = form(system, np.sqrt(residues), self.margins, self.centres)
        if np.isnan(self.hankel).any():
            raise AccuracyError(message("HankelReductor", "the con-eigenvalues do not converge"))
        tails = np.cumsum(self.hankel[:, ::-1], axis=-1)[:, ::-1]
        self.errors = np.concatenate([tails, np.zeros((len(tails), 1))], axis=-1)
        self.norms = self.hankel[:, 0]

    def reduced(
        self, channels: np.ndarray, order: int
    ) -> tuple[DiagonalSystem | DenseSystem, None, None]:
        """Return the optimal Hankel-norm approximations of some channels."""
        simple = _is_simple(self.hankel[channels], order)
        if not self.system.real_output:
            simple[:] = False
        pieces = []
        if simple.any():
            pieces.append((np.flatnonzero(simple), *self._embedded(channels[simple], order)))
        for i in np.flatnonzero(~simple):
            poles, residues, direct = self._approximated(channels[i], order)
            pieces.append((np.array([i]), poles[None], residues[None], np.array([direct])))
        places = np.argsort(np.concatenate([piece[0] for piece in pieces]))
        width = max(piece[1].shape[1] for piece in pieces)
        poles, residues = (
            np.concatenate([np.pad(p[i], ((0, 0), (0, width - p[i].shape[1]))) for p in pieces])
            for i in (1, 2)
        )
        direct = np.concatenate([piece[3] for piece in pieces])
        system = self._assembled(channels, poles[places], residues[places], direct[places])
        return system, None, None

    def _embedded(
        self, channels: np.ndarray, order: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return stable poles, residues and direct terms, in continuous time, of many channels."""
        signed, b, X = (array[channels] for array in self.form)
        level = signed[:, order]
        used = np.abs(signed) > NEGLIGIBLE * np.abs(level)[:, None]
        width = max(int(used.sum(axis=-1).max()) - 1, order)
        count = len(channels)
        M, left, right = np.empty((count, width, width)), *np.empty((2, count, width))
        fill_embeddings(signed, b, X, order, width, M, left, right)
        poles, residues = _modes(M, left, right)
        # conjugates stay together: equal real parts are neighbours in a stable sort
        places = np.argsort(poles.real, axis=-1, kind="stable")
        poles = np.take_along_axis(poles, places, axis=-1)
        residues = np.take_along_axis(residues, places, axis=-1)
        _check_count(np.sum(poles.real < 0, axis=-1), order)
        other = residues[:, order:] / poles[:, order:]
        direct = self.direct[channels] + level - other.sum(axis=-1).real / 2
        return poles[:, :order], residues[:, :order], direct

    def _approximated(self, h: int, order: int) -> tuple[np.ndarray, np.ndarray, complex]:
        """Return stable poles, residues and the direct term of one channel, by the embedding."""
        data = self._balanced(h)
        if order < data.sigma.size:
            A, B, C, D = hankel_approximant(data, order)
        else:
            A, B, C, D = data.A, data.B, data.C, data.D
        poles, residues = _modes(A[None], B.T, C)
        return poles[0], residues[0], D[0, 0]

    def _balanced(self, h: int) -> BalancedData:
        """Return the balanced form of one channel in continuous time."""
        if not self.system.real_output:
            sigma, A, b, c = (array[h] for array in self.form)
            r = int(np.sum(sigma > 0))
            parts = (A[:r, :r], b[:r, None], c[None, :r])
        else:
            signed, b, X = (array[h] for array in self.form)
            sigma, signs = np.abs(signed), np.sign(signed)
            r = int(np.sum(sigma > 0))
            parts = (-(X * signs)[:r, :r], b[:r, None], (signs * b)[None, :r])
        return BalancedData(sigma[:r], *parts, np.array([[self.direct[h]]]))

    def _assembled(
        self, channels: np.ndarray, poles: np.ndarray, residues: np.ndarray, direct: np.ndarray
    ) -> DiagonalSystem | DenseSystem:
        """Return systems from their modes in continuous time; modes without residue are padding."""
        full, rest = self.system, -1.0
        idle = residues == 0
        if full.is_discrete:
            # z = centre (1 + s) / (1 - s); residues of a real system come with both conjugates
            centres, rest = self.centres[channels, None], 0.0
            shift = np.sum(residues / (1.0 - poles), axis=-1)
            direct = direct + (shift.real if full.real_output else shift)
            residues = 2.0 * centres * residues / (1.0 - poles) ** 2
            poles = centres * (1.0 + poles) / (1.0 - poles)
        D = direct[:, None, None]
        D = D.real if full.is_real else D
        if not full.real_output:
            poles, residues = _packed(poles, residues, ~idle, rest)
            B, C = _factored(residues)
            system = full.replace(poles=poles, B=B, C=C, D=D)
            return system.to_dense() if self.dense else system
        kept = ~idle & (poles.imag >= 0)
        residues = np.where(poles.imag > 0, 2.0, 1.0) * residues
        poles, residues = _packed(poles, residues, kept, rest)
        B, C = _factored(residues)
        system = full.replace(poles=poles, B=B, C=C, D=D)
        return _real_dense(system) if self.dense else system


def _centres(system: DiagonalSystem) -> np.ndarray:
    """Return 1 or -1, the point of the circle that becomes s = 0; poles avoid the opposite one."""
    if not system.is_discrete:
        return np.zeros(len(system.poles))
    near, far = (np.abs(system.poles - point).min(axis=-1) for point in (1.0, -1.0))
    return np.where(far >= near, 1.0, -1.0)


def _real_forms(
    system: DiagonalSystem, weights: np.ndarray, margins: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return con-eigenvalues (H, N) and signed ones, b and X of half spectra."""
    channels, n = system.poles.shape
    poles = np.ascontiguousarray(system.poles)
    factors, ranks = np.zeros((channels, 2 * n, 2 * n)), np.zeros(channels, np.int64)
    fill_conjugate_factor(poles, weights, not system.is_discrete, factors, ranks)
    signed, b = np.empty((2, channels, 2 * n))
    X = np.empty((channels, 2 * n, 2 * n))
    fill_balanced_forms(factors, ranks, poles, margins, centres, signed, b, X)
    return np.abs(signed), (signed, b, X)


def _complex_forms(
    system: DiagonalSystem, weights: np.ndarray, margins: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return con-eigenvalues (H, n) and the balanced forms of complex systems."""
    channels, n = system.poles.shape
    poles = np.ascontiguousarray(system.poles)
    F, pivots = np.zeros((channels, n, n), np.complex128), np.zeros((channels, n), np.int64)
    fill_complex_factor(poles, weights[..., None], not system.is_discrete, F, pivots)
    G = np.swapaxes(F, -1, -2) @ F
    W, Y, U, V = np.zeros((4, channels, n, n), np.complex128)
    tau, sigma = np.zeros((2, channels, n))
    rows, place, order = np.zeros((3, channels, n), np.int64)
    ranks, dropped = np.zeros(channels, np.int64), np.zeros(channels)
    fill_decompositions(G, LEAST, W, tau, rows, place, Y, order, sigma, ranks, dropped)
    fill_vectors(np.arange(channels), W, tau, rows, place, Y, order, ranks, U, V)
    poles, margins = (np.take_along_axis(x, pivots, axis=-1) for x in (poles, margins))
    start, moved = _orthonormal_form(poles, margins, centres)
    root = np.sqrt(sigma)
    Vh = adjoint(V)
    b = root * (Vh @ start[..., None])[..., 0]
    turn = centres if system.is_discrete else np.ones(channels)
    left, right = sigma[:, :, None], sigma[:, None, :]
    near = np.abs(right - left) <= NEAR * np.maximum(left, right)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(right > 0, root[:, :, None] / root[:, None, :], 0)
        # U = conj(V) Q, Q = 0 between different values: the small entries of U alone are not exact
        Q = np.where(near, np.swapaxes(V, -1, -2) @ U, 0)
        c = turn[:, None] * np.sum(b[:, :, None] * np.swapaxes(ratio, -1, -2) * Q, axis=1)
        direct = (Vh @ moved @ V) * ratio
        forms = left * c.conj()[:, :, None] * c[:, None, :]
        forms = (forms - right * b[:, :, None] * b.conj()[:, None, :]) / (right**2 - left**2)
    A = np.where(near, direct, forms)
    live = sigma > 0
    A = np.where(live[:, :, None] & live[:, None, :], A, 0)
    return sigma, (sigma, A, b, c)


def _orthonormal_form(
    poles: np.ndarray, margins: np.ndarray, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return b (H, n) and A (H, n, n) in continuous time, with ``A + A^* = -b b^*``, triangular.

    The coordinates are those of the orthonormal functions with these poles, in this order.
    """
    H, n = poles.shape
    if not centres.any():
        b = np.sqrt(margins) * (-1.0) ** np.arange(n)
        diagonal = poles
    else:
        point = -centres[:, None]
        gap = 1.0 - poles.conj() * point
        turns = np.cumprod((point - poles) / gap, axis=-1)
        turns = np.concatenate([np.ones((H, 1)), turns[:, :-1]], axis=-1)
        b = -np.sqrt(2.0 * margins) * point * (turns / gap).conj()
        diagonal = (poles + point) / (poles - point)
    A = np.tril(-b[:, :, None] * b.conj()[:, None, :], -1).astype(np.complex128)
    A[:, range(n), range(n)] = diagonal
    return b, A


def _is_simple(hankel: np.ndarray, order: int) -> np.ndarray:
    """Tell where the con-eigenvalue with this number is positive and equals no other."""
    groups = multiplicity_groups(hankel)
    same = np.sum(groups == groups[:, order : order + 1], axis=-1) == 1
    return same & (hankel[:, order] > 0)


def _modes(A: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return poles and residues (H, n) of dense systems A (H, n, n), b, c (H, n)."""
    if A.shape[-1] == 0:
        return np.zeros(b.shape, np.complex128), np.zeros(b.shape, np.complex128)
    poles, X = np.linalg.eig(A)
    condition = float(np.max(np.linalg.cond(X), initial=1.0))
    if not condition <= CONDITION_LIMIT:
        raise AccuracyError(
            message(
                "HankelReductor",
                "the poles of the approximation are too close to each other to be separated",
                expected=f"condition <= {CONDITION_LIMIT:.3g}",
                got=f"{condition:.3g}",
                cure='Choose another order, or method="glover" with form="dense".',
            )
        )
    residues = (c[:, None, :] @ X)[:, 0] * np.linalg.solve(X, b[..., None].astype(X.dtype))[..., 0]
    return poles.astype(np.complex128), residues.astype(np.complex128)


def _check_count(stable: np.ndarray, order: int) -> None:
    if np.any(stable != order):
        raise AccuracyError(
            message(
                "HankelReductor",
                "a pole of the embedding lies on the imaginary axis within rounding",
                expected=f"{order} stable poles",
                got=f"{int(stable[stable != order][0])}",
                cure="Choose another order.",
            )
        )


def _packed(
    poles: np.ndarray, residues: np.ndarray, kept: np.ndarray, rest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept modes in front and padding behind."""
    counts = kept.sum(axis=-1)
    places = np.argsort(~kept, axis=-1, kind="stable")[:, : int(counts.max(initial=0))]
    filled = np.arange(places.shape[1]) < counts[:, None]
    poles = np.take_along_axis(poles, places, axis=-1)
    residues = np.take_along_axis(residues, places, axis=-1)
    return np.where(filled, poles, rest), np.where(filled, residues, 0)


def _factored(residues: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return B (H, n, 1) and C (H, 1, n) of equal size with these residues, B real."""
    size = np.sqrt(np.abs(residues))
    with np.errstate(divide="ignore", invalid="ignore"):
        C = np.where(size > 0, residues / size, 0)
    return size[..., None], C[:, None, :]


def _real_dense(half: DiagonalSystem) -> DenseSystem:
    """Return real matrices with one state for every real pole and two for every pair."""
    channels, n = half.poles.shape
    sizes = np.where(half.poles.imag != 0, 2, 1) * (half.B[..., 0] != 0)
    width = int(sizes.sum(axis=-1).max(initial=0))
    A, B = np.zeros((channels, width, width)), np.zeros((channels, width, 1))
    C = np.zeros((channels, 1, width))
    if not half.is_discrete:
        A[:, range(width), range(width)] = -1.0
    starts = np.cumsum(sizes, axis=-1) - sizes
    for i in range(n):
        for size in (1, 2):
            h = np.flatnonzero(sizes[:, i] == size)
            k, pole = starts[h, i], half.poles[h, i]
            A[h, k, k], B[h, k, 0] = pole.real, half.B[h, i, 0].real
            C[h, 0, k] = half.C[h, 0, i].real
            if size == 2:
                A[h, k + 1, k + 1], A[h, k, k + 1], A[h, k + 1, k] = (
                    pole.real,
                    -pole.imag,
                    pole.imag,
                )
                C[h, 0, k + 1] = -half.C[h, 0, i].imag
    return DenseSystem(A, B, C, half.D, half.dt)
