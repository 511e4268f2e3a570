"""Train a network of the zoo: one of four families on one of two tasks.

Fashion-MNIST (14 x 14 pixels, 196 steps) is read from the four original IDX files (Debian package
``dataset-fashion-mnist``), ListOps is generated (`ssmred.tasks.listops`). Writes the weights
(safetensors) and a record of the run (json) into the package's ``zoo/data`` folder. Held-out data
are there to watch and choose nothing; the test data are touched once, at the end.

    python benchmarks/train_zoo.py --family s4d --task fashion-mnist --epochs 14
    python benchmarks/train_zoo.py --family s4d --task fashion-mnist --variant gelu --epochs 4
    python benchmarks/train_zoo.py --family s5 --task listops --epochs 20
    python benchmarks/train_zoo.py --family lru --task listops --smoke
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from zoo_recipes import (
    FAMILIES,
    VARIANTS,
    ZOO,
    Parts,
    fashion_mnist,
    keep_fashion_mnist,
    listops,
    recipe,
)

from ssmred.networks.deep import DeepSSM
from ssmred.networks.layers import parameter_groups
from ssmred.tasks.fashion_mnist import SOURCE, mirrored

SMOKE = {"train": 2_000, "held_out": 500, "test": 500}
"""Samples of a smoke run, one epoch of them."""

LABEL_SMOOTHING = 0.05
REPORTED = 20
"""Steps between two updates of the progress bar."""


@torch.no_grad()
def accuracy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of right classes in percent."""
    model.eval()
    device = next(model.parameters()).device
    right = sum(
        int((model(x.to(device)).argmax(-1) == y.to(device)).sum())
        for x, y in zip(inputs.split(500), labels.split(500), strict=True)
    )
    return 100.0 * right / len(labels)


def train(model: nn.Module, data: Parts, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train a network in place and return the history."""
    train_x, train_y = (tensor.to(options.device) for tensor in data.train)
    optimiser = torch.optim.AdamW(parameter_groups(model, options.rate))
    per_epoch = len(train_x) // options.batch
    steps = options.epochs * per_epoch
    warm_up = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda k: min((k + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * k / steps))),
    )
    history, start = [], time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for epoch in range(options.epochs):
            model.train()
            bar = progress.add_task(f"epoch {epoch + 1}", total=per_epoch, loss=math.nan)
            losses = torch.zeros(per_epoch, device=options.device)
            order = torch.randperm(len(train_x))[: per_epoch * options.batch].to(options.device)
            for step, index in enumerate(order.split(options.batch)):
                x = train_x[index]
                if options.task == "fashion-mnist":
                    x = mirrored(x)
                loss = functional.cross_entropy(
                    model(x), train_y[index], label_smoothing=LABEL_SMOOTHING
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                losses[step] = loss.detach()
                if step % REPORTED == REPORTED - 1:  # reading a loss waits for the device
                    progress.update(bar, completed=step + 1, loss=float(losses[step]))
            progress.update(bar, completed=per_epoch, loss=float(losses.mean()))
            history.append(
                {
                    "epoch": epoch + 1,
                    "loss": float(losses.mean()),
                    "held_out_accuracy": accuracy(model, *data.held_out),
                }
            )
            if options.smoke:
                tenth = max(per_epoch // 10, 1)
                history[-1]["first_loss"] = float(losses[:tenth].mean())
                history[-1]["last_loss"] = float(losses[-tenth:].mean())
            seconds = {"seconds": round(time.perf_counter() - start)}
            print(json.dumps(history[-1] | seconds), flush=True)
    return history


def shortened(data: Parts) -> Parts:
    """Return the beginnings of all parts."""
    cut = {
        name: tuple(tensor[: SMOKE[name]] for tensor in getattr(data, name))
        for name in ("train", "held_out")
    }
    return Parts(
        cut["train"], cut["held_out"], lambda: tuple(t[: SMOKE["test"]] for t in data.test())
    )


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Train one network, write its files and return the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--task", choices=("fashion-mnist", "listops"), required=True)
    parser.add_argument("--variant", choices=sorted({v for *_, v in VARIANTS}), default="")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, help="instead of the package's zoo/data")
    parser.add_argument("--source", type=Path, default=SOURCE, help="of the Fashion-MNIST files")
    parser.add_argument("--smoke", action="store_true", help="a minute at most, into a new folder")
    options = parser.parse_args(arguments)
    if options.variant and (options.task, options.family, options.variant) not in VARIANTS:
        parser.error(f"no variant {options.variant} of {options.family} on {options.task}")
    if options.task == "fashion-mnist" and not options.source.is_dir():
        parser.error(f"{options.source} is missing: install dataset-fashion-mnist, or --source")
    if options.smoke:
        options.epochs = 1
        options.batch = min(options.batch, 50)
        options.out = options.out or Path(tempfile.mkdtemp(prefix="zoo-"))
    out = options.out or ZOO
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    data = fashion_mnist(options.source) if options.task == "fashion-mnist" else listops()
    if options.smoke:
        data = shortened(data)
    settings = recipe(options.task, options.family, options.variant)
    model = DeepSSM(**settings).to(options.device)
    start = time.perf_counter()
    history = train(model, data, options)
    seconds = round(time.perf_counter() - start)
    test = data.test()
    score = accuracy(model, *test)
    majority = 100.0 * int(test[1].bincount().max()) / len(test[1])

    name = "-".join(part for part in (options.task, options.family, options.variant) if part)
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.cpu().contiguous() for key, value in model.state_dict().items()},
        out / f"{name}.safetensors",
    )
    if options.task == "fashion-mnist" and not (ZOO / "fashion-mnist.npz").exists():
        keep_fashion_mnist(options.source, ZOO / "fashion-mnist.npz")
    told = ("family", "variant", "epochs", "batch", "rate", "seed", "threads", "device")
    record = {
        "name": name,
        "task": options.task,
        "recipe": settings,
        "options": {key: getattr(options, key) for key in told},
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_accuracy": score,
        "largest_class": majority,
        "seconds": seconds,
        "torch": torch.__version__,
        "history": history,
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{name}: {score:.2f} % of the test data, in {out}")
    return record


if __name__ == "__main__":
    main()
