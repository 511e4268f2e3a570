"""Save and load networks without pickle: safetensors for the weights, a declaration for the rest.

A folder holds ``weights.safetensors`` and ``network.json``, and is all that is needed to rebuild
the network; the user's classes are not. Nothing in it is executed: see `declaration`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import fx, nn

from ssmred.errors import CheckpointError, SsmredError, UnsupportedOperationError, message
from ssmred.networks.cores import CORES
from ssmred.networks.declaration import declare, rebuild
from ssmred.networks.discovery import ImportedNetwork, check_weights, import_network
from ssmred.networks.filters import is_core
from ssmred.networks.reduced import ReducedSSM
from ssmred.networks.stand_ins import capture_for_storage, hidden_filters
from ssmred.networks.tracing import example_inputs
from ssmred.networks.writing import beside

__all__ = [
    "load_network",
    "load_weights_into",
    "save_network",
    "stored_network",
    "weights_sha256",
]

SCHEMA = 1
"""Version of ``network.json``."""

AGREEMENT = 1e-4
"""Of a network with its declaration on an example, relative to the largest output: float32 and a
few hundred operations."""

WEIGHTS, NETWORK = "weights.safetensors", "network.json"
_CONSTANT = "__constant__."
_FORMAT = "ssmred-network"


def weights_sha256(model: nn.Module) -> str:
    """Return the SHA-256 of all stored tensors of a network, as 64 hexadecimal digits.

    Over the sorted keys of the state dict: key, dtype, shape and bytes (little endian, row major).

    Parameters
    ----------
    model : nn.Module

    Examples
    --------
    >>> one, two = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> _ = two.load_state_dict(one.state_dict())
    >>> weights_sha256(one) == weights_sha256(two)
    True
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue  # a module's extra state is no weight
        flat = tensor.detach().cpu().contiguous()
        head = f"{key}\0{str(flat.dtype).removeprefix('torch.')}\0{tuple(flat.shape)}\0"
        digest.update(head.encode())
        digest.update(flat.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_network(model: nn.Module, folder: str | Path) -> Path:
    """Write a network, original or reduced, to a folder.

    Parameters
    ----------
    model : nn.Module
        Stored as it is in eval mode. Where an operation cannot be declared the weights are stored
        alone, and loading needs the user's class.
    folder : path-like
        Made if needed; other files in it stay.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CheckpointError
        If a weight is nan or inf.

    Notes
    -----
    Both files are complete beside their places before either is moved there, so an interrupted
    save leaves what was there before.
    """
    check_weights(model, "save_network")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        key: tensor.detach().cpu().contiguous().clone()  # tied weights are stored twice
        for key, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    record: dict[str, Any] = {"format": _FORMAT, "schema": SCHEMA}
    record["parameters"] = sorted(
        name for name, _ in model.named_parameters(remove_duplicate=False)
    )
    try:
        module = capture_for_storage(model)
        constants = _constants(module, tensors)
        record["declared"] = declare(module)
        _check_rebuilt(record, tensors | constants, model, module)
        tensors |= constants
    except UnsupportedOperationError as error:
        record |= {"declared": None, "reason": str(error)}

    record |= _without_complex(tensors)
    with beside(folder, lambda path: save_file(tensors, path)) as weights:
        record["weights_file_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        text = json.dumps(record, indent=1, allow_nan=False)
        with beside(folder, lambda path: path.write_text(text)) as network:
            os.replace(weights, folder / WEIGHTS)
            os.replace(network, folder / NETWORK)
    return folder


def load_network(folder: str | Path, *, model: nn.Module | None = None) -> nn.Module:
    """Read a network that `save_network` wrote, in eval mode.

    Parameters
    ----------
    folder : path-like
    model : nn.Module, optional
        The network before reduction, of the user's own class; the weights then go into a copy of
        it. Needed only where the operations could not be declared.

    Returns
    -------
    nn.Module
        Same state-dict keys, same outputs as the stored network. Without `model` a
        ``torch.fx.GraphModule``, rebuilt from the declaration.

    Raises
    ------
    CheckpointError
        If a file is missing, truncated, foreign or newer, the two do not belong together, or
        `model` is needed.
    """
    if model is not None:
        return load_weights_into(model, folder)
    record, tensors = _read(Path(folder))
    if record.get("declared") is None:
        raise CheckpointError(
            message(
                "load_network",
                f"{folder} holds the weights alone ({record.get('reason', 'no declaration')})",
                cure="Pass model=, an instance of the network's own class before reduction.",
            )
        )
    return _filled(record, tensors).eval()


def load_weights_into(model: nn.Module, folder: str | Path) -> nn.Module:
    """Return a copy of a network, of its own class, with the weights of a folder.

    Parameters
    ----------
    model : nn.Module
        The network before reduction or after; never modified. Its state-space layers are replaced
        by cores where the stored network has them.
    folder : path-like
        Written by `save_network`.

    Raises
    ------
    CheckpointError
        If the stored tensors are not those of this network: missing, extra, misshapen or of
        another dtype, by key.
    """
    _, tensors = _read(Path(folder))
    stored = {k: t for k, t in tensors.items() if not k.startswith(_CONSTANT)}
    same = set(stored) == set(model.state_dict())
    target = copy.deepcopy(model) if same else _with_stored_cores(import_network(model), stored)
    own = target.state_dict()
    free = {
        f"{path}.{name}".removeprefix(".")
        for path, module in target.named_modules()
        if is_core(module)
        for name in module.state_dict()
    }
    problems = [f"missing {key}" for key in sorted(set(own) - set(stored))]
    problems += [f"extra {key}" for key in sorted(set(stored) - set(own))]
    for key in sorted(set(own) & set(stored)):
        have, want = stored[key], own[key]
        sized = key in free or have.shape == want.shape  # reduced layers take any size
        if not sized or have.dtype != want.dtype:
            problems.append(
                f"{key} is {have.dtype} {tuple(have.shape)}, not {want.dtype} {tuple(want.shape)}"
            )
    if problems:
        raise CheckpointError(
            message(
                "load_weights_into",
                f"{folder} does not fit {type(model).__name__}: {'; '.join(problems[:6])}",
                cure="Pass the network that was reduced, built with the same settings and dtype.",
            )
        )
    target.load_state_dict(stored)
    return target.eval()


def stored_network(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, bool]]:
    """Return the weights in a folder of `save_network` by their keys, without building the network.

    Also, by path, whether the filters that the declaration lists are delayed.

    Raises
    ------
    CheckpointError
        As `load_network`.
    """
    record, tensors = _read(Path(folder))
    modules = (record.get("declared") or {}).get("modules", {})
    delayed = {
        path: bool(described["settings"]["delayed"])
        for path, described in modules.items()
        if "delayed" in described.get("settings", {}) and described.get("kind") in CORES
    }
    return {k: t for k, t in tensors.items() if not k.startswith(_CONSTANT)}, delayed


# Writing --------------------------------------------------------------------------------------


def _without_complex(tensors: dict[str, torch.Tensor]) -> dict[str, list[str]]:
    """Turn complex tensors into pairs, which the file format has; return which were, if any."""
    found = sorted(key for key, tensor in tensors.items() if tensor.is_complex())
    for key in found:
        tensors[key] = torch.view_as_real(tensors[key].resolve_conj()).contiguous()
    return {"complex": found} if found else {}


def _check_rebuilt(
    record: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    model: nn.Module,
    module: fx.GraphModule,
) -> None:
    """Run the network and what was recorded of it on an example; refuse what computes otherwise."""
    text = json.dumps(record, allow_nan=False)
    rebuilt = _filled(json.loads(text), dict(tensors)).eval()
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for example in example_inputs(module):
            try:
                # twice: what keeps a memory is no declaration
                wanted, again = (_first(model(example.clone())) for _ in range(2))
            except (RuntimeError, ValueError, TypeError, SsmredError):
                # not the shape this network takes
                continue
            for got in (again, _first(module(example.clone())), _first(rebuilt(example.clone()))):
                margin = AGREEMENT * wanted.abs().max()
                if got.shape != wanted.shape or not bool(((got - wanted).abs() <= margin).all()):
                    raise UnsupportedOperationError(
                        message(
                            "save_network", "the declaration does not compute what the network does"
                        )
                    )
            return


def _first(answer: Any) -> torch.Tensor:
    return answer if isinstance(answer, torch.Tensor) else next(filter(torch.is_tensor, answer))


# Reading --------------------------------------------------------------------------------------


def _with_stored_cores(imported: ImportedNetwork, stored: dict[str, torch.Tensor]) -> nn.Module:
    """Return an imported network with diagonal cores where the stored network has those."""
    other = {}
    for layer in imported.layers:
        place = f"{layer.core}."
        here = {key.removeprefix(place) for key in stored if key.startswith(place)}
        width = imported.core(layer.name).inputs
        if here == set(ReducedSSM.TENSORS) != set(imported.core(layer.name).TENSORS):
            other[layer.name] = ReducedSSM([0] * width)
    return imported.with_systems(other)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        record = json.loads((folder / NETWORK).read_text())
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            message(
                "load_network",
                f"{folder} holds no readable {NETWORK} and {WEIGHTS} ({error})",
                cure="Pass a folder written by save_network.",
            )
        ) from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise CheckpointError(message("load_network", f"{folder / NETWORK} is no stored network"))
    if record.get("schema") != SCHEMA:
        raise CheckpointError(
            message(
                "load_network",
                f"{folder / NETWORK} has another schema",
                expected=str(SCHEMA),
                got=repr(record.get("schema")),
                cure="Update ssmred.",
            )
        )
    if record.get("weights_file_sha256") != hashlib.sha256(data).hexdigest():
        raise CheckpointError(
            message(
                "load_network",
                f"{WEIGHTS} is not the file that {NETWORK} was written with",
                cure="The folder was changed or a save was interrupted; save again.",
            )
        )
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(message("load_network", f"{WEIGHTS} is damaged: {error}")) from error
    for key in record.get("complex", ()):
        if key not in tensors or tensors[key].shape[-1:] != (2,):
            raise CheckpointError(message("load_network", f"{key} holds no complex numbers"))
        tensors[key] = torch.view_as_complex(tensors[key])
    for key, tensor in tensors.items():
        inexact = tensor.is_floating_point() or tensor.is_complex()
        if inexact and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(message("load_network", f"{key} holds nan or inf"))
    return record, tensors


def _filled(record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> fx.GraphModule:
    """Rebuild a declared network and put the tensors in their places."""
    module = rebuild(record["declared"])
    parameters = set(record.get("parameters", ()))
    weights = {k: t for k, t in tensors.items() if not k.startswith(_CONSTANT)}
    built = {
        key
        for key, tensor in module.state_dict().items()
        if not (tensor.is_meta and tuple(tensor.shape) == (0,))  # not a place left free
    }
    hidden = _fill_hidden(module, tensors)
    for stored, tensor in tensors.items():
        key = stored.removeprefix(_CONSTANT)
        if key in built or stored in hidden:
            continue
        *path, name = key.split(".")
        owner: nn.Module = module
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner._buffers.pop(name, None)
        if key in parameters:
            owner.register_parameter(name, nn.Parameter(tensor))
        else:
            owner.register_buffer(name, tensor, persistent=key in weights)
    missing = sorted(set(module.state_dict()) - set(weights))
    if missing:
        raise CheckpointError(
            message("load_network", f"{WEIGHTS} lacks tensors", got=", ".join(missing[:6]))
        )
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            message("load_network", f"{WEIGHTS} does not fit: {error}")
        ) from error
    return module


def _fill_hidden(module: nn.Module, tensors: dict[str, torch.Tensor]) -> set[str]:
    """Give filters that stand in for layers their tensors; return the keys of these."""
    used: set[str] = set()
    for path, core in list(hidden_filters(module)):
        places = {name: f"{_CONSTANT}{path}.{name}".replace("..", ".") for name in core.TENSORS}
        missing = sorted(set(places.values()) - set(tensors))
        if missing:
            raise CheckpointError(
                message("load_network", f"{WEIGHTS} lacks tensors", got=", ".join(missing))
            )
        stands_for, core.stands_for = core.stands_for, None
        core.load_state_dict({name: tensors[key] for name, key in places.items()})
        core.stands_for = stands_for
        used |= set(places.values())
    return used


def _constants(module: fx.GraphModule, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors that the network reads and that are not in its state dict."""
    found = {}
    for node in module.graph.nodes:
        key = str(node.target)
        if node.op == "get_attr" and key not in tensors:
            value: Any = module
            for part in key.split("."):
                value = getattr(value, part)
            if not isinstance(value, torch.Tensor):
                raise UnsupportedOperationError(
                    message("save_network", f"{key} is read but is no tensor", got=f"{type(value)}")
                )
            found[_CONSTANT + key] = value.detach().cpu().contiguous().clone()
    for path, core in hidden_filters(module):
        for name in core.TENSORS:
            tensor: torch.Tensor = getattr(core, name)
            found[f"{_CONSTANT}{path}.{name}"] = tensor.detach().cpu().contiguous().clone()
    return found
