"""Read the checkpoints of S4oP: networks in which whole channels were bypassed.

A bypassed channel's input goes to the output of its layer's filter unchanged: C = 0, D = 1. In the
new form the layers hold the rows of the active channels only, in the order of
``active_idx_layers``; in the old form they hold all rows and boolean ``pruning_mask`` buffers,
True where a channel is active. Neither form says where the norms stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_names import check_not_selective, without_wrappers
from ssmred.networks.adapters.s4_reading import read_s4
from ssmred.networks.adapters.s4_settings import UPSTREAM, S4Settings
from ssmred.networks.adapters.s4d_reading import read_s4d
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = [
    "S4oPCheckpoint",
    "S4oPLayer",
    "read_s4op",
    "recognises_checkpoint",
    "recognises_tensors",
]

_LAYER = re.compile(r"(s4d|s4)_layers\.(\d+)\.")
_PLACES = ("", "layer.")


@dataclass(frozen=True, eq=False)
class S4oPLayer:
    """Hold one layer of a checkpoint.

    Attributes
    ----------
    name : str
        ``s4d_layers.0`` and so on.
    system : LinearSystem
        All H channels, the bypassed ones with C = 0 and D = 1.
    active : (k,) int64
        Channels that are not bypassed, in the order of the stored rows.
    mixing : dict of str to torch.Tensor
        ``0.weight``, ``0.bias``.
    norm : dict of str to torch.Tensor
    """

    name: str
    system: LinearSystem
    active: np.ndarray
    mixing: dict[str, torch.Tensor]
    norm: dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class S4oPCheckpoint:
    """Hold what a checkpoint says; see `ssmred.networks.adapters.s4op_network` for a network.

    Attributes
    ----------
    family : {"s4d", "s4"}
    form : {"new", "old", "full"}
        Rows of active channels, all rows with masks, or nothing bypassed.
    width : int
        H.
    layers : tuple of S4oPLayer
    embedding, head : dict of str to torch.Tensor
        Tensors of the input map (``weight``, ``bias``) and of the output map (``fc.weight`` ... or
        ``match.0.weight`` ...).
    """

    family: str
    form: str
    width: int
    layers: tuple[S4oPLayer, ...]
    embedding: dict[str, torch.Tensor]
    head: dict[str, torch.Tensor]

    @property
    def bypassed(self) -> int:
        """Number of bypassed channels of all layers."""
        return sum(self.width - len(layer.active) for layer in self.layers)

    @property
    def norm_kind(self) -> str:
        """Class of the norms, ``BatchNorm1d`` or ``LayerNorm``."""
        return "BatchNorm1d" if "running_mean" in self.layers[0].norm else "LayerNorm"


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of a whole S4oP network."""
    names = list(without_wrappers(names_to_shapes))
    return any(_LAYER.match(n) for n in names) and any(n.startswith("norms.") for n in names)


def recognises_checkpoint(checkpoint: Any) -> bool:
    """Tell whether a loaded object is an S4oP checkpoint, in either form."""
    if not isinstance(checkpoint, Mapping):
        return False
    tensors = checkpoint.get("model_state_dict", checkpoint)
    if not isinstance(tensors, Mapping):
        return False
    return recognises_tensors({name: () for name in tensors if isinstance(name, str)})


def read_s4op(checkpoint: Mapping[str, Any], *, settings: S4Settings = UPSTREAM) -> S4oPCheckpoint:
    """Return what an S4oP checkpoint holds.

    Parameters
    ----------
    checkpoint : mapping
        ``{"model_state_dict": ..., "active_idx_layers": ...}`` or a state dict, as loaded from a
        file with ``weights_only=True``.
    settings : S4Settings
        Of its S4 layers; that code leaves upstream's defaults.

    Returns
    -------
    S4oPCheckpoint

    Raises
    ------
    CheckpointError
        If a tensor is missing, unknown, misshapen, nan or inf, or indices and rows do not fit; the
        key is named.
    UnsupportedOperationError
        For its Mamba checkpoints: selective layers are not linear.
    """
    where = "read_s4op"
    stored = checkpoint.get("model_state_dict", checkpoint)
    tensors = {name: stored[old] for name, old in without_wrappers(stored).items()}
    check_not_selective(tensors, where=where)
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(message(where, f"{name} is no tensor", got=type(tensor).__name__))
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                message(where, f"{name} holds nan or inf", expected="finite weights")
            )
    groups = _groups(tensors, where)
    family = next(iter(groups)).partition("_")[0]
    listed = checkpoint.get("active_idx_layers")
    if listed is not None and len(listed) != len(groups):
        raise CheckpointError(
            message(
                where,
                "active_idx_layers does not fit the layers",
                expected=f"{len(groups)} lists",
                got=f"{len(listed)}",
            )
        )
    layers, forms = [], set()
    for index, (name, own) in enumerate(groups.items()):
        norm = _part(tensors, f"norms.{index}.")
        layer, form = _layer(
            name, own, norm, None if listed is None else listed[index], settings, where
        )
        layers.append(layer)
        forms.add(form)
    width = layers[0].system.batch_shape[0]
    if any(layer.system.batch_shape[0] != width for layer in layers):
        raise CheckpointError(
            message(where, "the layers differ in width", got=f"{[x.name for x in layers]}")
        )
    embedding = _part(tensors, "embedding.") or _part(tensors, "encoder.")
    head = {n: t for n, t in tensors.items() if n.startswith(("fc.", "match."))}
    _check_rest(tensors, groups, len(layers), embedding, head, where)
    form = "new" if "new" in forms else "old" if "old" in forms else "full"
    return S4oPCheckpoint(family, form, width, tuple(layers), embedding, head)


def _groups(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of every layer by its name, in order."""
    found: dict[tuple[str, int], dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _LAYER.match(name)
        if match:
            key = (match[1], int(match[2]))
            found.setdefault(key, {})[name[match.end() :]] = tensor
    order = sorted(found)
    kinds = {kind for kind, _ in order}
    if len(kinds) != 1 or [index for _, index in order] != list(range(len(order))):
        raise CheckpointError(
            message(
                where,
                "the layers are not those of an S4oP network",
                expected="s4d_layers.0, s4d_layers.1, ... or s4_layers.0, ...",
                got=", ".join(f"{kind}_layers.{index}" for kind, index in order) or "none",
            )
        )
    return {f"{kind}_layers.{index}": found[kind, index] for kind, index in order}


def _layer(
    name: str,
    own: dict[str, torch.Tensor],
    norm: dict[str, torch.Tensor],
    listed: Any,
    settings: S4Settings,
    where: str,
) -> tuple[S4oPLayer, str]:
    mixing = _part(own, "output_linear.")
    weight = mixing.get("0.weight")
    if weight is None or weight.ndim not in (2, 3) or weight.shape[0] != 2 * weight.shape[1]:
        raise CheckpointError(
            message(
                where,
                f"{name}.output_linear.0.weight is missing or misshapen",
                expected="(2 H, H) or (2 H, H, 1)",
                got="nothing" if weight is None else f"{tuple(weight.shape)}",
            )
        )
    width = weight.shape[1]
    mask, buffer = (
        next((own[f"{place}{key}"] for place in _PLACES if f"{place}{key}" in own), None)
        for key in ("pruning_mask", "active_idx")
    )
    filter_tensors = {
        n: t
        for n, t in own.items()
        if not n.startswith("output_linear.")
        and n.rpartition(".")[2] not in ("pruning_mask", "active_idx")
    }
    read = read_s4d if name.startswith("s4d") else read_s4
    rows = _rows(filter_tensors, name, where)
    active, form = _active(name, width, rows, mask, buffer, listed, where)
    try:
        if rows == 0:
            system: LinearSystem = DiagonalSystem(
                np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((0, 1)),
                recurrence="post-update", real_output=True,
            )  # fmt: skip
        elif read is read_s4:
            _check_own_systems(filter_tensors, name, rows, where)
            system = read_s4(filter_tensors, settings)["core"]
        else:
            system = read_s4d(filter_tensors)["core"]
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    kept = active if form == "old" else np.arange(rows)
    return S4oPLayer(name, _placed(system, kept, active, width), active, mixing, norm), form


def _rows(tensors: Mapping[str, torch.Tensor], name: str, where: str) -> int:
    found = [t for key, t in tensors.items() if key.rpartition(".")[2] == "D"]
    if len(found) != 1:
        raise CheckpointError(message(where, f"{name}.D is missing", got=", ".join(tensors)))
    return found[0].shape[-1] if found[0].ndim else 0


def _active(
    name: str,
    width: int,
    rows: int,
    mask: torch.Tensor | None,
    buffer: torch.Tensor | None,
    listed: Any,
    where: str,
) -> tuple[np.ndarray, str]:
    """Return the active channels in the order of their rows, and the form that tells them."""
    if mask is not None:
        if mask.dtype != torch.bool or tuple(mask.shape) != (width,) or rows != width:
            raise CheckpointError(
                message(
                    where,
                    f"{name}: pruning_mask does not fit",
                    expected=f"({width},) bool beside {width} rows",
                    got=f"{mask.dtype} {tuple(mask.shape)} beside {rows}",
                )
            )
        return np.flatnonzero(mask.cpu().numpy()), "old"
    told = [np.asarray(x, dtype=np.int64).reshape(-1) for x in (listed, buffer) if x is not None]
    if len(told) == 2 and not np.array_equal(*told):
        raise CheckpointError(
            message(where, f"{name}.active_idx contradicts active_idx_layers", got=f"{told}")
        )
    if not told and rows != width:
        raise CheckpointError(
            message(
                where,
                f"{name} has {rows} rows of {width} channels and no list of which",
                expected="active_idx_layers beside model_state_dict",
                cure="Pass the whole checkpoint, not only its state dict.",
            )
        )
    active = told[0] if told else np.arange(width)
    fits = len(active) == rows and len(set(active.tolist())) == rows
    if not fits or (active < 0).any() or (active >= width).any():
        raise CheckpointError(
            message(
                where,
                f"{name}: the active channels do not fit the rows",
                expected=f"{rows} different numbers below {width}",
                got=f"{active.tolist()}",
            )
        )
    return active, "new" if rows < width or told else "full"


def _check_own_systems(
    tensors: Mapping[str, torch.Tensor], name: str, rows: int, where: str
) -> None:
    """Refuse parameters that heads share: which head a row was is not stored with them."""
    for key, tensor in tensors.items():
        if key.rpartition(".")[2] in ("A_real", "inv_w_real") and tensor.shape[0] != rows:
            raise CheckpointError(
                message(
                    where,
                    f"{name}.{key} is shared between heads, which a pruned layer cannot sort out",
                    expected=f"{rows} rows",
                    got=f"{tensor.shape[0]}",
                )
            )


def _placed(system: LinearSystem, kept: np.ndarray, active: np.ndarray, width: int) -> LinearSystem:
    """Put the rows of active channels in their places among all channels."""
    D = np.ones((width, 1, 1))
    D[active] = system.D[kept]
    if isinstance(system, DenseSystem):
        n = system.order
        A, B, C = np.zeros((width, n, n)), np.zeros((width, n, 1)), np.zeros((width, 1, n))
        A[active], B[active], C[active] = system.A[kept], system.B[kept], system.C[kept]
        return system.replace(A=A, B=B, C=C, D=D)
    n = system.order
    poles = np.zeros((width, n), dtype=np.complex128)
    B, C = np.zeros((width, n, 1), complex), np.zeros((width, 1, n), complex)
    poles[active], B[active], C[active] = system.poles[kept], system.B[kept], system.C[kept]
    return system.replace(poles=poles, B=B, C=C, D=D)


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _check_rest(
    tensors: Mapping[str, torch.Tensor],
    groups: Mapping[str, Any],
    depth: int,
    embedding: Mapping[str, Any],
    head: Mapping[str, Any],
    where: str,
) -> None:
    """Raise CheckpointError if tensors are left over, or parts of the network are missing."""
    known = (*(f"{name}." for name in groups), *(f"norms.{i}." for i in range(depth)))
    known = (*known, "embedding.", "encoder.", "fc.", "match.")
    for name in tensors:
        if not name.startswith(known):
            raise CheckpointError(message(where, f"{name} is unknown", expected=", ".join(known)))
    for index in range(depth):
        if f"norms.{index}.weight" not in tensors:
            raise CheckpointError(message(where, f"norms.{index}.weight is missing"))
    for name, part in (("embedding.weight", embedding), ("fc.weight", head)):
        if not part:
            raise CheckpointError(message(where, f"{name} is missing"))
