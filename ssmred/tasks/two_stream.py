"""Networks that compare two sequences, as retrieval asks for."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.checks import check_integer
from ssmred.errors import ShapeError, message

__all__ = ["TwoStream"]


class TwoStream(nn.Module):
    """Compare two sequences: one trunk for both, a head on ``[u, v, u v, u - v]``.

    Parameters
    ----------
    trunk : torch.nn.Module
        Maps sequences (n, T[, inputs]) to features (n, features).
    features, classes : int
    hidden : int, optional
        Width of the head; by default `features`.

    Notes
    -----
    Both sequences of all pairs go through the trunk as one batch, so every layer runs once per
    forward pass. Source of the head: Tay et al., arXiv 2011.04006, and the S4 repository.

    Examples
    --------
    >>> from ssmred.networks.deep import DeepSSM
    >>> trunk = DeepSSM(20, 8, encoder="embedding", channels=8, states=8, layers=1)
    >>> TwoStream(trunk, 8, 2)(torch.zeros(3, 2, 50, dtype=torch.int64)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self, trunk: nn.Module, features: int, classes: int, *, hidden: int | None = None
    ) -> None:
        super().__init__()
        check_integer(features, "features", "TwoStream", low=1)
        check_integer(classes, "classes", "TwoStream", low=2)
        width = features if hidden is None else check_integer(hidden, "hidden", "TwoStream", low=1)
        self.trunk = trunk
        self.features = features
        self.head = nn.Sequential(
            nn.Linear(4 * features, width), nn.ReLU(), nn.Linear(width, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map pairs (n, 2, T[, inputs]) to outputs (n, classes).

        Raises
        ------
        ShapeError
            If inputs are no pairs, or the trunk's outputs no features.
        """
        if x.ndim < 3 or x.shape[1] != 2:
            raise ShapeError(
                message(
                    "TwoStream",
                    "inputs are no pairs of sequences",
                    expected="(n, 2, T) or (n, 2, T, inputs)",
                    got=f"{tuple(x.shape)}",
                )
            )
        features = self.trunk(x.flatten(0, 1))
        if tuple(features.shape) != (2 * len(x), self.features):
            raise ShapeError(
                message(
                    "TwoStream",
                    "the trunk gives no features",
                    expected=f"({2 * len(x)}, {self.features})",
                    got=f"{tuple(features.shape)}",
                )
            )
        u, v = features.unflatten(0, (-1, 2)).unbind(1)
        return self.head(torch.cat([u, v, u * v, u - v], dim=-1))
