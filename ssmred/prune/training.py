"""One loop for training and fine-tuning, on CPUs, a GPU, or several processes: Lightning Fabric."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn import functional

from ssmred.checks import check_integer, check_positive
from ssmred.errors import DataError, MissingDependencyError, RequestError, message
from ssmred.networks.layers import parameter_groups
from ssmred.tasks import Sample, Task

__all__ = ["History", "Training", "evaluate", "train"]

FIRST_RATE = 0.01
"""Share of the learning rate that warm-up begins with, as in S4oP."""


@dataclass(frozen=True)
class Training:
    """Describe how a network is trained: AdamW, warm-up, cosine, clipping, early stopping.

    Parameters
    ----------
    epochs : int
        0 leaves the network as it is.
    rate : float
        Learning rate; marked parameters of state-space layers have their own largest one and no
        weight decay.
    batch : int
        Sequences per step, of all processes together.
    weight_decay : float
    warm_up : float
        Share of the steps in which the rate rises from 1 % to all; then it falls to 0 as a cosine.
    clip : float
        Largest norm of all gradients together.
    patience : int or None
        Epochs without a better validation score after which it stops; None never stops.
    samples : int or None
        Training sequences per epoch, drawn anew for each; None takes all.
    smoothing : float
        Share of the labels that is spread over all classes.
    distillation : float
        Share of the loss that is the divergence from a teacher's outputs.
    temperature : float
        What outputs are divided by for that.
    accelerator, devices, strategy, precision
        As of ``lightning.fabric.Fabric``: "cpu" or "cuda"; processes; "auto", "ddp", "ddp_spawn".

    Raises
    ------
    DataError, OrderError, RequestError
        If a number is out of range.
    """

    epochs: int = 3
    rate: float = 1e-4
    batch: int = 64
    weight_decay: float = 0.01
    warm_up: float = 0.1
    clip: float = 1.0
    patience: int | None = 3
    samples: int | None = None
    smoothing: float = 0.0
    distillation: float = 0.0
    temperature: float = 2.0
    accelerator: str = "cpu"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "32-true"

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_integer(self.epochs, "epochs", "Training")
        for name in ("batch", "devices"):
            check_integer(getattr(self, name), name, "Training", low=1)
        for name in ("patience", "samples"):
            if getattr(self, name) is not None:
                check_integer(getattr(self, name), name, "Training", low=1)
        for name in ("rate", "clip", "temperature"):
            check_positive(getattr(self, name), name, "Training")
        for name in ("weight_decay", "warm_up", "smoothing", "distillation"):
            check_positive(getattr(self, name), name, "Training", allow_zero=True)
        for name in ("warm_up", "smoothing", "distillation"):
            if getattr(self, name) > 1.0:
                raise RequestError(
                    message("Training", f"{name} is no share", expected="0 to 1",
                            got=f"{getattr(self, name)!r}")
                )  # fmt: skip

    def rate_at(self, step: int, steps: int) -> float:
        """Return the share of the learning rate at a step of so many.

        Examples
        --------
        >>> recipe = Training(warm_up=0.5)
        >>> [round(recipe.rate_at(k, 4), 3) for k in range(5)]
        [0.01, 0.505, 1.0, 0.5, 0.0]
        """
        warm = round(self.warm_up * steps)
        if step < warm:
            return FIRST_RATE + (1 - FIRST_RATE) * step / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


@dataclass(frozen=True)
class History:
    """Hold what happened in a training.

    Attributes
    ----------
    losses : tuple of float
        Mean training loss of every epoch.
    scores : tuple of float
        Validation score before the first and after every epoch, percent.
    best : int
        Epoch whose weights were kept; 0 is the start.
    stopped : bool
        Whether it stopped early.
    sequences : int
        Training sequences seen.
    seconds : float
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best: int
    stopped: bool
    sequences: int
    seconds: float


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int = 0,
    teacher: nn.Module | None = None,
    progress: bool = False,
    name: str = "",
) -> History:
    """Train a network in place; it ends with the weights of the best epoch by validation.

    Parameters
    ----------
    model : nn.Module
        Maps a batch of the task's inputs to outputs (n, classes). Modules with a method
        ``project()`` have it called after every step.
    task : Task
        Its training part is fitted, its validation part chooses the epoch; the test part stays
        sealed.
    training : Training
    seed : int
        Of batches, dropout and variations; the state of torch's generators is put back. On one CPU
        process the same seed gives the same weights bit for bit.
    teacher : nn.Module, optional
        For ``training.distillation``; run in eval mode.
    progress : bool
    name : str
        Shown with the bar.

    Returns
    -------
    History

    Raises
    ------
    DataError
        If the loss is not finite; the best weights so far are put back first.
    RequestError
        If distillation has no teacher.
    MissingDependencyError
        If Lightning Fabric is not installed.
    """
    if training.distillation and teacher is None:
        raise RequestError(message("train", "distillation has no teacher", cure="Pass teacher=."))
    fabric = _fabric(training)
    job = _Job(model, task, training, seed, teacher, progress, name)
    history, weights = fabric.launch(job)
    model.load_state_dict(weights)
    return history


def _fabric(training: Training) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingDependencyError(
            message(
                "train", "Lightning Fabric is not installed", cure="pip install 'ssmred[prune]'"
            )
        ) from error
    return Fabric(
        accelerator=training.accelerator,
        devices=training.devices,
        strategy=training.strategy,
        precision=training.precision,  # type: ignore[arg-type]
    )


class _Job:
    """Train within one process of Fabric's; all come to the same weights."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        training: Training,
        seed: int,
        teacher: nn.Module | None,
        progress: bool,
        name: str,
    ) -> None:
        self.model, self.task, self.training = model, task, training
        self.seed, self.teacher, self.progress, self.name = seed, teacher, progress, name

    def __call__(self, fabric: Any) -> tuple[History, dict[str, torch.Tensor]]:
        with (
            torch.random.fork_rng(devices=_devices(fabric)),
            _quiet_bar(
                self.progress and fabric.global_rank == 0, self.training.epochs, self.name
            ) as advance,
        ):
            torch.manual_seed(self.seed)
            history = self._run(fabric, advance)
        weights = {k: t.detach().cpu().clone() for k, t in self.model.state_dict().items()}
        self.model.to("cpu")
        return history, weights

    def _run(self, fabric: Any, advance: Callable[[float, float], None]) -> History:
        recipe, task, start = self.training, self.task, time.perf_counter()
        model = self.model.to(fabric.device)
        optimiser = torch.optim.AdamW(parameter_groups(model, recipe.rate, recipe.weight_decay))
        wrapped, optimiser = fabric.setup(model, optimiser)
        teacher = self.teacher.to(fabric.device).eval() if self.teacher is not None else None
        inputs, labels = (t.to(fabric.device) for t in (task.train.inputs, task.train.labels))
        count = min(recipe.samples or len(inputs), len(inputs))
        batch = min(recipe.batch, count)
        per_epoch = count // batch
        steps = recipe.epochs * per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: recipe.rate_at(step, steps)
        )
        order_of = torch.Generator().manual_seed(self.seed)
        kept = copy.deepcopy(model.state_dict())
        scores, losses, best = [evaluate(model, task.val, task)], [], 0
        projected = [m for m in model.modules() if callable(getattr(m, "project", None))]
        try:
            for epoch in range(1, recipe.epochs + 1):
                wrapped.train()
                total = torch.zeros((), device=fabric.device)
                order = torch.randperm(len(inputs), generator=order_of)[: per_epoch * batch]
                for rows in order.to(fabric.device).split(batch):
                    own = rows[fabric.global_rank :: fabric.world_size]
                    loss = self._loss(wrapped, teacher, inputs[own], labels[own])
                    optimiser.zero_grad(set_to_none=True)
                    fabric.backward(loss)
                    fabric.clip_gradients(wrapped, optimiser, max_norm=recipe.clip,
                                          error_if_nonfinite=False)  # fmt: skip
                    optimiser.step()
                    schedule.step()
                    for module in projected:
                        module.project()
                    total = total + loss.detach()
                losses.append(float(fabric.all_reduce(total)) / per_epoch)
                if not math.isfinite(losses[-1]):
                    raise DataError(
                        message("train", f"the loss of epoch {epoch} is {losses[-1]}",
                                cure="Lower the rate, or look for nan in the data.")
                    )  # fmt: skip
                scores.append(evaluate(model, task.val, task))
                advance(losses[-1], scores[-1])
                if scores[-1] > scores[best]:
                    best, kept = epoch, copy.deepcopy(model.state_dict())
                elif recipe.patience is not None and epoch - best >= recipe.patience:
                    break
        finally:
            model.load_state_dict(kept)
            model.eval()
        stopped = len(losses) < recipe.epochs
        seen = len(losses) * per_epoch * batch
        seconds = time.perf_counter() - start
        return History(tuple(losses), tuple(scores), best, stopped, seen, seconds)

    def _loss(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        x: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        recipe, task = self.training, self.task
        if task.augment is not None:
            x = task.augment(x)
        outputs = model(x)
        loss = task.loss(outputs, labels)
        if recipe.smoothing:
            spread = task.spread_loss(outputs)
            loss = (1 - recipe.smoothing) * loss + recipe.smoothing * spread
        if not recipe.distillation or teacher is None:
            return loss
        with torch.no_grad():
            wanted = teacher(x)
        apart = divergence(outputs, wanted, recipe.temperature, several=task.kind == "multi-label")
        return (1 - recipe.distillation) * loss + recipe.distillation * apart


def divergence(
    outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, *, several: bool
) -> torch.Tensor:
    """Return ``t^2 KL(p(wanted / t) || p(outputs / t))``, the mean over the batch.

    Of one distribution over the classes, or of one per label where there are `several`.
    """
    ours, theirs = outputs / temperature, wanted / temperature
    if several:  # the entropy of the teacher makes it 0 where both agree
        apart = functional.binary_cross_entropy_with_logits(ours, theirs.sigmoid())
        apart = apart - functional.binary_cross_entropy_with_logits(theirs, theirs.sigmoid())
    else:
        logs = (functional.log_softmax(ours, -1), functional.log_softmax(theirs, -1))
        apart = functional.kl_div(*logs, log_target=True, reduction="batchmean")
    return temperature**2 * apart


@torch.no_grad()
def evaluate(model: nn.Module, sample: Sample, task: Task, *, batch: int = 256) -> float:
    """Return the task's metric of a network, percent, in eval mode on the device it is on."""
    was = model.training
    model.eval()
    device = next(iter(model.parameters())).device
    outputs = [model(x.to(device)) for x in sample.inputs.split(batch)]
    model.train(was)
    return task.score(torch.cat(outputs), sample.labels.to(device))


def _devices(fabric: Any) -> list[int]:
    return [fabric.device.index or 0] if fabric.device.type == "cuda" else []


@contextmanager
def _quiet_bar(shown: bool, epochs: int, name: str) -> Iterator[Callable[[float, float], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}, validation {task.fields[score]:.2f} %"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True)
    with bar:
        job = bar.add_task(name or "train", total=epochs, loss=math.nan, score=math.nan)
        yield lambda loss, score: bar.update(job, advance=1, loss=loss, score=score)
