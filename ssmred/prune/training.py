"""Train a network in place: the same code on a CPU, on a GPU and in several processes."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ssmred.checks import check_integer
from ssmred.errors import (
    DataError,
    DivergenceError,
    MissingDependencyError,
    RequestError,
    ShapeError,
    message,
)
from ssmred.prune.fitting import fit
from ssmred.prune.progress import Callback, reports
from ssmred.prune.recipe import History, Training
from ssmred.prune.scoring import device_of, evaluate
from ssmred.tasks import Task

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["History", "Training", "evaluate", "train"]


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    *,
    seed: int,
    teacher: nn.Module | torch.Tensor | None = None,
    progress: bool | Callback = False,
    name: str = "",
) -> History:
    """Train a network in place and leave it with the weights of its best epoch.

    Best is the highest validation score, or the least validation loss, as ``training.judge`` says,
    the earliest epoch of those that share it; the start counts as epoch 0. The test part is never
    opened.

    Parameters
    ----------
    model : torch.nn.Module
        Maps a batch of ``task.train.inputs`` to outputs (n, classes). Modules with a method
        ``project()`` get it called after every step. Stays on its device and in its modes.
    task : Task
    training : Training
        The recipe.
    seed : int
        Of the order of the sequences, dropout and augmentation. On the CPU the same seed gives the
        same weights bit for bit at the same number of threads, whatever ran before.
    teacher : torch.nn.Module or torch.Tensor, (n, classes), optional
        A network whose outputs count as ``training.distillation`` says, or its outputs for all
        training sequences. Used in eval mode.
    progress : bool or callable
        A bar on stderr, or a function that takes every `ssmred.prune.progress.Report`.
    name : str
        For the bar and the reports.

    Returns
    -------
    History

    Raises
    ------
    MissingDependencyError
        Without lightning-fabric.
    RequestError, DataError, ShapeError
        If nothing can be trained, the teacher is missing, does not fit or is the network itself, or
        there are no such devices or fewer sequences than processes.
    DivergenceError
        If the loss or a weight is not finite after an epoch; the best weights are put back.

    Notes
    -----
    AdamW; rates and weight decay per parameter as `ssmred.networks.layers.parameter_groups` has
    them. Whatever ends the training early, an interrupt too, the best weights are put back.

    In several processes every process takes its slice of each batch and gradients are averaged, so
    the result is that of one process at the same batch, but for rounding, for batch norm, which
    normalises each slice alone, and for dropout. ``"ddp_spawn"`` starts a new Python in each one:
    scripts need ``if __name__ == "__main__"``, and task, network and teacher must be picklable.
    """
    check_integer(seed, "seed", "train")
    _check(model, task, training, teacher)
    if training.distillation == 0.0:
        teacher = None
    if training.epochs == 0:
        start = time.perf_counter()
        score = evaluate(model, task.val, task, device=training.accelerator)
        return History((), (score,), (), 0, 0, 0, time.perf_counter() - start, False)
    fabric = _fabric(training)
    job = _Job(model, task, training, seed, teacher, progress, name)
    homes = [(m, device_of(m)) for m in (model, teacher) if isinstance(m, nn.Module)]
    try:
        if _starts_processes(training):
            return _in_processes(fabric, job)
        return fabric.launch(partial(_trained, job=job))
    finally:
        for module, home in homes:
            module.to(home)


@dataclass
class _Job:
    """Hold the arguments of a training on their way into another process."""

    model: nn.Module
    task: Task
    training: Training
    seed: int
    teacher: nn.Module | torch.Tensor | None
    progress: bool | Callback
    name: str


def _trained(fabric: Fabric, *, job: _Job) -> History:
    if isinstance(job.teacher, nn.Module):
        job.teacher.to(fabric.device)
    with reports(job.progress if fabric.is_global_zero else False) as report:
        return fit(
            fabric,
            job.model,
            job.task,
            job.training,
            seed=job.seed,
            teacher=job.teacher,
            report=report,
            name=job.name,
        )


def _in_processes(fabric: Fabric, job: _Job) -> History:
    """Train in processes that end with the training, and take over what the first one has."""
    marks = {
        key: parameter._optim
        for key, parameter in job.model.named_parameters()
        if hasattr(parameter, "_optim")
    }
    with tempfile.TemporaryDirectory(prefix="ssmred-") as folder:
        weights = Path(folder) / "best.pt"
        answer = fabric.launch(partial(_in_child, job=job, marks=marks, weights=weights))
        job.model.load_state_dict(torch.load(weights, weights_only=True))
    if isinstance(answer, str):
        raise DivergenceError(answer)
    return History(**answer)


def _in_child(
    fabric: Fabric, *, job: _Job, marks: dict[str, Any], weights: Path
) -> dict[str, Any] | str:
    """Train in one of several processes; return the history, or why it ended without one."""
    for key, parameter in job.model.named_parameters():
        parameter.data = parameter.data.clone()  # arrives in memory that all processes share
        if key in marks:
            parameter._optim = marks[key]  # lost on the way
    for buffer in job.model.buffers():
        buffer.data = buffer.data.clone()
    answer: dict[str, Any] | str
    try:
        answer = asdict(_trained(fabric, job=job))
    except DivergenceError as error:
        answer = str(error)
    if fabric.is_global_zero:
        torch.save({key: value.cpu() for key, value in job.model.state_dict().items()}, weights)
    return answer


def _starts_processes(training: Training) -> bool:
    return _strategy(training) in ("ddp_spawn", "ddp_fork")


def _strategy(training: Training) -> str:
    if training.strategy != "auto" or training.devices == 1:
        return training.strategy
    return "ddp" if "LOCAL_RANK" in os.environ else "ddp_spawn"  # torchrun has started us already


def _fabric(training: Training) -> Fabric:
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise MissingDependencyError(
            message(
                "train", "lightning-fabric is not installed", cure="pip install 'ssmred[prune]'"
            )
        ) from error
    return Fabric(
        accelerator=training.accelerator,
        devices=training.devices,
        strategy=_strategy(training),
        precision=training.precision,
    )


def _check(
    model: nn.Module, task: Task, training: Training, teacher: nn.Module | torch.Tensor | None
) -> None:
    """Refuse what cannot work before any process starts."""
    if training.epochs and not any(p.requires_grad for p in model.parameters()):
        raise RequestError(
            message(
                "train",
                "the network has no parameter that can be trained",
                cure="Set requires_grad of some.",
            )
        )
    if training.accelerator == "cuda" and torch.cuda.device_count() < training.devices:
        raise RequestError(
            message(
                "train",
                "there are not as many GPUs",
                expected=f"at least {training.devices}",
                got=f"{torch.cuda.device_count()}",
                cure="Take accelerator='cpu', or fewer devices.",
            )
        )
    if len(task.train) < training.devices:
        raise DataError(
            message(
                "train",
                "there are fewer training sequences than processes",
                expected=f"at least {training.devices}",
                got=f"{len(task.train)}",
            )
        )
    if training.distillation > 0.0:
        _check_teacher(teacher, model, task, training)


def _check_teacher(teacher: Any, model: nn.Module, task: Task, training: Training) -> None:
    if teacher is None:
        raise RequestError(
            message("train", "there is no teacher to distil from", cure="Pass teacher=network.")
        )
    if teacher is model:
        raise RequestError(
            message(
                "train", "the teacher is the network itself", cure="Pass a copy: copy.deepcopy."
            )
        )
    if not isinstance(teacher, torch.Tensor):
        return
    if training.judge == "loss":
        raise RequestError(
            message(
                "train",
                "the teacher's outputs on the validation part are not known, and the loss judges",
                expected="the teacher itself, or judge='score'",
            )
        )
    if task.augment is not None:
        raise RequestError(
            message(
                "train",
                "the teacher's outputs are not those for augmented sequences",
                cure="Pass the teacher itself.",
            )
        )
    wanted = (len(task.train), task.classes)
    if tuple(teacher.shape) != wanted:
        raise ShapeError(
            message(
                "train",
                "the teacher's outputs do not fit the training sequences",
                expected=f"{wanted}",
                got=f"{tuple(teacher.shape)}",
            )
        )
