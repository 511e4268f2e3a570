"""Read named tensors from files; nothing in a file is ever executed."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ssmred.errors import CheckpointError, SsmredError, message
from ssmred.networks.adapters.s4_names import without_wrappers
from ssmred.networks.storage import stored_network

__all__ = ["StoredTensors", "as_stored", "read_file"]

WHERE = "inspect"

ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "params", "weights")
"""Where training code keeps a network's tensors beside other things, the likeliest first."""

SETTINGS = (
    "l_max",
    "l_kernel",
    "L",
    "T",
    "seq_len",
    "length",
    "disc",
    "prenorm",
    "d_state",
    "d_model",
    "n_layers",
    "bidirectional",
    "mode",
    "real_transform",
    "imag_transform",
    "dt_transform",
    "discretization",
    "discretisation",
    "clip_eigs",
    "conj_sym",
    "imag_exp",
)
"""Names of hyperparameters that are worth repeating where a training checkpoint has them."""

_LONGEST_HEADER = 100_000_000
"""Of a safetensors file, by its specification."""

_ROWS = "active_idx_layers"
"""Entry of S4oP checkpoints that says which channels the rows are."""

_OUTER = "model."
"""What a training module puts before every name."""

_SAFE = (
    "Save the tensors alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
    ", or torch.save(model.state_dict(), 'weights.pt')"
)


@dataclass(frozen=True, eq=False)
class StoredTensors:
    """Hold the tensors of a checkpoint and what else it says.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        Without the prefixes of wrappers (``module.``, ``_orig_mod.``, a ``model.`` before all);
        with dots for the slashes of flattened trees.
    form : str
        What kind of file it was.
    entry : str
        Entry of a training checkpoint that held them, empty if they stood alone.
    others : tuple of str
        Entries that are no tensors and were left alone.
    beside : dict
        Entries that readers use: ``active_idx_layers`` of S4oP.
    delayed : dict of str to bool
        Path of a stored filter to whether it is delayed, where a declaration says so.
    hints : dict of str to int, str or None
        What files beside it, or a training checkpoint's own settings, say; never used.
    """

    tensors: dict[str, torch.Tensor]
    form: str
    entry: str = ""
    others: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    delayed: dict[str, bool] = field(default_factory=dict)
    hints: dict[str, Any] = field(default_factory=dict)


def read_file(path: str | Path) -> StoredTensors:
    """Return the tensors of a checkpoint.

    Parameters
    ----------
    path : path-like
        A ``.safetensors`` file, a file of ``torch.save`` (read with ``weights_only=True``), an
        ``.npz`` of arrays, or a folder of `save_network` or ``ssmred reduce``. What counts is what
        is inside, not the suffix.

    Raises
    ------
    CheckpointError
        If there is no such file, it is truncated or of another kind, or holds pickled objects.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise CheckpointError(message(WHERE, f"there is no file {path}"))
    with path.open("rb") as file:
        head = file.read(9)
    # its first eight bytes are a length, and may look like the beginning of anything
    is_safe = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER
    if is_safe:
        return _from_safetensors(path)
    if head[:4] == b"PK\x03\x04" and _is_npz(path):
        return _from_npz(path)
    if head[:1] == b"\x80" or head[:2] == b"PK":
        return _from_torch(path)
    if path.suffix == ".safetensors":  # cut off before its header
        return _from_safetensors(path)
    raise CheckpointError(
        message(
            WHERE,
            f"{path.name} is {'empty' if not head else 'no checkpoint of a known kind'}",
            expected="safetensors, a file of torch.save, .npz, or a folder that ssmred wrote",
            got=f"a file that begins with {head!r}",
            cure=f"{_SAFE}; parameters of JAX: numpy.savez of the flattened tree.",
        )
    )


def as_stored(values: Any, form: str = "tensors", name: str = "the mapping") -> StoredTensors:
    """Return the tensors of a state dict, or of a training checkpoint that holds one.

    Parameters
    ----------
    values : mapping
        Names to tensors or arrays; nested mappings are joined with dots.
    form, name : str
        For the report and for errors.

    Raises
    ------
    CheckpointError
        If it holds no tensors, or two names are the same without the prefixes of wrappers.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(
            message(
                WHERE,
                f"{name} holds no named tensors",
                expected="a state dict, or a checkpoint with one",
                got=type(values).__name__,
                cure=f"{_SAFE}.",
            )
        )
    entry, chosen = "", values
    if not any(_is_array(value) for value in values.values()):
        held = [
            k for k in ENTRIES if isinstance(values.get(k), Mapping) and _flattened(values[k])[0]
        ]
        if held:
            entry, chosen = held[0], values[held[0]]
    tensors, others = _flattened(chosen)
    if not tensors:
        raise CheckpointError(
            message(
                WHERE,
                f"{name} holds no tensors",
                expected=f"tensors, or an entry {', '.join(ENTRIES)} with tensors",
                got=", ".join(map(str, list(values)[:8])) or "nothing",
            )
        )
    if entry:
        others = (*(str(key) for key in values if key not in (entry, _ROWS)), *others)
    hints = (
        _settings({key: value for key, value in values.items() if key != entry}) if entry else {}
    )
    beside = {key: values[key] for key in (_ROWS,) if entry and key in values}
    return StoredTensors(_unwrapped(tensors, name), form, entry, tuple(others), beside, {}, hints)


def _settings(values: Mapping[Any, Any], path: str = "") -> dict[str, Any]:
    """Return known hyperparameters in nested mappings by their paths; they are never used."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _settings(value, f"{path}{key}.")
        elif key in SETTINGS and isinstance(value, (bool, int, float, str)):
            found[f"{path}{key}"] = value
    return found


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _flattened(values: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Return the tensors of nested mappings by joined names, and the names of what is none."""
    tensors: dict[str, torch.Tensor] = {}
    others: list[str] = []
    for key, value in values.items():
        if _is_array(value):
            tensors[str(key)] = _tensor(str(key), value)
        elif isinstance(value, Mapping):
            inner, rest = _flattened(value)
            tensors |= {f"{key}.{name}": tensor for name, tensor in inner.items()}
            others += [f"{key}.{name}" for name in rest] if inner else [str(key)]
        else:
            others.append(str(key))
    return tensors, tuple(others)


def _tensor(key: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    if value.dtype.kind not in "biufc":
        raise CheckpointError(message(WHERE, f"{key} is no array of numbers", got=f"{value.dtype}"))
    if value.dtype.kind == "f" and value.dtype.itemsize > 8:
        raise CheckpointError(
            message(WHERE, f"{key} is {value.dtype}", expected="float64 or shorter")
        )
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))


def _unwrapped(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    dotted = {key.replace("/", "."): tensor for key, tensor in tensors.items()}
    found = {short: dotted[long] for short, long in without_wrappers(dotted).items()}
    if len(found) < len(tensors):
        raise CheckpointError(
            message(
                WHERE,
                f"{name} holds two tensors that differ in the prefixes of wrappers only",
                cure="Pass one network's state dict.",
            )
        )
    if all(key.startswith(_OUTER) for key in found):
        found = {key.removeprefix(_OUTER): tensor for key, tensor in found.items()}
    return found


# One reader per kind of file ---------------------------------------------------------------------


def _from_safetensors(path: Path) -> StoredTensors:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            message(
                WHERE,
                f"{path.name} is truncated or damaged ({error})",
                expected="a whole safetensors file",
                cure="Copy or download it again.",
            )
        ) from error
    return as_stored(tensors, "safetensors", path.name)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return path.suffix == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def _from_npz(path: Path) -> StoredTensors:
    try:
        # opened here: NumPy leaves a damaged file open
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            message(
                WHERE,
                f"{path.name} is damaged, or holds pickled objects, which are never loaded "
                f"({error})",
                expected="one array of numbers per name",
                cure="Save arrays alone: numpy.savez(path, **{name: numpy.asarray(x)}) of the "
                "flattened parameters.",
            )
        ) from error
    return as_stored(arrays, "npz", path.name)


def _from_torch(path: Path) -> StoredTensors:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which are refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise CheckpointError(
            message(
                WHERE,
                f"{path.name} holds pickled objects beside tensors, which are never loaded "
                f"({reason or 'a bare pickle'})",
                expected="tensors, numbers and text (torch.load with weights_only=True)",
                cure=f"{_SAFE}, where the network can be built.",
            )
        ) from error
    except Exception as error:  # torch's own errors are many; a damaged file is one story
        first = str(error).partition("\n")[0]
        raise CheckpointError(
            message(
                WHERE,
                f"{path.name} is truncated, damaged or no file of torch.save ({first})",
                cure="Copy or download it again.",
            )
        ) from error
    return as_stored(loaded, "torch file", path.name)


def _from_folder(folder: Path) -> StoredTensors:
    if not (folder / "network.json").is_file():
        inside = sorted(p.name for p in folder.iterdir() if p.is_file())[:6]
        raise CheckpointError(
            message(
                WHERE,
                f"{folder} is a folder",
                expected="a file, or a folder that save_network or `ssmred reduce` wrote",
                got=f"files {', '.join(inside)}" if inside else "no files in it",
                cure="Name the file with the weights.",
            )
        )
    try:
        tensors, delayed = stored_network(folder)
    except SsmredError as error:
        raise CheckpointError(f"{WHERE}: {error}") from error
    stored = as_stored(tensors, "ssmred network", folder.name)
    hints: dict[str, Any] = {}
    result = _json(folder / "result.json")
    if isinstance(result.get("states"), list) and len(result["states"]) == 2:
        hints["reduced from"] = f"{result['states'][1]} states, by {result.get('method', 'subset')}"
        hints["original"] = str(folder / "original")
    certificate = _json(folder / "certificate.json")
    if "horizon" in certificate:
        hints["horizon of the certificate"] = certificate["horizon"] or "every length"
    return StoredTensors(
        stored.tensors, stored.form, stored.entry, stored.others, {}, delayed, hints
    )


def _json(path: Path) -> dict[str, Any]:
    """Return what a file beside the weights says; it is a convenience, not a need."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
