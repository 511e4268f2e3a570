"""Prune networks by S4oP and by what control theory knows, at the same fine-tuning budget.

    python benchmarks/prune_families.py parents --task ecg5000 --family s4d
    python benchmarks/prune_families.py run --tasks ecg5000 ford-a --source ford-a=<wheel>
    python benchmarks/prune_families.py latency
    python benchmarks/prune_families.py lengths
    python benchmarks/prune_families.py report

``run`` makes the families (all rates) that ``results/prune`` does not have, each in a process of
its own, and stores the record of each as soon as it is made; a family goes on where it was killed.
Methods: ``s4op`` is the published one (random channels, identity bypass, 2^i rule, five candidates
per rate); ``ours`` spends as many steps on one candidate; ``ours-fifth`` a fifth of them;
``ours-none`` does not fine-tune at all; nor does ``ours-silent``, where 60 % of the gains go too.
``latency`` measures all of them in one run on this machine, which should do nothing else,
``lengths`` one of them on longer sequences; ``report`` writes the tables and pictures of
docs/prune.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from prune_report import FAMILIES, METHODS, RESULTS, TASKS, name_of, write
from safetensors.torch import load_file, save_file
from torch import nn

from ssmred import tasks, zoo
from ssmred.deploy import compacted
from ssmred.deploy.latency import machine
from ssmred.networks.deep import DeepSSM
from ssmred.networks.writing import write_text
from ssmred.prune import S4OP, Training, evaluate, progressive, train
from ssmred.prune.latency import Uncached, alternating
from ssmred.prune.network import PrunableNetwork, operators_of

HERE = Path(__file__).parent
NETWORKS = HERE / "networks"
WORK = HERE.parent / ".cache" / "prune"
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)

SEEDS = (0, 1, 2)
SILENCE = 0.6
LENGTHS = (128, 512, 1024, 2048, 4096)
CANDIDATES = 5
"""Of S4oP per rate."""

EPOCHS, SAMPLES = 2, 3_200
"""Of fine-tuning one candidate: epochs, and training sequences in each, at most."""

TRAINING: dict[str, dict[str, Any]] = {
    "ours": {"epochs": CANDIDATES * EPOCHS, "rate": 4e-3, "distillation": 1.0, "judge": "loss"},
    "ours-fifth": {"distillation": 0.5},
    "ours-none": {"epochs": 0},
    "ours-silent": {"epochs": 0},
}
"""What our methods change in the recipe; chosen on ListOps expressions that are in no part."""

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
    return {"training": replace(recipe, **TRAINING[method]), "silence": silence_of(method)}


def silence_of(method: str) -> float:
    """Return the share of the gains that go too."""
    return SILENCE if method == "ours-silent" else 0.0


def load_task(name: str, options: argparse.Namespace) -> tasks.Task:
    """Return a task, from the source that was named for it."""
    source = dict(options.source).get(name)
    return tasks.load(name, **({} if source is None else {"source": Path(source)}))


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
    task = load_task(options.task, options)
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


def wanted(options: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """Yield task, family, method and seed of every record that is asked for, seed by seed."""
    for seed, *rest in product(options.seeds, options.tasks, options.families, options.methods):
        yield (*rest, seed)


def run_all(options: argparse.Namespace) -> None:
    """Make the families that have no record yet, side by side."""
    stop = time.monotonic() + 60.0 * options.minutes
    missing = [x for x in wanted(options) if not (options.results / f"{name_of(*x)}.json").exists()]
    jobs = (delayed(run)(*which, options, stop) for which in missing)
    for _ in Parallel(n_jobs=options.workers, return_as="generator_unordered")(jobs):
        pass


def run(
    task: str, family: str, method: str, seed: int, options: argparse.Namespace, stop: float
) -> None:
    """Make one family and store its record, unless the time to start one is over."""
    if time.monotonic() > stop:
        return
    torch.set_num_threads(options.threads)
    start, name = time.perf_counter(), name_of(task, family, method, seed)
    how = method_options(method, options.device)
    # other draws in every repetition
    seeds = tuple(100 * seed + s for s in how["seeds"]) if "seeds" in how else (seed,)
    pruned = progressive(
        parent(task, family), load_task(task, options), rates=RATES, seed=seed, repeats=5,
        folder=options.work / name, progress=False, **how | {"seeds": seeds}
    )  # fmt: skip
    record = (options.work / name / "family.json").read_text(encoding="utf-8")
    options.results.mkdir(parents=True, exist_ok=True)
    write_text(options.results / f"{name}.json", record)
    print(f"{name}: {time.perf_counter() - start:.0f} s\n{pruned}", flush=True)


def latency(options: argparse.Namespace) -> None:
    """Measure all networks of a task and family in one run, at batch 1, and store the ratios.

    What an operator weighs does not matter for its time, so the networks are made of the masks.
    Each runs as it is and in its compact form.
    """
    for task, family in product(options.tasks, options.families):
        found = [(m, s, options.results / f"{name_of(task, family, m, s)}.json")
                 for m, s in product(options.methods, options.seeds)]  # fmt: skip
        found = [(method, seed, path) for method, seed, path in found if path.exists()]
        if found:
            full = operators_of(parent(task, family))
            networks = {"parent": full.model, "uncached": Uncached(full.model)}
            for method, seed, path in found:
                networks |= {f"{method} {seed} {rate}": model
                             for rate, model in of_masks(full, path, silence_of(method)).items()
                             }  # fmt: skip
            inputs = load_task(task, options).train.inputs[:1]
            measure(networks, inputs, options.results / "latency" / f"{task}-{family}.json")


def lengths(options: argparse.Namespace) -> None:
    """Measure networks of 70 % fewer operators on noise of many lengths."""
    task, family = "ecg5000", "s4d"
    full = operators_of(parent(task, family))
    path = options.results / f"{name_of(task, family, 'ours-none', 0)}.json"
    pruned, silent = (
        models[min(models, key=lambda rate: abs(float(rate) - 0.7))]
        for models in (of_masks(full, path, share) for share in (0.0, SILENCE))
    )
    for length in LENGTHS:
        noise = torch.randn(1, length, 1, generator=torch.Generator().manual_seed(0))
        target = options.results / "latency" / f"length-{length}.json"
        measure({"parent": full.model, "pruned": pruned, "silent": silent}, noise, target)


def of_masks(full: PrunableNetwork, path: Path, silence: float) -> dict[str, nn.Module]:
    """Return networks with the operators that a record's members have, by rate.

    A share of the channels without operator is silent; which ones does not matter for the time.
    """
    networks = {}
    for member in json.loads(path.read_text(encoding="utf-8"))["members"]:
        gone = {}
        for layer, kept in member["kept"].items():
            idle = sorted(set(range(full.channels[layer])) - set(kept))
            silent = round(silence * len(idle))
            gone[layer] = {h: 0.5 * (k >= silent) for k, h in enumerate(idle)}
        networks[str(member["rate"])] = full.pruned(gone).model
    return networks


def measure(networks: dict[str, nn.Module], inputs: torch.Tensor, path: Path) -> None:
    """Measure networks, as they are and in compact form, in alternation and store the times."""
    compact = {f"compact {name}": compacted(model)
               for name, model in networks.items() if name != "uncached"}  # fmt: skip
    times = alternating(networks | compact, inputs, repeats=100, threads=1)
    record = {
        "machine": machine(),
        "length": inputs.shape[-2] if inputs.is_floating_point() else inputs.shape[-1],
        "seconds": {name: asdict(spread) for name, spread in times.items()},
        "ratios": {name: asdict(times.ratio(name, "parent")) for name in times},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")
    print(path.stem, {name: round(spread["median"], 2)
                      for name, spread in record["ratios"].items()}, flush=True)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("parents", "run", "latency", "lengths", "report"))
    parser.add_argument("--task", choices=TASKS, help="of the parent that is trained")
    parser.add_argument("--family", choices=FAMILIES, help="of the parent that is trained")
    parser.add_argument("--seed", type=int, default=0, help="of the parent that is trained")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--source",
        nargs="+",
        default=(),
        type=lambda text: text.split("=", 1),
        metavar="TASK=PATH",
        help="files or folders of data that are not found otherwise",
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the networks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, default=1, help="families side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each")
    parser.add_argument("--minutes", type=float, default=1e9, help="start none after that")
    options = parser.parse_args(arguments)
    if options.step == "parents" and None in (options.task, options.family):
        parser.error("parents needs --task and --family")
    torch.set_num_threads(options.threads)
    steps = {
        "parents": make_parent,
        "run": run_all,
        "latency": latency,
        "lengths": lengths,
        "report": write,
    }
    steps[options.step](options)


if __name__ == "__main__":
    main()
