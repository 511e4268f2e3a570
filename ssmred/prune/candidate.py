"""One candidate of a rate: remove operators, repair, certify, fine-tune, store."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ssmred.certify.statistics import exceedance_upper_bound, order_statistic_bound
from ssmred.deploy.memory import parameter_bytes
from ssmred.errors import CheckpointError, DataError, RequestError, message
from ssmred.networks import save_network
from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.sensing import outputs
from ssmred.networks.writing import new_folder, write_text
from ssmred.prune.allocation import removals_by_layer
from ssmred.prune.latency_model import LatencyModel
from ssmred.prune.network import PrunableNetwork
from ssmred.prune.options import Options
from ssmred.prune.repair import repaired
from ssmred.prune.scoring import evaluate
from ssmred.prune.selection import costs_of
from ssmred.prune.training import train
from ssmred.tasks import Sample, Task

__all__ = ["Assignment", "restored"]

RECORD = "record.json"
BEFORE, AFTER = "before", "after"
COVERAGE = CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Assignment:
    """Hold what a candidate is made of; goes to another process as a whole.

    Attributes
    ----------
    parent, start : PrunableNetwork
        The network before any removal, and the best one of the rate before.
    task : Task
        Its validation part is the half that chooses.
    certification : Sample
        The other half: seen by nothing but the certificate.
    options : Options
    goal : (str, float)
        ``("rate", 0.3)``, or a share of the parent's ``"latency"`` or ``"bytes"``.
    seconds : LatencyModel or None
        Of the parent's layers.
    seed : int
    candidates : int
        How many there are, for the confidence of all their certificates together.
    folder : Path
        Where it is stored.
    """

    parent: PrunableNetwork
    start: PrunableNetwork
    task: Task
    certification: Sample
    options: Options
    goal: tuple[str, float]
    seconds: LatencyModel | None
    seed: int
    candidates: int
    folder: Path

    def __call__(self) -> dict[str, Any]:
        """Make the candidate, unless it is stored already, and return its record."""
        if not (self.folder / RECORD).exists():
            with new_folder(self.folder) as part:
                record = _make(self, part)
                write_text(part / RECORD, json.dumps(record, indent=1) + "\n")
        return json.loads((self.folder / RECORD).read_text(encoding="utf-8"))


def _make(job: Assignment, folder: Path) -> dict[str, Any]:
    start, device = time.perf_counter(), torch.device(job.options.training.accelerator)
    job.parent.model.to(device)
    network = removed(job, device)
    error = certificate(
        job.parent, network, job.certification, candidates=job.candidates, steps=job.task.length
    )
    before = evaluate(network.model, job.task.val, job.task)
    save_network(network.model, folder / BEFORE)
    network.model.train()
    history = train(
        network.model,
        job.task,
        job.options.training,
        seed=job.seed,
        teacher=copy.deepcopy(job.parent.model) if job.options.training.distillation else None,
    )
    after = evaluate(network.model.to(device), job.task.val, job.task)
    save_network(network.model.eval().cpu(), folder / AFTER)
    job.parent.model.cpu()
    return {
        "seed": job.seed,
        "val_before": before,
        "val_after": after,
        "error": error,
        "history": asdict(history),
        "banks": {name: bank._settings() for name, bank in network.banks.items()},
        "live": {name: bank.live.tolist() for name, bank in network.banks.items()},
        "seconds": time.perf_counter() - start,
    }


def removed(job: Assignment, device: torch.device) -> PrunableNetwork:
    """Return the network of the start with operators removed until the goal is reached.

    In steps: after each, what is left is scored again. At the end the mixings are fitted.
    """
    options, data = job.options, calibration_inputs(job.task, job.options).to(device)
    network, how = job.start.with_banks({}), options.how
    network.model.to(device).eval()
    total = sum(network.channels.values())
    last = job.goal[1] if job.goal[0] == "rate" else 1.0
    while not reached(job, network):
        gone = total - network.operators
        rate = last if options.step is None else min(last, gone / total + options.step)
        if round(rate * total) <= gone:
            break  # allocations with fixed numbers may hold a layer back
        costs = costs_of(
            network, options.selection, how, data, horizon=job.task.length, seed=job.seed,
            loss=_loss_on(job.task, options),
        )  # fmt: skip
        saved = None
        if options.allocation == "latency" and job.seconds is not None:
            saved = {name: job.seconds.saved_per_operator(name) for name in network.layers}
        goes = removals_by_layer(
            options.allocation, rate, costs.scores, network.live, seconds=saved
        )
        if not any(goes.values()):
            break
        network = how.applied(network, goes, costs.gains, costs.substitutes)
        network.model.eval()
    if job.goal[0] != "rate" and not reached(job, network):
        raise RequestError(
            message(
                "progressive",
                f"no removal brings {job.goal[0]} to {job.goal[1]:g} of the parent's",
                got=f"{_share(job, network):.2f} with every operator removed",
                cure="Ask for less; the mixings are not made smaller.",
            )
        )
    if not options.repair:
        return network
    return repaired(network, job.parent, data, silence=options.silence)


def reached(job: Assignment, network: PrunableNetwork) -> bool:
    """Tell whether a network is as small or as fast as the goal says."""
    kind, value = job.goal
    if kind == "rate":
        total = sum(network.channels.values())
        return total - network.operators >= round(value * total)
    return _share(job, network) <= value


def _share(job: Assignment, network: PrunableNetwork) -> float:
    if job.goal[0] == "bytes":
        return parameter_bytes(network.model) / parameter_bytes(job.parent.model)
    live = {name: len(found) for name, found in network.live.items()}
    return job.seconds.predict(live) / job.seconds.full


def certificate(
    parent: PrunableNetwork,
    network: PrunableNetwork,
    sample: Sample,
    *,
    candidates: int,
    steps: int,
) -> dict[str, Any]:
    """Return what the sample proves of the removal, before any fine-tuning.

    ``bound``: 95 % of all inputs have an output error below this share of the output scale, with
    confidence 95 % for all candidates together. ``decisions_changed``: at most this share of
    inputs gets another class. Exact for independent draws, order statistics and Clopper-Pearson.
    ``layers``: relative h2 errors over the length of the sequences, evaluated in floating point.
    """
    inputs = sample.inputs.to(next(parent.model.parameters()).device)
    wanted, got = outputs(parent.model, inputs), outputs(network.model, inputs)
    gaps = np.linalg.norm(got - wanted, axis=-1)
    scale = float(np.sqrt(np.mean(np.sum(wanted**2, axis=-1))))
    confidence = 1.0 - (1.0 - CONFIDENCE) / candidates
    changed = int((got.argmax(-1) != wanted.argmax(-1)).sum())
    quantile = order_statistic_bound(gaps, COVERAGE, confidence)
    return {
        "guarantee": "statistical",
        "bound": math.inf if quantile is None else quantile / scale,  # too few inputs: vacuous
        "coverage": COVERAGE,
        "confidence": CONFIDENCE,
        "inputs": len(sample),
        "largest": float(gaps.max()) / scale,
        "decisions_changed": exceedance_upper_bound(changed, len(gaps), confidence),
        "layers": layer_errors(parent, network, steps),
    }


def layer_errors(parent: PrunableNetwork, network: PrunableNetwork, steps: int) -> dict[str, float]:
    """Return the h2 error of every layer's filters relative to their h2 norm, FLOAT."""
    answer, before = {}, parent.banks
    for name, bank in network.banks.items():
        with torch.no_grad():
            full, left = before[name].kernel(steps).double(), bank.kernel(steps).double()
        answer[name] = float((left - full).norm() / full.norm().clamp_min(1e-300))
    return answer


def calibration_inputs(task: Task, options: Options) -> torch.Tensor:
    """Return the training inputs that removals are judged by, drawn by the run's seed."""
    return task.train.inputs[_calibration(task, options)]


def _calibration(task: Task, options: Options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(options.seed)
    return torch.randperm(len(task.train), generator=generator)[: options.calibration]


def _loss_on(task: Task, options: Options) -> Any:
    labels = task.train.labels[_calibration(task, options)]

    def loss(answers: torch.Tensor, place: slice) -> torch.Tensor:
        own = labels[place].to(answers.device)
        return task.loss(answers, own) * len(own)

    return loss


def restored(parent: PrunableNetwork, folder: Path, which: str = AFTER) -> PrunableNetwork:
    """Return a stored candidate as a network to go on with, of the parent's own class."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return with_state(parent, record["banks"], load_file(folder / which / "weights.safetensors"))


def with_state(
    parent: PrunableNetwork,
    settings: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, torch.Tensor],
) -> PrunableNetwork:
    """Return a copy of the parent with smaller banks and stored weights."""
    banks = {name: OperatorBank._blank(**described) for name, described in settings.items()}
    network = parent.with_banks(banks)
    own = set(network.model.state_dict())
    missing, _ = network.model.load_state_dict(
        {key: tensor for key, tensor in state.items() if key in own}, strict=False
    )
    if missing:
        raise CheckpointError(
            message(
                "progressive",
                "stored weights are not those of this network",
                got=f"missing {', '.join(sorted(missing)[:4])}",
                cure="Go on with the network that the run was started with.",
            )
        )
    network.model.eval()
    return network


def split_validation(task: Task, seed: int) -> tuple[Task, Sample]:
    """Return the task with half of its validation part, and the other half."""
    if len(task.val) < 2:
        raise DataError(
            message(
                "progressive",
                "the validation part is too small to be cut in two",
                expected="one half that chooses and one that certifies",
                got=f"{len(task.val)} sequence",
            )
        )
    order = torch.randperm(len(task.val), generator=torch.Generator().manual_seed(seed))
    watch, apart = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    chosen = Sample(task.val.inputs[watch], task.val.labels[watch])
    return replace(task, val=chosen), Sample(task.val.inputs[apart], task.val.labels[apart])
