"""Hankel singular values of large systems at 60 digits, by Arb: an algorithm of its own.

``P`` and ``Q`` come from Smith's doubling of the Cayley image, at far more digits than the answer
needs, and are checked by their residuals; a dominant subspace of ``P Q`` from plain powers, whose
loss of digits the precision pays for; the values from its small eigenvalue problem.

    python tests/reference/sixty_digits.py FOLDER

writes ``slicot_sixty_digits.json`` anew from the SLICOT benchmark models (``*.mat``) in a folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from flint import acb_mat, arb, arb_mat, ctx
from scipy import sparse
from scipy.io import loadmat

STORED = Path(__file__).with_name("slicot_sixty_digits.json")
MODELS = ("building", "pde", "heat-cont")
COUNT = 25
"""Hankel singular values that are stored of every model."""
BITS = 3000
DIGITS = 60
DOUBLINGS = 60
POWERS = 3
SURPLUS = 35  # directions beyond the values that are asked for: they decay by 10 in the square


def matrix(array: np.ndarray) -> arb_mat:
    """Return a real float64 array as it is."""
    array = np.asarray(array, dtype=np.float64)
    return arb_mat(*array.shape, [arb(x) for x in array.ravel().tolist()])


def identity(n: int) -> arb_mat:
    return matrix(np.eye(n))


def size(X: arb_mat) -> float:
    """Return the base-10 logarithm of the largest entry."""
    largest = max((abs(x) for x in X.mid().entries()), key=lambda x: x.mid())
    return float("-inf") if largest == 0 else float((largest.log() / arb(10).log()).mid())


def gramian(A: arb_mat, B: arb_mat) -> arb_mat:
    """Return P of ``A P + P A^T + B B^T = 0``, its relative residual below 1e-400."""
    n = A.nrows()
    beta = sum((abs(x) for x in A.entries()), arb(0)).mid() / n  # about the size of a row
    gap = beta * identity(n) - A
    M = gap.solve(beta * identity(n) + A).mid()
    factor = gap.solve(B).mid()
    P = (2 * beta * factor * factor.transpose()).mid()
    for _ in range(DOUBLINGS):
        step = (M * P * M.transpose()).mid()
        P = (P + step).mid()
        if size(step) < size(P) - 450:
            break
        M = (M * M).mid()
    W = B * B.transpose()
    residual = A * P + P * A.transpose() + W
    if size(residual) > size(W) - 400:
        raise ArithmeticError(f"the doubling did not converge: {size(residual)}")
    return P


def norm_and_hankel_values(
    A: np.ndarray, B: np.ndarray, C: np.ndarray, count: int
) -> tuple[str, list[str]]:
    """Return the h2 norm and the leading Hankel singular values of a stable real system, dt = 0.

    Returns
    -------
    str, list of count str
        Decimal numbers, 60 digits.
    """
    before, ctx.prec = ctx.prec, BITS
    try:
        P = gramian(matrix(A), matrix(B))
        Q = gramian(matrix(A).transpose(), matrix(C).transpose())
        read_out = matrix(C)
        energy = (read_out * P * read_out.transpose()).trace()
        rng = np.random.default_rng(0)
        width = min(len(A), count + SURPLUS)
        V, left = (matrix(rng.normal(size=(len(A), width))) for _ in range(2))
        for _ in range(POWERS if width < len(A) else 0):
            V = (P * (Q * V)).mid()
        image = (P * (Q * V)).mid()
        small = (left.transpose() * V).mid().solve((left.transpose() * image).mid()).mid()
        squares = acb_mat(small).eig(algorithm="approx")
        values = sorted((abs(s.real.mid()).sqrt() for s in squares), key=lambda v: -v.mid())
        norm, *rest = (v.mid().str(DIGITS, radius=False) for v in [energy.sqrt(), *values[:count]])
        return norm, rest
    finally:
        ctx.prec = before


def read_model(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return A, B, C of a benchmark model as stored, and the Hankel values that come with it."""
    data = loadmat(folder / f"{name}.mat")
    return {
        key: np.asarray(data[key].todense() if sparse.issparse(data[key]) else data[key], float)
        for key in ("A", "B", "C", "hsv")
    }


def main() -> int:
    """Compute the answers for all models and write them down."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"usage: {sys.argv[0]} FOLDER (with {', '.join(MODELS)} as .mat)\n")
        return 2
    answers = {}
    for name in MODELS:
        data = read_model(Path(sys.argv[1]), name)
        norm, values = norm_and_hankel_values(data["A"], data["B"], data["C"], COUNT)
        answers[name] = {"h2": norm, "hankel": values}
        sys.stdout.write(f"{name}: {data['A'].shape[0]} states, h2 norm {norm[:20]}\n")
        sys.stdout.flush()
    STORED.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
