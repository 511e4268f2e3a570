"""Read-out and input map of kept modes, fitted in turn.

Theory: ``theory/alternating-readout.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from ssmred.gramians.square_root import ROUNDING, power_root
from ssmred.systems import DiagonalSystem

__all__ = ["Alternation"]

BLOCK_BYTES = 2**26  # equations are triangularised in blocks of this size


@dataclass(frozen=True)
class Alternation:
    """Fit the input map and the read-out of the kept modes in turn, poles unchanged.

    Parameters
    ----------
    horizon : int or None
        Number of samples over which impulse responses are compared.
    sweeps : int
        Largest number of sweeps, one fit of B and one of C (and D) each.
    change : float
        Stop once a sweep lowers the error by less than this share of it.
    """

    horizon: int | None
    sweeps: int
    change: float

    def improve(
        self, full: DiagonalSystem, start: DiagonalSystem, mask: np.ndarray
    ) -> tuple[DiagonalSystem, np.ndarray, np.ndarray]:
        """Return a system with a smaller error, that error, and the sweeps this took.

        Parameters
        ----------
        full, start : DiagonalSystem
            The target, and a system on the same poles whose read-out is 0 where a mode is gone.
        mask : (..., n) bool
            Modes that stay.

        Returns
        -------
        system : DiagonalSystem
            ``start`` with other B, C and D; as it was in channels that keep all modes or none.
        error : (...) float64
            The h2 norm of the difference to ``full``.
        sweeps : (...) int64
        """
        n, m, p = full.order, full.inputs, full.outputs
        roots = power_root(full, horizon=self.horizon, where="SubsetReductor")
        flat = mask.reshape(len(roots), n)
        B = start.B.reshape(len(roots), n, m).copy()
        C = start.C.reshape(len(roots), p, n).copy()
        target = full.B.reshape(B.shape), full.C.reshape(C.shape)
        counts = np.zeros(len(flat), dtype=np.int64)
        for h, root in enumerate(roots):
            kept = np.flatnonzero(flat[h] & np.any(B[h] != 0, axis=-1))
            if kept.size > 0 and not flat[h].all():
                problem = _Problem(root, target[0][h], target[1][h], kept, full.real_output)
                counts[h] = problem.sweep(B[h], C[h], self)
        system = start.replace(B=B.reshape(start.B.shape), C=C.reshape(start.C.shape))
        if full.is_post_update:  # the direct term makes the first samples equal
            D = full.D + full._output_part(full.C @ full.B - system.C @ system.B)
            touched = (counts > 0).reshape(mask.shape[:-1])[..., None, None]
            system = system.replace(D=np.where(touched, D, start.D))
        if full.is_real and not full.real_output:
            system = system.replace(B=system.B.real, C=system.C.real, D=system.D.real)
        return system, _error(full, system, roots), counts.reshape(mask.shape[:-1])


def _error(full: DiagonalSystem, system: DiagonalSystem, roots: np.ndarray) -> np.ndarray:
    """Return the h2 norm of a difference on the same poles, from the stored coefficients."""
    n, m, p = full.order, full.inputs, full.outputs
    direct = full.D - system.D
    if full.is_post_update:
        direct = direct + full._output_part(full.C @ full.B - system.C @ system.B)
    squares = np.sum(np.abs(direct) ** 2, axis=(-2, -1)).reshape(len(roots))
    parts = [(x.B.reshape(len(roots), n, m), x.C.reshape(len(roots), p, n)) for x in (full, system)]
    for h, root in enumerate(roots):
        Z = root[:, 0::2] + 1j * root[:, 1::2]
        for j in range(m):
            residues = [B[h, :, j, None] * C[h].T for B, C in parts]
            seen = Z @ (residues[0] - residues[1])
            squares[h] += np.sum((seen.real if full.real_output else np.abs(seen)) ** 2)
    return np.sqrt(squares).reshape(full.batch_shape)


class _Problem:
    """One channel: ``min sum_oj ||Y_oj - Z (c_o * b_j)||`` in the span of the kept modes.

    Z holds the square root of the kept powers (real outputs: of which the real part counts), Y what
    the full system needs of them, and `rest` the energy that no residues on them can reach.
    """

    def __init__(
        self, root: np.ndarray, B: np.ndarray, C: np.ndarray, kept: np.ndarray, real: bool
    ) -> None:
        self.kept, self.real = kept, real
        columns = np.stack([2 * kept, 2 * kept + 1], axis=1).ravel()
        Q, R = np.linalg.qr(root[:, columns], mode="complete")
        full = Q.T @ (root[:, 0::2] + 1j * root[:, 1::2])
        size = columns.size
        self.Z = R[:size, 0::2] + 1j * R[:size, 1::2]
        self.Y = np.empty((C.shape[0], size, B.shape[1]), dtype=float if real else complex)
        self.rest = 0.0
        for o, c in enumerate(C):
            seen = full @ (c[:, None] * B)  # (2 n, m)
            seen = seen.real if real else seen
            self.Y[o] = seen[:size]
            self.rest += np.sum(np.abs(seen[size:]) ** 2)

    def sweep(self, B: np.ndarray, C: np.ndarray, options: Alternation) -> int:
        """Overwrite the rows of B (n, m) and columns of C (p, n) of the kept modes."""
        b, c = B[self.kept], C[:, self.kept].T.copy()  # (r, m), (r, p)
        sizes = np.linalg.norm(b, axis=-1)
        error = self._error(b, c)
        for count in range(options.sweeps):
            if error == 0.0:
                return count
            new_b = b + self._change(c, b, self.Y)
            # the scale of a mode is free: rows of B keep their length
            lengths = np.linalg.norm(new_b, axis=-1)
            new_b *= np.where(lengths > 0, sizes / np.where(lengths > 0, lengths, 1), 1)[:, None]
            new_c = c * np.where(lengths > 0, lengths / sizes, 1)[:, None]
            new_c += self._change(new_b, new_c, np.swapaxes(self.Y, 0, 2))
            lower = self._error(new_b, new_c)
            if not lower < error:  # rounding is all that is left
                return count
            b, c = new_b, new_c
            B[self.kept], C[:, self.kept] = b, c.T
            if error - lower <= options.change * error:
                return count + 1
            error = lower
        return options.sweeps

    def _error(self, b: np.ndarray, c: np.ndarray) -> float:
        total = self.rest
        for o in range(c.shape[1]):
            total += np.sum(np.abs(self.Y[o] - self._seen(c[:, o, None] * b)) ** 2)
        return float(np.sqrt(total))

    def _seen(self, residues: np.ndarray) -> np.ndarray:
        seen = self.Z @ residues
        return seen.real if self.real else seen

    def _change(self, fixed: np.ndarray, free: np.ndarray, Y: np.ndarray) -> np.ndarray:
        """Return the change of `free` (r, q) that fits Y (f, 2 r, q) best, `fixed` (r, f) given.

        A QR of the equations of some columns of `fixed` after the other; no squares are formed.
        """
        width = free.shape[0] * (2 if self.real else 1)
        right = free.shape[1]
        upper = np.zeros((0, width + right), dtype=Y.dtype)
        rows = self.Z.shape[0]
        step = max(1, BLOCK_BYTES // (16 * rows * (width + right)))
        for start in range(0, fixed.shape[1], step):
            part = fixed[:, start : start + step].T  # (s, r)
            A = self.Z * part[:, None, :]  # (s, 2 r, r)
            if self.real:
                A = np.stack([A.real, -A.imag], axis=-1).reshape(*A.shape[:2], width)
            missed = [Y[start + s] - self._seen(part[s, :, None] * free) for s in range(len(part))]
            block = np.concatenate([A, np.stack(missed)], axis=-1).reshape(-1, width + right)
            upper = np.linalg.qr(np.concatenate([upper, block]), mode="r")
        lengths = np.linalg.norm(upper[:, :width], axis=0)
        if self.real:
            lengths = np.hypot(lengths[0::2], lengths[1::2]).repeat(2)
        alive = np.flatnonzero(lengths > 0)
        own = np.zeros((alive.size, alive.size + right), dtype=Y.dtype)
        own[:, : alive.size] = np.diag(ROUNDING * lengths[alive])
        columns = np.append(alive, np.arange(width, width + right))
        upper = np.linalg.qr(np.concatenate([upper[:, columns], own]), mode="r")
        change = np.zeros((width, right), dtype=Y.dtype)
        k = alive.size
        change[alive] = solve_triangular(upper[:k, :k], upper[:k, k:])
        return change[0::2] + 1j * change[1::2] if self.real else change
