"""How a network is trained, and the record of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

from ssmred.checks import check_integer, check_positive
from ssmred.errors import RequestError, message

__all__ = ["History", "Training", "rate_factor"]

START = 0.01
"""Share of the learning rate that the warm-up starts from."""

CHOICES = {
    "accelerator": ("cpu", "cuda"),
    "strategy": ("auto", "ddp", "ddp_spawn", "ddp_fork"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
    "judge": ("score", "loss"),
}


@dataclass(frozen=True)
class Training:
    """Hold a recipe; ``dataclasses.asdict`` of it is ready for JSON.

    Parameters
    ----------
    epochs : int
        0 leaves a network as it is.
    rate : float
        Largest learning rate of AdamW; parameters with a mark keep below their own
        (`ssmred.networks.layers.parameter_groups`).
    batch : int
        Sequences per step, of all processes together. An epoch has ``ceil(n / batch)`` steps of
        sizes that differ by one at most, so that no sequence is left out.
    weight_decay : float
        Of parameters without a mark; state-space parameters have none.
    warm_up : float
        Share of the steps in which the rate rises; see `rate_factor`.
    clip : float or None
        Largest norm of a gradient.
    patience : int or None
        Epochs without a better validation score after which training stops; None never stops.
    samples : int or None
        Training sequences per epoch, drawn anew for every epoch; None takes all.
    smoothing : float
        Label smoothing.
    distillation : float
        Share of the loss that is the divergence from a teacher's outputs.
    temperature : float
        Of that divergence.
    keep_start : bool
        Whether the weights from before training can be the best ones, as those of epoch 0.
    judge : {"score", "loss"}
        What on the validation part says which epoch is the best: the score, or what training makes
        small, the divergence from a teacher with it. The loss tells networks apart that give few
        validation sequences the same answers.
    accelerator : {"cpu", "cuda"}
    devices : int
        Processes, one per device.
    strategy : {"auto", "ddp", "ddp_spawn", "ddp_fork"}
        How several processes start: "ddp" runs the script again in each, or joins those that
        torchrun has started; the others run the training alone. "auto" is "ddp_spawn" where there
        are several devices.
    precision : {"32-true", "bf16-mixed", "16-mixed"}

    Raises
    ------
    RequestError, OrderError, DataError
        If a value cannot be used.

    Examples
    --------
    >>> from dataclasses import asdict
    >>> Training(**asdict(Training(epochs=5, rate=1e-3))).epochs
    5
    """

    epochs: int = 3
    rate: float = 1e-4
    batch: int = 64
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip: float | None = 1.0
    patience: int | None = 3
    samples: int | None = None
    smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    keep_start: bool = True
    judge: str = "score"
    accelerator: str = "cpu"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        """Check every value."""
        check_integer(self.epochs, "epochs", "Training")
        check_integer(self.devices, "devices", "Training", low=1)
        check_integer(self.batch, "batch", "Training", low=self.devices)  # one each, at least
        for name in ("patience", "samples"):
            if getattr(self, name) is not None:
                check_integer(getattr(self, name), name, "Training", low=1)
        for name in ("rate", "temperature"):
            check_positive(getattr(self, name), name, "Training")
        check_positive(self.weight_decay, "weight_decay", "Training", allow_zero=True)
        if self.clip is not None:
            check_positive(self.clip, "clip", "Training")
        for name in ("warm_up", "smoothing", "distillation"):
            _check_share(getattr(self, name), name)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RequestError(
                    message(
                        "Training",
                        f"no {name} {getattr(self, name)!r}",
                        expected=f"one of {', '.join(map(repr, choices))}",
                    )
                )
        if self.devices > 1 and self.samples is not None:
            check_integer(self.samples, "samples", "Training", low=self.devices)


@dataclass(frozen=True)
class History:
    """Hold what happened in a training; ``dataclasses.asdict`` of it is ready for JSON.

    Attributes
    ----------
    losses : tuple of float
        Mean training loss of every epoch.
    scores : tuple of float
        Validation score in percent: before training, then after every epoch.
    val_losses : tuple of float
        Loss on the validation part at the same times; empty where the score judges.
    best : int
        Epoch whose weights were kept; 0 is the start.
    steps, samples : int
        Of the optimiser; training sequences seen.
    seconds : float
    stopped_early : bool
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    val_losses: tuple[float, ...]
    best: int
    steps: int
    samples: int
    seconds: float
    stopped_early: bool

    @property
    def best_score(self) -> float:
        """Validation score of the weights that were kept."""
        return self.scores[self.best]


def rate_factor(step: int, steps: int, warm_up: float) -> float:
    """Return the share of the learning rate that a step is done with.

    ``0.01 + 0.99 k / w`` for the first ``w = round(warm_up steps)`` steps k = 0, 1, ..., then
    ``(1 + cos(pi (k - w) / (steps - w))) / 2``, which ends at 0 after the last step.

    Parameters
    ----------
    step, steps : int
    warm_up : float

    Examples
    --------
    >>> [round(rate_factor(k, 6, 1 / 3), 3) for k in range(7)]
    [0.01, 0.505, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    rising = round(warm_up * steps)
    if step < rising:
        return START + (1.0 - START) * step / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def _check_share(value: Any, name: str) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0.0 <= float(value) <= 1.0:
        raise RequestError(
            message(
                "Training", f"{name} is no share", expected="a number in [0, 1]", got=f"{value!r}"
            )
        )
