"""Prune networks by S4oP and by what control theory knows, at the same fine-tuning budget.

    python benchmarks/prune_families.py parents --task ecg5000 --family s4d --source <wheel>
    python benchmarks/prune_families.py run --task ecg5000 --family s4d --method s4op --seed 0

``run`` makes one family (all rates) in ``.cache/prune`` and goes on where it was killed. Methods:
``s4op`` is the published one (random channels, identity bypass, 2^i rule, five candidates per
rate); ``ours`` spends as many steps on one candidate; ``ours-fifth`` a fifth of them; ``ours-none``
does not fine-tune at all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssmred import tasks, zoo
from ssmred.networks.deep import DeepSSM
from ssmred.prune import S4OP, Training, evaluate, progressive, train

HERE = Path(__file__).parent
NETWORKS = HERE / "networks"
WORK = HERE.parent / ".cache" / "prune"
TASKS = ("fashion-mnist", "listops", "ecg5000", "ford-a")
FAMILIES = ("s4d", "s4")
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)

CANDIDATES = 5
"""Of S4oP per rate."""

EPOCHS, SAMPLES = 2, 3_200
"""Of fine-tuning one candidate: epochs, and training sequences in each, at most."""

PARENTS: dict[str, dict[str, Any]] = {
    "ecg5000": {"epochs": 15, "rate": 4e-3, "batch": 64, "dropout": 0.1},
    "ford-a": {"epochs": 20, "rate": 4e-3, "batch": 32, "dropout": 0.1},
}


def method_options(method: str, device: str) -> dict[str, Any]:
    """Return the arguments of `progressive` for a method."""
    recipe = Training(epochs=EPOCHS, rate=1e-3, batch=64, samples=SAMPLES, patience=None,
                      accelerator=device)  # fmt: skip
    if method == "s4op":
        return {**S4OP, "training": recipe}
    factor = {"ours": CANDIDATES, "ours-fifth": 1, "ours-none": 0}[method]
    return {"training": replace(recipe, epochs=factor * EPOCHS, distillation=0.5 if factor else 0)}


def load_task(name: str, source: Path | None) -> tasks.Task:
    """Return a task; a source is that of files that no package brings."""
    needs = name != "listops" and source is not None
    return tasks.load(name, **({"source": source} if needs else {}))


def recipe_of(task: tasks.Task, family: str, dropout: float) -> dict[str, Any]:
    """Return the arguments of a parent that the zoo does not have."""
    settings = {"inputs": task.features, "outputs": task.classes, "layer": family, "channels": 64,
                "states": 64, "layers": 4, "dropout": dropout, "mixing": "glu"}  # fmt: skip
    return settings | ({"layer_options": {"length": task.length}} if family == "s4" else {})


def parent(task: str, family: str) -> nn.Module:
    """Return the trained network of a task: of the zoo, or of ``parents``."""
    if f"{task}-{family}" in zoo.names():
        return zoo.load(f"{task}-{family}")[0]
    record = json.loads((NETWORKS / f"{task}-{family}.json").read_text(encoding="utf-8"))
    model = DeepSSM(**record["recipe"])
    model.load_state_dict(load_file(NETWORKS / f"{task}-{family}.safetensors"))
    return model.eval()


def make_parent(options: argparse.Namespace) -> None:
    """Train a parent and write its weights and record."""
    task = load_task(options.task, options.source)
    how = dict(PARENTS[options.task])
    settings = recipe_of(task, options.family, how.pop("dropout"))
    torch.manual_seed(options.seed)
    model = DeepSSM(**settings)
    recipe = Training(**how, patience=None, warm_up=0.05, accelerator=options.device)
    history = train(model, task, recipe, seed=options.seed, progress=True)
    record = {
        "name": f"{options.task}-{options.family}",
        "recipe": settings,
        "training": vars(recipe),
        "seed": options.seed,
        "split": dict(task.split),
        "parameters": sum(p.numel() for p in model.parameters()),
        "validation": history.scores,
        "best_epoch": history.best,
        "test_accuracy": evaluate(model, task.open_test(), task),
        "seconds": round(history.seconds),
        "torch": torch.__version__,
    }
    NETWORKS.mkdir(exist_ok=True)
    path = NETWORKS / record["name"]
    save_file({k: t.contiguous() for k, t in model.state_dict().items()}, f"{path}.new")
    Path(f"{path}.new").replace(f"{path}.safetensors")
    Path(f"{path}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{record['name']}: {record['test_accuracy']:.2f} % of the test data", flush=True)


def run(options: argparse.Namespace) -> None:
    """Make one family."""
    start = time.perf_counter()
    task = load_task(options.task, options.source)
    folder = options.work / f"{options.task}-{options.family}-{options.method}-{options.seed}"
    how = method_options(options.method, options.device)
    if "seeds" in how:  # other draws in every repetition
        how["seeds"] = tuple(100 * options.seed + seed for seed in how["seeds"])
    else:
        how["seeds"] = (options.seed,)
    family = progressive(
        parent(options.task, options.family), task, rates=RATES, seed=options.seed, repeats=5,
        folder=folder, progress=False, **how
    )  # fmt: skip
    print(f"{folder.name}: {time.perf_counter() - start:.0f} s\n{family}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("parents", "run"))
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--family", choices=FAMILIES)
    parser.add_argument("--method", choices=("s4op", "ours", "ours-fifth", "ours-none"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--source", type=Path, help="file or folder of the data")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    needed = ("task", "family") if options.step == "parents" else ("task", "family", "method")
    missing = [f"--{name}" for name in needed if getattr(options, name) is None]
    if missing:
        parser.error(f"{options.step} needs {', '.join(missing)}")
    torch.set_num_threads(options.threads)
    steps = {"parents": make_parent, "run": run}
    steps[options.step](options)


if __name__ == "__main__":
    main()
