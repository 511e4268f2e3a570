"""Time and memory of `ssmred.reduce`, warm, beside the same algorithm in plain NumPy.

Prints: the bundled network; a Long-Range-Arena-size network (6 layers x 256 channels x 64 states,
horizon 4,096) with its peak memory; growth with channels; growth with calibration samples; the
ratio against plain NumPy, channel by channel. Medians of repeated runs.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from subset_numpy import removal_path

import ssmred
from ssmred import zoo
from ssmred.networks import import_network
from ssmred.networks.deep import DeepS4D
from ssmred.reductors import SubsetReductor
from ssmred.report import table

LAYERS, CHANNELS, STATES, HORIZON = 6, 256, 64, 4_096
PEER_CHANNELS = 8
REPEATS = 3


def seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median wall time of a warm run."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_megabytes() -> float:
    """Return the largest resident size this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def lra_network(channels: int = CHANNELS, layers: int = LAYERS) -> torch.nn.Module:
    """Return a freshly initialised network of the size used on the Long Range Arena."""
    torch.manual_seed(0)
    return DeepS4D(1, 10, channels=channels, states=STATES, layers=layers).eval()


def main() -> None:
    """Measure and print."""
    rows = []
    network = lra_network()
    for guarantee in ("worst-case", "layer"):
        taken = seconds(
            lambda g=guarantee: ssmred.reduce(
                network, tol=1e-3, horizon=HORIZON, guarantee=g, progress=False
            )
        )
        rows.append(
            [f"{LAYERS} x {CHANNELS} x {STATES}, T = {HORIZON}, {guarantee}", f"{taken:.2f} s"]
        )
    rows.append(["largest memory of this process so far", f"{peak_megabytes():,.0f} MB"])

    systems = [layer.system for layer in import_network(network).layers]
    ours = seconds(lambda: [SubsetReductor(horizon=HORIZON).path(s) for s in systems])
    part = systems[0].replace(
        poles=systems[0].poles[:PEER_CHANNELS],
        B=systems[0].B[:PEER_CHANNELS],
        C=systems[0].C[:PEER_CHANNELS],
        D=systems[0].D[:PEER_CHANNELS],
    )
    theirs = seconds(lambda: removal_path(part, HORIZON), 1) / PEER_CHANNELS * LAYERS * CHANNELS
    rows.append(["its removal paths", f"{ours:.2f} s"])
    rows.append([f"the same in NumPy, from {PEER_CHANNELS} channels", f"{theirs:.1f} s"])
    rows.append(["ratio", f"{theirs / ours:.0f} x"])

    for channels in (64, 128, 256, 512):
        model = lra_network(channels, layers=1)
        system = import_network(model).layers[0].system
        taken = seconds(lambda s=system: SubsetReductor(horizon=HORIZON).path(s))
        rows.append([f"{channels} channels, T = {HORIZON}", f"{1e3 * taken:.0f} ms"])

    model, data = zoo.load("fashion-mnist-s4d")
    images = data.calibration.inputs
    rows.append(
        [
            "bundled network, calibrated, states=0.3",
            f"{seconds(lambda: ssmred.reduce(model, states=0.3, data=images, progress=False)):.2f} s",
        ]
    )
    rows.append(
        [
            "bundled network, calibrated, tol=0.05",
            f"{seconds(lambda: ssmred.reduce(model, tol=0.05, data=images, progress=False)):.2f} s",
        ]
    )
    rows.append(
        [
            "bundled network, data-free, tol=1e-3",
            f"{seconds(lambda: ssmred.reduce(model, tol=1e-3, horizon=196, progress=False)):.2f} s",
        ]
    )
    for count in (256, 512, 1024):
        taken = seconds(
            lambda n=count: ssmred.reduce(model, states=0.3, data=images[:n], progress=False)
        )
        rows.append([f"calibrated on {count} inputs", f"{taken:.2f} s"])
    print(table(rows, ["what", "median"]))
    print(f"torch threads {torch.get_num_threads()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
