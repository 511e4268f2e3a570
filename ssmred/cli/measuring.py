"""Measure and describe what the commands report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ssmred.cli.console import BadInputError, Console, plain

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "described",
    "evidence_of",
    "latency_of",
    "measured",
    "random_inputs",
    "verification_facts",
]

_BATCH = 128
_RANDOM_SEQUENCES = 32
_STEPS_WITHOUT_HORIZON = 256


def measured(result: Any, test: Any, count: int, console: Console) -> tuple[str, dict[str, Any]]:
    """Return accuracy and latency of a reduced zoo network, as text and as facts."""
    from ssmred.deploy import latency
    from ssmred.report.tables import table

    facts: dict[str, Any] = {}
    text = ""
    count = min(count, len(test.labels))
    if count:
        inputs, labels = test.inputs[:count], test.labels[:count]
        with _progress(console, "accuracy", 2 * count) as advance:
            correct = [
                _correct(model, inputs, labels, advance)
                for model in (result.original, result.model)
            ]
        shares = [100.0 * right / count for right in correct]
        facts["accuracy"] = {
            "original": shares[0] / 100.0,
            "reduced": shares[1] / 100.0,
            "images": count,
            "of": len(test.labels),
        }
        rows = [
            [
                "accuracy",
                f"{shares[0]:.2f} %",
                f"{shares[1]:.2f} %",
                f"{shares[1] - shares[0]:+.2f}",
            ],
            _size_row("states", result.states),
            _size_row("parameters", result.parameters),
        ]
        text = table(rows, ["", "original", "reduced", "change"])
        text += f"\naccuracy on {_images(count, len(test.labels))}, seen by no decision\n\n"
    report = latency(result.original, result.model, test.inputs[:64], progress=console.progress)
    facts["latency"] = report.to_dict()
    return f"{text}{report}", facts


def latency_of(result: Any, sequences: Any, console: Console) -> Any:
    """Return the latency of both networks of a result, on random inputs where there are none."""
    from ssmred.deploy import latency

    if sequences is None:
        sequences = random_inputs(result.original, result.certificate.horizon)
    return latency(result.original, result.model, sequences, progress=console.progress)


def evidence_of(result: Any, sequences: Any, *, given: bool) -> Any:
    """Return the data that a certificate is recomputed from.

    The zoo's own have no part in a statement that used none; what was given is looked at.
    """
    certificate = result.certificate
    rests = certificate.statistics is not None or "data_sha256" in (
        certificate.scale_sampling or {}
    )
    return sequences if given or rests else None


def random_inputs(model: nn.Module, horizon: int | None) -> torch.Tensor:
    """Return random sequences that a network takes: tokens before an Embedding, else in [-1, 1].

    Raises
    ------
    BadInputError
        If the first layer does not tell how many features a step has.
    """
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    steps = horizon or _STEPS_WITHOUT_HORIZON
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            shape = (_RANDOM_SEQUENCES, steps)
            return torch.randint(0, module.num_embeddings, shape, generator=generator)
        if isinstance(module, nn.Linear):
            shape = (_RANDOM_SEQUENCES, steps, module.in_features)
            return 2.0 * torch.rand(shape, generator=generator) - 1.0
    raise BadInputError("cannot tell the inputs' shape from the network; give --data FILE")


def described(name: str) -> dict[str, Any]:
    """Return what is known of a zoo network: sizes, data, how it was trained."""
    from ssmred import zoo
    from ssmred.networks import import_network
    from ssmred.pipeline.reduction import count

    model, data = zoo.load(name)
    network = import_network(model)
    layers = network.layers
    recorded = zoo.record(name)
    return {
        "name": name,
        "layers": len(layers),
        "channels": network.core(layers[0].name).inputs,
        "states": sum(layer.states for layer in layers),
        "parameters": count(model),
        "steps": data.test.inputs.shape[1],
        "calibration": len(data.calibration.labels),
        "test": len(data.test.labels),
        "test_accuracy": recorded["test_accuracy"],
        "training_seconds": recorded["seconds"],
    }


def verification_facts(report: Any) -> Any:
    """Return a verification as JSON types."""
    if hasattr(report, "to_dict"):
        return plain(report.to_dict())
    if dataclasses.is_dataclass(report) and not isinstance(report, type):
        return plain(dataclasses.asdict(report))
    return str(report)


def _correct(model: nn.Module, inputs: Any, labels: Any, advance: Any) -> int:
    import torch

    right = 0
    with torch.no_grad():
        for part, truth in zip(inputs.split(_BATCH), labels.split(_BATCH), strict=True):
            right += int((model(part).argmax(dim=-1) == truth).sum())
            advance(len(truth))
    return right


def _size_row(name: str, sizes: tuple[int, int]) -> list[str]:
    kept, full = sizes
    return [name, f"{full:,}", f"{kept:,}", f"{100.0 * (kept / full - 1.0):+.1f} %"]


def _images(count: int, total: int) -> str:
    return f"all {total:,} test images" if count == total else f"{count:,} of {total:,} test images"


@contextmanager
def _progress(console: Console, label: str, total: int) -> Iterator[Any]:
    if not console.progress:
        yield lambda _count: None
        return
    from rich.console import Console as Terminal
    from rich.progress import Progress

    with Progress(console=Terminal(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)
