"""The epochs of a training, in one process of those that share it."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ssmred.errors import DivergenceError, message
from ssmred.networks.layers import parameter_groups
from ssmred.prune.losses import mixed_loss
from ssmred.prune.material import APART, Material, placed
from ssmred.prune.progress import Callback, Report
from ssmred.prune.recipe import History, Training, rate_factor
from ssmred.prune.scoring import modes_kept, outputs_of
from ssmred.tasks import Sample, Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["REPORTED", "fit"]

REPORTED = 50
"""Steps between two reports; reading a loss waits for the device."""


def fit(
    fabric: Fabric,
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    teacher: nn.Module | torch.Tensor | None,
    report: Callback | None,
    name: str,
) -> History:
    """Train a network on the device of a launched Fabric and leave it with its best weights.

    Raises
    ------
    DivergenceError
        If the loss or a weight is not finite after an epoch; the best weights are put back.

    Notes
    -----
    Whatever ends the training, an interrupt too, the best weights are put back, and torch's own
    generators are as they were.
    """
    start = time.perf_counter()
    model.to(fabric.device)
    own_seed = seed + APART * fabric.global_rank
    with _seeded(own_seed, fabric.device), modes_kept(model), _best_weights(model) as best:
        epochs = _Epochs(fabric, model, task, training, seed, teacher, report, name)
        losses: list[float] = []
        held = [epochs.validate()]
        chosen = 0
        stopped = False
        for epoch in range(1, training.epochs + 1):
            losses.append(epochs.run(epoch))
            held.append(epochs.validate())
            epochs.tell(epoch, epochs.material.steps, losses[-1], held[-1].score)
            better = held[epoch].cost < held[chosen].cost
            if better or (epoch == 1 and not training.keep_start):
                chosen = epoch
                best.update(_copied(model))
            since = epoch - chosen
            stopped = training.patience is not None and since >= training.patience
            if stopped:
                break
    return History(
        losses=tuple(losses),
        scores=tuple(value.score for value in held),
        val_losses=tuple(value.loss for value in held if value.loss is not None),
        best=chosen,
        steps=epochs.done,
        samples=len(losses) * epochs.material.drawn,
        seconds=time.perf_counter() - start,
        stopped_early=stopped and len(losses) < training.epochs,
    )


class _Held(NamedTuple):
    """Hold what the validation part says; the loss only where it judges."""

    score: float
    loss: float | None

    @property
    def cost(self) -> float:
        """What is least for the best epoch."""
        return -self.score if self.loss is None else self.loss


class _Epochs:
    """Hold what all epochs of a training share."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        task: Task,
        training: Training,
        seed: int,
        teacher: nn.Module | torch.Tensor | None,
        report: Callback | None,
        name: str,
    ) -> None:
        self.fabric, self.model, self.task, self.training = fabric, model, task, training
        self.report = report if fabric.is_global_zero else None
        self.name = name
        self.material = Material(
            task,
            training,
            seed=seed,
            device=fabric.device,
            rank=fabric.global_rank,
            world=fabric.world_size,
            teacher=teacher,
        )
        self.validation = Sample(*placed([task.val.inputs, task.val.labels], fabric.device))
        self.wanted = None
        if training.judge == "loss" and isinstance(teacher, nn.Module):
            self.wanted = outputs_of(teacher, self.validation.inputs)
        groups = parameter_groups(model, training.rate, training.weight_decay)
        self.rates = [group["lr"] for group in groups]
        self.wrapped, self.optimiser = fabric.setup(model, torch.optim.AdamW(groups))
        self.projected = [m for m in model.modules() if callable(getattr(m, "project", None))]
        self.done = 0

    def run(self, epoch: int) -> float:
        """Do the steps of an epoch and return the mean loss."""
        self.model.train()
        losses = torch.zeros(self.material.steps, device=self.fabric.device)
        for step, batch in enumerate(self.material.epoch()):
            loss = self._loss(self.wrapped(batch.inputs), batch.labels, batch.teacher)
            if batch.weight != 1.0:
                loss = loss * batch.weight
            self._step(loss)
            losses[step] = loss.detach()
            if self.report is not None and step % REPORTED == REPORTED - 1:
                self.tell(epoch, step + 1, float(losses[: step + 1].mean()), None)
        mean = losses.mean()
        if self.fabric.world_size > 1:
            mean = self.fabric.all_reduce(mean, reduce_op="mean")
        self._check(epoch, mean)
        return float(mean)

    def _loss(
        self, outputs: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor | None
    ) -> torch.Tensor:
        return mixed_loss(
            outputs,
            labels,
            teacher,
            self.task,
            share=self.training.distillation,
            temperature=self.training.temperature,
            smoothing=self.training.smoothing,
        )

    def _step(self, loss: torch.Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.training.clip is not None:
            # not finite: found at the end of the epoch, because looking here waits for the device
            self.fabric.clip_gradients(
                self.wrapped,
                self.optimiser,
                max_norm=self.training.clip,
                error_if_nonfinite=False,
            )
        total = self.training.epochs * self.material.steps
        factor = rate_factor(self.done, total, self.training.warm_up)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate
        self.optimiser.step()
        self.done += 1
        with torch.no_grad():
            for module in self.projected:
                module.project()

    def _check(self, epoch: int, loss: torch.Tensor) -> None:
        """Refuse to go on from a loss or weights that are not finite."""
        finite = [torch.isfinite(p).all() for p in self.model.parameters()]
        if bool(torch.stack([torch.isfinite(loss), *finite]).all()):
            return
        raise DivergenceError(
            message(
                "train",
                f"the loss or a weight is not finite after epoch {epoch}",
                got=f"a mean loss of {float(loss)}",
                cure="Take a smaller rate or a longer warm-up; the best weights were put back.",
            )
        )

    def validate(self) -> _Held:
        """Return what the validation part says; the processes share the work."""
        count, world = len(self.validation), self.fabric.world_size
        if world == 1:
            outputs = outputs_of(self.model, self.validation.inputs)
        else:
            for buffer in self.model.buffers():  # running means are each process's own
                torch.distributed.broadcast(buffer, src=0)
            share = -(-count // world)
            rows = torch.arange(self.fabric.global_rank, share * world, world).clamp(max=count - 1)
            part = outputs_of(self.model, self.validation.inputs[rows])
            parts = [torch.empty_like(part) for _ in range(world)]
            torch.distributed.all_gather(parts, part.contiguous())
            outputs = torch.stack(parts, dim=1).flatten(0, 1)[:count]
        labels = self.validation.labels.to(outputs.device)
        judges = self.training.judge == "loss"
        loss = float(self._loss(outputs, labels, self.wanted)) if judges else None
        return _Held(self.task.score(outputs, labels), loss)

    def tell(self, epoch: int, step: int, loss: float, score: float | None) -> None:
        """Report, where somebody listens."""
        if self.report is not None:
            epochs, steps = self.training.epochs, self.material.steps
            self.report(Report(self.name, epoch, epochs, step, steps, loss, score))


@contextmanager
def _best_weights(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Give the state that a network is left with, whatever happens; at first, what it has."""
    best = _copied(model)
    try:
        yield best
    finally:
        model.load_state_dict(best)
        model.zero_grad(set_to_none=True)


def _copied(model: nn.Module) -> dict[str, Any]:
    return {
        key: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for key, value in model.state_dict().items()
    }


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators, the CPU's and the device's, and put them back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
