"""How well outputs answer a task, and what training makes small."""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["answers", "class_loss", "label_loss", "macro_f1", "share_of_right"]


def class_loss(outputs: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the cross entropy, labels smoothed over all classes."""
    return functional.cross_entropy(outputs, labels, label_smoothing=smoothing)


def label_loss(outputs: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the binary cross entropy with logits; smoothed labels are drawn towards 1/2."""
    soft = labels * (1.0 - smoothing) + 0.5 * smoothing
    return functional.binary_cross_entropy_with_logits(outputs, soft)


def answers(outputs: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what was answered and what would have been right, as (n, classes) booleans.

    Notes
    -----
    A probability of at least 1/2 is a yes where a sequence can have several classes. Outputs that
    are not finite answer nothing where there is one class, and wrong everywhere where there are
    several: a diverged network never scores.
    """
    finite = torch.isfinite(outputs).all(-1, keepdim=True)
    if labels.ndim == outputs.ndim:
        right = labels > 0
        return torch.where(finite, outputs >= 0, ~right), right
    classes = torch.arange(outputs.shape[-1], device=outputs.device)
    return (outputs.argmax(-1, keepdim=True) == classes) & finite, labels.unsqueeze(-1) == classes


def share_of_right(given: torch.Tensor, right: torch.Tensor) -> float:
    """Return the percentage of sequences of which everything is right."""
    return 100.0 * float((given == right).all(-1).double().mean())


def macro_f1(given: torch.Tensor, right: torch.Tensor) -> float:
    """Return the mean over the classes of ``2 TP / (2 TP + FP + FN)``, in percent.

    Notes
    -----
    Classes that neither occur nor are answered have no F1 and are left out, as scikit-learn does.
    Without any such class everything that was to be found was found: 100.
    """
    both = (given & right).sum(0).double()
    either = given.sum(0).double() + right.sum(0).double()
    counted = either > 0
    if not bool(counted.any()):
        return 100.0
    return 100.0 * float((2.0 * both[counted] / either[counted]).mean())
