"""Bound the output error of a chain of layers with quadratic outputs by the layers' h2 errors.

The bound of ``theory/quadratic-chain.md``: it tells which layers matter, and is what
``method="lqo-bound"`` makes small. Certificates do not rest on it: the rules of ``network_bound``
are sharper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmred.certify.values import times, up
from ssmred.checks import check_horizon
from ssmred.errors import DataError, ShapeError, message

__all__ = ["QuadraticBlock", "QuadraticChainBound", "quadratic_chain_bound"]

OPERATIONS = 12
"""Roundings of one step of the chain."""


@dataclass(frozen=True)
class QuadraticBlock:
    """Hold what is known of one block ``z = g(z', S(N(z')))`` of the original network.

    Parameters
    ----------
    name : str
        Name of the layer S.
    before : float
        Lipschitz constant of N, in the 2-norm over time and features.
    after, skip : float
        Lipschitz constants of g in what the layer puts out, and in what passes it by (1 for a
        residual connection, 0 where there is none).
    energy : float
        ``e``, the largest ``||N(z')||_2`` of the inputs that the bound is about.
    norm : float
        ``||S||``, the h2 norm of the layer with quadratic outputs, for inputs in units of `unit`.
    unit : float
        Unit u of the layer's input: kernels are those of ``S(u v)``.
    """

    name: str
    before: float
    after: float
    skip: float
    energy: float
    norm: float
    unit: float = 1.0

    def __post_init__(self) -> None:
        for key in ("before", "after", "skip", "energy", "norm"):
            if not getattr(self, key) >= 0.0:
                raise DataError(
                    message(
                        "QuadraticBlock",
                        f"{key} of {self.name!r} is no bound",
                        expected="a number >= 0, or inf where nothing is known",
                        got=f"{getattr(self, key)!r}",
                    )
                )
        if not 0.0 < self.unit < math.inf:
            raise DataError(
                message(
                    "QuadraticBlock",
                    f"unit of {self.name!r} is no unit",
                    expected="a positive number",
                    got=f"{self.unit!r}",
                )
            )


@dataclass(frozen=True)
class QuadraticChainBound:
    """Hold the bound, and what every layer has to do with it.

    Parameters
    ----------
    bound : float
        ``||f(u) - f^(u)||_2 <= bound = sum_l weights_l errors_l``; inf where the chain diverges.
    errors : tuple of float
        The layers' h2 errors, front to back.
    weights : tuple of float
        Output error per unit of h2 error, through the reduced layers behind.
    after_blocks : tuple of float
        Bounds on the error behind every block, 2-norm over time and features.
    """

    bound: float
    errors: tuple[float, ...]
    weights: tuple[float, ...]
    after_blocks: tuple[float, ...]

    @property
    def contributions(self) -> tuple[float, ...]:
        """``weights_l errors_l``, front to back; they add up to the bound."""
        pairs = zip(self.weights, self.errors, strict=True)
        return tuple(float(times(weight, error)) for weight, error in pairs)


def quadratic_chain_bound(
    blocks: Sequence[QuadraticBlock],
    errors: Sequence[float],
    reduced_norms: Sequence[float],
    horizon: int | None,
    *,
    last: float = 1.0,
) -> QuadraticChainBound:
    """Bound the output error of a chain whose layers are replaced by others.

    With ``phi(a) = a sqrt(1 + a^2)``, ``a = energy / unit`` and ``d = before e / unit``, where e is
    the error behind the block before, the error behind a block is at most

    ``skip e + after sqrt(T) (||S - S^|| phi(a) + ||S^|| sqrt(1 + (2 a + d)^2) d)``.

    Parameters
    ----------
    blocks : sequence of QuadraticBlock
        Front to back.
    errors, reduced_norms : sequence of float
        h2 norms of ``S_l - S^_l`` and of ``S^_l`` over the horizon, in the units of the blocks.
    horizon : int or None
        Length T of the inputs. For None the bound is infinite unless no layer has an error: the
        2-norm over all times of a quadratic output is not bounded by its h2 norm.
    last : float
        Lipschitz constant of what comes after the last block.

    Returns
    -------
    QuadraticChainBound

    Raises
    ------
    ShapeError
        If the numbers of blocks, errors and norms differ.
    DataError
        If an error or norm is negative or nan.

    Notes
    -----
    Certificate level FLOAT, rounded up. Theory: ``theory/quadratic-chain.md``, 1. The published
    form of the bound is that of arXiv 2510.14542 [SakamotoSato2025Bound].

    Examples
    --------
    >>> block = QuadraticBlock("first", before=1.0, after=1.0, skip=1.0, energy=1.0, norm=2.0)
    >>> one = quadratic_chain_bound([block], [0.1], [1.9], horizon=4)
    >>> round(one.bound, 6) == round(0.1 * 2 * 2**0.5, 6), one.weights[0] > 2.8
    (True, True)
    """
    where = "quadratic_chain_bound"
    length = check_horizon(horizon, where)
    if not len(blocks) == len(errors) == len(reduced_norms):
        raise ShapeError(
            message(
                where,
                "every block needs an error and a norm",
                expected=f"{len(blocks)} of each",
                got=f"{len(errors)} errors, {len(reduced_norms)} norms",
            )
        )
    for name, values in (("errors", errors), ("reduced_norms", reduced_norms)):
        if not all(value >= 0.0 for value in values):
            raise DataError(
                message(where, f"{name} are no norms", expected="numbers >= 0", got=f"{values!r}")
            )
    root = math.inf if length is None else math.sqrt(length)
    after_blocks: list[float] = []
    own, passed = [], []  # gains of the layer's error, and of the error that reaches the block
    reaches = 0.0
    with np.errstate(over="ignore"):
        for block, error, norm in zip(blocks, errors, reduced_norms, strict=True):
            a, d = block.energy / block.unit, float(times(block.before, reaches)) / block.unit
            steep = float(times(times(block.after, root), block.before / block.unit))
            gain = float(times(norm, np.hypot(1.0, up(2.0 * a + d, OPERATIONS))))
            own.append(float(times(times(block.after, root), times(a, np.hypot(1.0, up(a))))))
            passed.append(float(up(block.skip + times(steep, gain), OPERATIONS)))
            reaches = float(up(times(passed[-1], reaches) + times(own[-1], error), OPERATIONS))
            after_blocks.append(reaches)
        weights, behind = [], float(last)
        for through, gain in zip(reversed(passed), reversed(own), strict=True):
            weights.append(float(times(gain, behind)))
            behind = float(times(through, behind))
        bound = float(times(last, reaches))
    return QuadraticChainBound(
        bound, tuple(float(e) for e in errors), tuple(reversed(weights)), tuple(after_blocks)
    )
