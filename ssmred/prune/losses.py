"""What fine-tuning makes small: the task's loss, mixed with the divergence from a teacher."""

from __future__ import annotations

import torch
from torch.nn import functional

from ssmred.tasks import Task

__all__ = ["divergence", "mixed_loss"]


def divergence(
    outputs: torch.Tensor, teacher: torch.Tensor, temperature: float, *, several: bool
) -> torch.Tensor:
    """Return how far outputs are from a teacher's, times the squared temperature.

    ``tau^2 KL(softmax(teacher / tau) || softmax(outputs / tau))``, mean over the sequences; where a
    sequence can have several classes ``tau^2`` times the binary cross entropy of
    ``sigmoid(outputs / tau)`` against ``sigmoid(teacher / tau)``, mean over sequences and classes.

    Parameters
    ----------
    outputs, teacher : torch.Tensor, (n, classes)
    temperature : float
        tau; large ones let the small outputs count too.
    several : bool

    Notes
    -----
    Source: Hinton et al., arXiv 1503.02531; tau^2 keeps the gradients' size.
    """
    own, wanted = outputs / temperature, teacher / temperature
    if several:
        value = functional.binary_cross_entropy_with_logits(own, wanted.sigmoid())
    else:
        value = functional.kl_div(
            own.log_softmax(-1), wanted.log_softmax(-1), reduction="batchmean", log_target=True
        )
    return temperature**2 * value


def mixed_loss(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    teacher: torch.Tensor | None,
    task: Task,
    *,
    share: float,
    temperature: float,
    smoothing: float,
) -> torch.Tensor:
    """Return ``(1 - share) loss + share divergence``; the loss alone without a teacher."""
    loss = task.loss(outputs, labels, smoothing=smoothing)
    if teacher is None:
        return loss
    several = task.kind == "multi-label"
    apart = divergence(outputs, teacher, temperature, several=several)
    return (1.0 - share) * loss + share * apart
