"""Time subset removal against the same algorithm in plain NumPy, channel by channel.

Prints the time of ssmred for a growing number of channels (the cost is linear) and for the layers
of a long network, and beside it the time of the peer on a sample of channels.

Run: ``python benchmarks/subset_numpy.py``.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from ssmred.reductors import SubsetReductor
from ssmred.systems import DiagonalSystem


def s4d_layer(channels: int, modes: int, seed: int) -> DiagonalSystem:
    """Return an S4D-Lin layer with log-uniform steps and random read-outs."""
    rng = np.random.default_rng(seed)
    step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (channels, 1)))
    A = -0.5 + 1j * np.pi * np.arange(modes)
    poles = np.exp(step * A)
    C = 2 * (rng.standard_normal((channels, modes)) + 1j * rng.standard_normal((channels, modes)))
    D = rng.standard_normal(channels)
    return DiagonalSystem(poles, (poles - 1) / A, C, D, recurrence="post-update", real_output=True)


def numpy_square_root(poles: np.ndarray, horizon: int) -> np.ndarray:
    """Return the triangular factor of ``[direct term, Re l^k, Im l^k]`` by doubling."""
    samples = horizon - 1
    length, doublings = samples, 0
    while length >= 64:
        length, doublings = length // 2, doublings + 1

    def rows(first: int, count: int) -> np.ndarray:
        powers = poles ** np.arange(first, first + count)[:, None]
        return np.stack([powers.real, powers.imag], axis=-1).reshape(count, -1)

    def turned(R: np.ndarray, power: np.ndarray) -> np.ndarray:
        a, b = R[:, 0::2], R[:, 1::2]
        pair = [power.real * a - power.imag * b, power.imag * a + power.real * b]
        return np.stack(pair, axis=-1).reshape(R.shape)

    R = np.linalg.qr(rows(1, length), mode="r")
    for step in range(doublings - 1, -1, -1):
        R = np.linalg.qr(np.concatenate([R, turned(R, poles**length)]), mode="r")
        length *= 2
        if samples >> step & 1:
            R = np.linalg.qr(np.concatenate([R, rows(length + 1, 1)]), mode="r")
            length += 1
    n = 2 * len(poles)
    full = np.zeros((n + 1, n + 1))
    full[0, 0] = 1
    full[0, 1:] = rows(0, 1)
    full[1 : 1 + len(R), 1:] = R
    norms = np.linalg.norm(full, axis=0)
    lengths = np.repeat(np.hypot(norms[1::2], norms[2::2]), 2)
    own = np.diag(4 * np.finfo(float).eps * lengths)
    rows_of_own = np.concatenate([np.zeros((n, 1)), own], axis=1)
    return np.asarray(np.linalg.qr(np.concatenate([full, rows_of_own]), mode="r"))


def numpy_costs(rows: np.ndarray, z: np.ndarray, *, stacked: bool) -> np.ndarray:
    """Return the cost of every candidate from its two rows (n, 2, K) of the inverse of R."""
    columns = np.swapaxes(rows, 1, 2)
    if stacked:  # all candidates in one call
        return np.sum((z @ np.linalg.qr(columns)[0]) ** 2, axis=-1)
    return np.array([np.sum((z @ np.linalg.qr(pair)[0]) ** 2) for pair in columns])


def numpy_errors(
    system: DiagonalSystem, channel: int, horizon: int, *, stacked: bool = True
) -> np.ndarray:
    """Return the error along the removal path of one channel."""
    residues = system.C[channel, 0] * system.B[channel, :, 0]
    theta = np.concatenate(
        [system.D[channel, 0], np.stack([residues.real, -residues.imag], axis=-1).ravel()]
    )
    R = numpy_square_root(system.poles[channel], horizon)
    z = R @ theta
    errors = [0.0]
    while R.shape[1] > 1:
        rows = np.linalg.inv(R)[1:].reshape(-1, 2, R.shape[1])
        gone = 1 + 2 * int(np.argmin(numpy_costs(rows, z, stacked=stacked)))
        Q, R = np.linalg.qr(np.delete(R, [gone, gone + 1], axis=1), mode="complete")
        z = Q.T @ z
        errors.append(np.hypot(errors[-1], np.linalg.norm(z[-2:])))
        R, z = R[:-2], z[:-2]
    return np.array(errors)


def seconds(call, repeat: int) -> float:
    """Return the median time of a call after one warm-up."""
    call()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--modes", type=int, default=32)
    parser.add_argument("--horizon", type=int, default=4096)
    parser.add_argument("--sample", type=int, default=16, help="channels given to the peer")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    reductor = SubsetReductor(horizon=options.horizon)

    def cut(layer: DiagonalSystem) -> None:
        reductor.path(layer).reduction(options.modes // 2)

    print(f"{2 * options.modes} states per channel, horizon {options.horizon}")
    print("channels   seconds   ms per channel")
    for channels in (64, 128, 256, 512, 1024):
        layer = s4d_layer(channels, options.modes, seed=0)
        taken = seconds(lambda layer=layer: cut(layer), options.repeat)
        print(f"{channels:8d} {taken:9.3f} {1e3 * taken / channels:16.3f}")

    layers = [s4d_layer(options.channels, options.modes, seed) for seed in range(options.layers)]
    ours = seconds(lambda: [cut(layer) for layer in layers], options.repeat)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sample = min(options.sample, options.channels)
    total = options.channels * options.layers
    path = reductor.path(layers[0])
    print(f"{options.layers} layers of {options.channels} channels, seconds")
    print(f"ssmred: square roots, removal, read-out     {ours:8.2f}   peak {memory:.2f} GiB")
    for stacked, name in ((False, "one candidate at a time"), (True, "candidates stacked")):
        start = time.perf_counter()
        peer = [
            numpy_errors(layers[0], channel, options.horizon, stacked=stacked)
            for channel in range(sample)
        ]
        theirs = (time.perf_counter() - start) / sample * total
        apart = max(
            float(np.max(np.abs(errors - path.errors[c])) / path.norms[c])
            for c, errors in enumerate(peer)
        )
        print(
            f"NumPy, {name:36s} {theirs:8.2f}   {theirs / ours:.0f} times as long "
            f"({sample} channels timed; relative errors agree to {apart:.0e})"
        )


if __name__ == "__main__":
    main()
