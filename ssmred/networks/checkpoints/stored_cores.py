"""Read the filters that ssmred itself stores: imported and reduced layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ssmred.errors import CheckpointError, message
from ssmred.networks.cores import CORES
from ssmred.networks.filters import LinearFilter

__all__ = ["read_core", "recognises_core"]

_DIMENSIONS = {
    "ReducedSSM": {"poles": 2, "residues": 2, "D": 1, "offsets": 1},
    "SharedSSM": {"poles": 2, "B": 3, "C": 3},
    "DenseSSM": {"A": 3, "B": 2, "C": 2, "D": 1, "orders": 1},
}
"""Axes of the tensors; D of a shared state has one or two."""


def recognises_core(kind: str, names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one filter of a kind, and nothing else."""
    shapes = {name.rpartition(".")[2]: shape for name, shape in names_to_shapes.items()}
    if set(shapes) != set(CORES[kind].TENSORS):
        return False
    return all(len(shapes[name]) == axes for name, axes in _DIMENSIONS[kind].items())


def read_core(
    kind: str, tensors: Mapping[str, torch.Tensor], *, delayed: bool = False
) -> dict[str, LinearFilter]:
    """Return ``{"core": filter}`` from the tensors of a stored filter.

    Raises
    ------
    CheckpointError
        If a tensor does not fit the others, is nan or inf, or not float64; the key is named.
    """
    own = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    prefix = next(iter(tensors)).rpartition(".")[0]
    missing = [f"{prefix}.{name}" for name in CORES[kind].TENSORS if name not in own]
    if missing:
        raise CheckpointError(
            message("inspect", f"{missing[0]} is missing", got=", ".join(sorted(tensors)))
        )
    settings = {}
    if kind == "SharedSSM":
        settings = {"inputs": own["B"].shape[1], "outputs": own["C"].shape[0],
                    "diagonal": own["D"].ndim == 1, "delayed": delayed}  # fmt: skip
        if settings["diagonal"] and settings["inputs"] > settings["outputs"]:
            raise CheckpointError(
                message(
                    "inspect",
                    f"{prefix}.D has the wrong shape",
                    expected=f"({settings['outputs']}, {settings['inputs']})",
                    got=f"{tuple(own['D'].shape)}",
                )
            )
    elif kind == "DenseSSM":
        settings = {"channels": own["D"].shape[0], "delayed": delayed}
    core = CORES[kind]._blank(**settings)
    try:
        core.load_state_dict(own)
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}: {error}") from error
    return {"core": core}
