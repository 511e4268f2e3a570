"""Divide states among the layers of a chain so that its bound is least, exactly.

Theory: ``theory/quadratic-chain.md``, 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ssmred.certify.quadratic_chain import QuadraticBlock

__all__ = ["least_bound_division"]


def least_bound_division(
    blocks: Sequence[QuadraticBlock], errors: Sequence[np.ndarray], horizon: int, modes: int
) -> tuple[list[int], float]:
    """Return how many modes each layer keeps where the bound is least, and its logarithm.

    The bound behind a block grows with the bound before it, so the best division of k modes among
    the first layers is one of k - r among those before and r for the last of them.

    Parameters
    ----------
    blocks : sequence of QuadraticBlock
        Front to back.
    errors : sequence of (n_l + 1,) float64
        Least h2 error of every layer with r modes, with its best read-out.
    horizon : int
    modes : int
        To be kept at most, all layers together.

    Returns
    -------
    kept : list of int
    log_bound : float
        Logarithm of the bound behind the last block, which itself may overflow.

    Notes
    -----
    Among divisions with the same bound later layers get more. Cost O(modes sum_l n_l).
    """
    reaches = np.full(modes + 1, -math.inf)  # logarithm of the least bound, by modes spent
    chosen = []
    with np.errstate(divide="ignore"):
        for block, found in zip(blocks, errors, strict=True):
            best, choice = np.full(modes + 1, math.inf), np.zeros(modes + 1, int)
            for kept in range(min(modes, len(found) - 1) + 1):
                bound = _log_step(block, found[kept], reaches[: modes + 1 - kept], horizon)
                better = bound <= best[kept:]
                best[kept:][better], choice[kept:][better] = bound[better], kept
            reaches = best
            chosen.append(choice)
    kept, left = [], modes
    for choice in reversed(chosen):
        kept.append(int(choice[left]))
        left -= kept[-1]
    return kept[::-1], float(reaches[modes])


def _log_step(block: QuadraticBlock, error: float, before: np.ndarray, horizon: int) -> np.ndarray:
    """Return the logarithm of the bound behind a block; see `quadratic_chain_bound`."""
    a = block.energy / block.unit
    norm = math.sqrt(max((block.norm - error) * (block.norm + error), 0.0))  # of the best read-out
    steep = np.log(block.after) + math.log(horizon) / 2
    arrives = np.log(block.before / block.unit) + before
    grows = np.logaddexp(0.0, 2 * np.logaddexp(np.log(2 * a), arrives)) / 2
    own = np.log(error) + np.log(a) + math.log(math.hypot(1.0, a))
    passed = np.log(norm) + grows + arrives
    return np.logaddexp(np.log(block.skip) + before, steep + np.logaddexp(own, passed))
