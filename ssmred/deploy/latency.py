"""Measure what a reduction buys on this machine: time, streaming step, bytes, peak memory.

The variants alternate within one run, every round each of them once in an order drawn afresh, so
that a change of the machine's clock or load meets all of them alike; every figure is a median with
its quartiles.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numba
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from ssmred.checks import check_integer
from ssmred.deploy.latency_report import LatencyReport, Measurement, Spread
from ssmred.deploy.memory import parameter_bytes, peak_forward_bytes
from ssmred.deploy.timing import timed, using_threads
from ssmred.errors import DataError, ShapeError, UnsupportedOperationError, message
from ssmred.networks import LinearFilter, StreamingNetwork, import_network

__all__ = ["latency", "machine"]

_STEPS = 64
"""Different inputs that streaming cycles through."""


def latency(
    original: nn.Module,
    reduced: nn.Module,
    inputs: np.ndarray | torch.Tensor,
    *,
    batches: Sequence[int] = (1, 32),
    repeats: int = 15,
    threads: int | None = None,
    progress: bool = False,
) -> LatencyReport:
    """Measure original against reduced, alternating in one run.

    Parameters
    ----------
    original, reduced : nn.Module
        Networks with the same input; both are copied and run in eval mode without gradients.
    inputs : (n, T, features) float or (n, T) int
        Sequences to run; repeated where a batch is larger than n.
    batches : sequence of int
        Batch sizes to run.
    repeats : int
        Timed blocks per variant and quantity; a block repeats short calls for about 2 ms.
    threads : int, optional
        Threads for torch, and for Numba as far as it has them; default: as they are set now. The
        former setting is restored.
    progress : bool
        Show a progress bar on the standard error stream.

    Returns
    -------
    LatencyReport
        Seconds, at every batch size, per whole sequence; per streaming step of the whole network
        and of its state-space systems alone; bytes of parameters; peak memory of one
        forward pass at the largest batch, first and later passes. A network that cannot stream
        (not traceable, looks ahead) has no step of the whole network; a note says why.

    Raises
    ------
    ShapeError
        If the inputs are not a batch of sequences, or the outputs of the models differ in shape.
    DataError
        If the inputs are empty or hold nan or inf.
    UnsupportedOperationError
        If a model is not an nn.Module.

    Notes
    -----
    Three variants run: the original as given, the same network imported at full order, and the
    reduced one. The original recomputes its kernels in every pass and has no streaming step of its
    own; the imported variant stands for it there, and tells what the reduction alone buys.

    Parameters are counted with buffers, once per storage. Peak memory is the highest sum of live
    blocks that torch's CPU allocator handed out during one forward pass, as torch's profiler
    records them (`profile_memory`); parameters, inputs, what a layer cached before, and memory that
    libraries take elsewhere (FFT plans, NumPy) are not in it. "First" is a pass with empty caches:
    it makes the kernels; "later" is a pass that finds them cached.
    """
    where = "latency"
    for name, model in (("original", original), ("reduced", reduced)):
        if not isinstance(model, nn.Module):
            raise UnsupportedOperationError(
                message(
                    where,
                    f"{name} is not a network",
                    expected="a torch.nn.Module",
                    got=type(model).__name__,
                    cure="Pass result.original and result.model.",
                )
            )
    sequences = _checked_inputs(inputs, original, where)
    sizes = tuple(dict.fromkeys(check_integer(b, "a batch size", where, low=1) for b in batches))
    if not sizes:
        raise DataError(message(where, "batches is empty", cure="Pass for example (1, 32)."))
    repeats = check_integer(repeats, "repeats", where, low=1)
    if threads is not None:
        threads = check_integer(threads, "threads", where, low=1)

    variants = _variants(original, reduced)
    with using_threads(threads) as used, torch.no_grad(), _bar(progress) as advance:
        _check_outputs(variants, sequences[:1], where)
        batched = {size: _repeated(sequences, size) for size in sizes}
        largest = batched[max(sizes)]
        advance("peak memory", 0.0)
        peaks = {name: peak_forward_bytes(model, largest) for name, model in variants.items()}
        jobs: list[tuple[str, dict[str, Callable[[], Any]]]] = [
            (f"whole sequence, batch {size}", _forwards(variants, part))
            for size, part in batched.items()
        ]
        notes = []
        try:
            jobs += [
                (f"streaming step, network, batch {size}", _network_steps(variants, part))
                for size, part in batched.items()
            ]
        except UnsupportedOperationError as error:  # the other figures stand without these
            notes.append(f"the network does not stream: {error}")
        jobs += [
            (f"streaming step, systems only, batch {size}", _core_steps(variants, part))
            for size, part in batched.items()
        ]
        measurements = []
        for index, (name, calls) in enumerate(jobs):
            advance(name, index / len(jobs))
            measurements.append(_measurement(name, "s", timed(calls, repeats)))
        advance("done", 1.0)
    sizes_of = {name: [float(parameter_bytes(model))] for name, model in variants.items()}
    measurements.append(_measurement("parameters and buffers", "B", sizes_of))
    for index, kind in enumerate(("first pass", "later passes")):
        samples = {name: [float(peak[index])] for name, peak in peaks.items()}
        measurements.append(_measurement(f"peak memory, batch {max(sizes)}, {kind}", "B", samples))
    return LatencyReport(
        measurements=tuple(measurements),
        horizon=int(sequences.shape[1]),
        batches=sizes,
        repeats=repeats,
        threads=used,
        machine=machine(),
        notes=tuple(notes),
    )


def machine() -> str:
    """Return one line on the processor, the system and the versions that figures depend on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            found = [
                line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")
            ]
    except OSError:  # not Linux
        found = []
    return (
        f"{found[0] if found else name}, {os.cpu_count()} logical processors, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, Numba {numba.__version__}"
    )


def _variants(original: nn.Module, reduced: nn.Module) -> dict[str, nn.Module]:
    # Copies, so that neither the mode nor the kernel caches of the caller's models change.
    imported = import_network(original).model
    chosen = {"original": deepcopy(original), "imported": imported, "reduced": deepcopy(reduced)}
    return {name: model.eval() for name, model in chosen.items()}


def _cores(model: nn.Module) -> list[LinearFilter]:
    return [module for module in model.modules() if isinstance(module, LinearFilter)]


def _checked_inputs(inputs: Any, model: nn.Module, where: str) -> torch.Tensor:
    sequences = torch.as_tensor(inputs).detach()
    tokens = not sequences.is_floating_point()
    if sequences.ndim != (2 if tokens else 3):
        raise ShapeError(
            message(
                where,
                "inputs are not a batch of sequences",
                expected="(n, T, features) floats or (n, T) integer tokens",
                got=f"{tuple(sequences.shape)} {sequences.dtype}",
            )
        )
    if sequences.numel() == 0:
        raise DataError(message(where, "inputs are empty", expected="at least one sequence"))
    if not tokens:
        if not bool(torch.isfinite(sequences).all()):
            raise DataError(
                message(where, "inputs hold nan or inf", cure="Remove these sequences first.")
            )
        types = [p.dtype for p in model.parameters() if p.is_floating_point()]
        sequences = sequences.to(types[0] if types else torch.float32)
    return sequences


def _check_outputs(variants: dict[str, nn.Module], inputs: torch.Tensor, where: str) -> None:
    shapes = {name: tuple(model(inputs).shape) for name, model in variants.items()}
    if len(set(shapes.values())) > 1:
        raise ShapeError(
            message(
                where,
                "the outputs of the models differ in shape",
                expected=f"{shapes['original']} (original)",
                got=f"{shapes['reduced']} (reduced)",
                cure="Compare a model with a reduction of itself.",
            )
        )


def _repeated(sequences: torch.Tensor, size: int) -> torch.Tensor:
    copies = math.ceil(size / len(sequences))
    return torch.cat([sequences] * copies)[:size].contiguous()


def _forwards(
    variants: dict[str, nn.Module], batch: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    return {name: (lambda model=model: model(batch)) for name, model in variants.items()}


def _network_steps(
    variants: dict[str, nn.Module], batch: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {}
    values = [batch[:, k].contiguous() for k in range(min(batch.shape[1], _STEPS))]
    for name in ("imported", "reduced"):
        network = StreamingNetwork(variants[name], example_shape=tuple(batch.shape[1:]))
        network.reset(len(batch))
        calls[name] = _cycled(network.step, values)
    return calls


def _cycled(step: Callable[[torch.Tensor], Any], values: list[torch.Tensor]) -> Callable[[], Any]:
    position = 0

    def call() -> Any:
        nonlocal position
        position = (position + 1) % len(values)
        return step(values[position])

    return call


def _core_steps(
    variants: dict[str, nn.Module], batch: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    generator = torch.Generator().manual_seed(0)
    kind = batch.dtype if batch.is_floating_point() else torch.float32
    calls: dict[str, Callable[[], Any]] = {}
    for name in ("imported", "reduced"):
        cores = _cores(variants[name])
        values = [
            torch.randn(len(batch), core.inputs, generator=generator, dtype=kind) for core in cores
        ]
        states = [core.initial_state(len(batch)) for core in cores]

        def call(cores=cores, values=values, states=states) -> None:
            for index, (core, value) in enumerate(zip(cores, values, strict=True)):
                _, states[index] = core.step(value, states[index])

        calls[name] = call
    return calls


def _measurement(name: str, unit: str, samples: dict[str, list[float]]) -> Measurement:
    spreads = {variant: Spread.of(values) for variant, values in samples.items()}
    return Measurement(name, unit, spreads.get("original"), spreads["imported"], spreads["reduced"])


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[str, float], None]]:
    if not shown:
        yield lambda _label, _share: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("latency", total=1.0)
        yield lambda label, share: bar.update(task, description=label, completed=share)
