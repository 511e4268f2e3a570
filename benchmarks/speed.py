"""Time and memory of `ssmred.reduce`, warm, beside the same algorithm in plain NumPy.

Prints: a Long-Range-Arena-size network (6 layers x 256 channels x 64 states, horizon 4,096) with
the peak memory; its removal paths against plain NumPy, channel by channel; growth with channels;
the bundled network; growth with calibration samples. Medians of warm runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from subset_numpy import numpy_errors, s4d_layer
from torch import nn

import ssmred
from ssmred import zoo
from ssmred.networks.deep import DeepSSM
from ssmred.reductors import SubsetReductor
from ssmred.report import table

LAYERS, CHANNELS, STATES, HORIZON = 6, 256, 64, 4_096
PEER_CHANNELS = 16
REPEATS = 3
NAME = "fashion-mnist-s4d"


def seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median wall time of a warm run."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def long_range_network() -> nn.Module:
    """Return a freshly initialised network of the size used on the Long Range Arena."""
    torch.manual_seed(0)
    return DeepSSM(1, 10, channels=CHANNELS, states=STATES, layers=LAYERS).eval()


def peak_gibibytes() -> float:
    """Return the most memory this process has held (Linux; not what its parent held)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def large() -> list[list[str]]:
    """Measure the large network: reduction, memory, ratio against NumPy."""
    network = long_range_network()

    def cut(guarantee: str) -> object:
        return ssmred.reduce(
            network, tol=1e-3, horizon=HORIZON, guarantee=guarantee, progress=False
        )

    cut("worst-case")
    peak = peak_gibibytes()
    rows = [
        [
            f"reduce {LAYERS} x {CHANNELS} x {STATES}, {kind}",
            f"{seconds(lambda k=kind: cut(k)):.2f} s",
        ]
        for kind in ("worst-case", "layer")
    ]
    rows.append(["memory of a process that does the first of these", f"{peak:.2f} GiB"])

    reductor = SubsetReductor(horizon=HORIZON)
    layers = [s4d_layer(CHANNELS, STATES // 2, seed) for seed in range(LAYERS)]
    ours = seconds(lambda: [reductor.path(layer) for layer in layers])
    rows.append(["removal paths of all its channels", f"{ours:.2f} s"])
    for how, stacked in (("channel by channel", False), ("candidates in one call", True)):
        start = time.perf_counter()
        for channel in range(PEER_CHANNELS):
            numpy_errors(layers[0], channel, HORIZON, stacked=stacked)
        theirs = (time.perf_counter() - start) / PEER_CHANNELS * LAYERS * CHANNELS
        rows.append([f"the same in NumPy, {how}", f"{theirs:.1f} s, {theirs / ours:.0f} x"])
    for channels in (128, 256, 512, 1024):
        layer = s4d_layer(channels, STATES // 2, 0)
        taken = seconds(lambda layer=layer: reductor.path(layer))
        rows.append([f"removal paths of {channels:,} channels", f"{1e3 * taken:.0f} ms"])
    return rows


def bundled() -> list[list[str]]:
    """Measure the bundled network."""
    model, data = zoo.load(NAME)
    images = data.calibration.inputs
    wishes = {
        f"{len(images):,} images, states=0.3": {"states": 0.3, "data": images},
        f"{len(images):,} images, tol=0.05": {"tol": 0.05, "data": images},
        "data-free, tol=1e-3, worst-case": {"tol": 1e-3, "horizon": 196},
        "data-free, tol=1e-3, layer": {"tol": 1e-3, "horizon": 196, "guarantee": "layer"},
        "256 images, states=0.3": {"states": 0.3, "data": images[:256]},
        "512 images, states=0.3": {"states": 0.3, "data": images[:512]},
    }
    return [
        [
            f"reduce {NAME}, {name}",
            f"{seconds(lambda wish=wish: ssmred.reduce(model, progress=False, **wish)):.2f} s",
        ]
        for name, wish in wishes.items()
    ]


def measure() -> list[list[str]]:
    """Return all rows."""
    return large() + bundled()


HEADERS = ["warm, median", "measured"]


if __name__ == "__main__":
    print(table(measure(), HEADERS))
