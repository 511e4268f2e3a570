"""The training data on the device, drawn batch by batch, each process its slice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ssmred.prune.recipe import Training
from ssmred.prune.scoring import BATCH, in_eval_mode, outputs_of
from ssmred.tasks import Task

__all__ = ["APART", "Batch", "Material", "placed"]

ROOM = 0.5
"""Share of the free memory of a GPU that training data may take; the rest is for the training."""

APART = 1_000_003
"""Between the seeds of two processes, which draw different channels to drop."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Hold one process's slice of a batch.

    Attributes
    ----------
    inputs, labels : torch.Tensor
    teacher : torch.Tensor or None
        The teacher's outputs.
    weight : float
        Such that the mean over the processes of ``weight loss`` is the loss of the whole batch.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    teacher: torch.Tensor | None
    weight: float


class Material:
    """Draw the batches of a training.

    Parameters
    ----------
    task : Task
    training : Training
    seed : int
    device : torch.device
    rank, world : int
        Number of this process, and of all.
    teacher : torch.nn.Module or torch.Tensor, optional
        A network on `device`, or its outputs for all training sequences.

    Notes
    -----
    The data move to the device once, if they take at most half of its free memory. Order and draws
    are those of a generator on the CPU, the same on every device and for every number of processes.
    """

    def __init__(
        self,
        task: Task,
        training: Training,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        teacher: nn.Module | torch.Tensor | None = None,
    ) -> None:
        self.device, self.rank, self.world = device, rank, world
        total = len(task.train)
        self.drawn = total if training.samples is None else min(training.samples, total)
        self.steps = math.ceil(self.drawn / training.batch)
        self.order = torch.Generator().manual_seed(seed)
        self.augment = task.augment
        self.changes = torch.Generator(device).manual_seed(seed + APART * rank)
        self.inputs, self.labels = placed([task.train.inputs, task.train.labels], device)
        self.teacher = self._outputs(teacher, total, training.epochs)

    def epoch(self) -> Iterator[Batch]:
        """Return the batches of the next epoch."""
        rows = torch.randperm(len(self.labels), generator=self.order)[: self.drawn]
        rows = rows.to(self.inputs.device)
        for whole in rows.tensor_split(self.steps):
            index = whole.tensor_split(self.world)[self.rank] if self.world > 1 else whole
            inputs = self.inputs[index].to(self.device, non_blocking=True)
            if self.augment is not None:
                inputs = self.augment(inputs, self.changes)
            yield Batch(
                inputs,
                self.labels[index].to(self.device, non_blocking=True),
                self._taught(inputs, index),
                len(index) * self.world / len(whole),
            )

    def _outputs(
        self, teacher: nn.Module | torch.Tensor | None, total: int, epochs: int
    ) -> nn.Module | torch.Tensor | None:
        """Return the teacher, or its outputs where computing them once is less work."""
        if isinstance(teacher, torch.Tensor):
            return teacher.detach().to(self.inputs.device)
        if teacher is None or self.augment is not None or epochs * self.drawn < total:
            return teacher
        return outputs_of(teacher, self.inputs, batch=BATCH).to(self.inputs.device)

    def _taught(self, inputs: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
        if self.teacher is None:
            return None
        if isinstance(self.teacher, torch.Tensor):
            return self.teacher[index].to(self.device, non_blocking=True)
        with in_eval_mode(self.teacher), torch.no_grad():
            return self.teacher(inputs)


def placed(tensors: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return tensors on the device, or in memory it can read from where they are too large."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    fits = size <= ROOM * torch.cuda.mem_get_info(device)[0]
    return [tensor.to(device) if fits else tensor.cpu() for tensor in tensors]
