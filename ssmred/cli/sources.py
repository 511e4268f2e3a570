"""Read what the command line names: a model, its weights, data, an input set, a folder."""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmred.cli.console import BadInputError
from ssmred.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ssmred.certify import Certificate, InputSet
    from ssmred.prune.config import ModelSource

__all__ = [
    "Source",
    "check_new_folder",
    "check_result_folder",
    "input_set",
    "load_certificate",
    "load_configured",
    "load_data",
    "load_model",
    "needs_class",
    "zoo_data",
]

ZOO = "zoo:"
_RESULT = "result.json"


@dataclass(frozen=True, eq=False)
class Source:
    """Hold a model, where it came from, and the zoo's data with it if it is the zoo's."""

    name: str
    model: nn.Module
    zoo: Any = None


def load_model(text: str, weights: Path | None = None) -> Source:
    """Return the model that MODEL names: ``zoo:NAME`` or ``package.module:function``.

    Raises
    ------
    BadInputError
        If the text has neither form, or the factory cannot be imported or called.
    CheckpointError
        If the weights do not fit the model.
    """
    if text.startswith(ZOO):
        if weights is not None:
            raise BadInputError(f"{text} brings its own weights; leave --weights out")
        from ssmred import zoo

        name = text.removeprefix(ZOO)
        if name not in zoo.names():
            raise BadInputError(
                f"no bundled network is called {name!r}; there are: {', '.join(zoo.names())}"
            )
        model, data = zoo.load(name)
        return Source(text, model.eval(), data)
    model = _made_by_factory(text)
    if weights is not None:
        _fill_weights(model, weights)
    return Source(text, model.eval())


def load_configured(source: ModelSource) -> nn.Module:
    """Return the network that a configuration file names.

    Raises
    ------
    BadInputError
        If there is no such network, or the recipe is none.
    CheckpointError
        If the folder holds no network, or the weights do not fit.
    """
    if source.zoo is not None:
        return load_model(f"{ZOO}{source.zoo.removeprefix(ZOO)}").model
    if source.factory is not None:
        return load_model(source.factory, source.weights).model
    if source.folder is not None:
        from ssmred.networks import load_network

        return load_network(source.folder)
    from ssmred.networks.deep import DeepSSM

    try:
        model = DeepSSM(**(source.recipe or {}))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"[model] recipe: DeepSSM refuses it ({error})") from error
    if source.weights is not None:
        _fill_weights(model, source.weights)
    return model.eval()


def load_data(path: Path, model: nn.Module) -> torch.Tensor:
    """Return the array of inputs in a .npy, .npz or .safetensors file as a tensor.

    Floating-point numbers are cast to the type that the model computes in, integers (tokens) to
    int64; nothing is unpickled.

    Raises
    ------
    DataError
        If the file has another format, no single array of inputs, or no real numbers.
    """
    import torch

    if not path.is_file():
        raise DataError(f"--data: there is no file {path}")
    suffix = path.suffix.lower()
    readers = {".npy": _from_npy, ".npz": _from_npz, ".safetensors": _from_safetensors}
    if suffix not in readers:
        raise DataError(
            f"--data: cannot read {path.name}; expected a .npy, .npz or .safetensors file"
        )
    try:
        tensor = readers[suffix](path)
    except DataError:
        raise
    except Exception as error:  # the readers' own errors are many; a damaged file is one story
        raise DataError(
            f"--data: {path.name} is not a readable {suffix} file of numbers ({error}); "
            "write it with numpy.save, numpy.savez or safetensors (objects are never unpickled)"
        ) from error
    if tensor.is_floating_point():
        types = [p.dtype for p in model.parameters() if p.is_floating_point()]
        return tensor.to(types[0] if types else torch.float32)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(f"--data: expected real numbers or integer tokens, got {tensor.dtype}")
    return tensor.to(torch.int64)


def input_set(box: tuple[float, float] | None, text: str | None) -> InputSet | str | None:
    """Return the declared input set of ``--input-box`` or ``--inputs``, None for neither.

    Raises
    ------
    BadInputError
        If both are given, or the text is not ``data``, ``tokens`` or ``ball:R``.
    """
    if box is not None and text is not None:
        raise BadInputError("give --input-box or --inputs, not both: they declare the same thing")
    if box is None and text is None:
        return None
    from ssmred.certify import InputSet

    if box is not None:
        return InputSet.box(*box)
    if text == "data":
        return "data"
    if text == "tokens":
        return InputSet.tokens()
    kind, _, number = str(text).partition(":")
    if kind == "ball":
        try:
            radius = float(number)
        except ValueError:
            raise BadInputError(
                f"--inputs {text}: expected a number after the colon, for example ball:10"
            ) from None
        return InputSet.ball(radius)
    raise BadInputError(f"--inputs {text}: expected data, tokens or ball:RADIUS")


def check_new_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder that holds a result, unless forced, and one that holds anything else.

    Raises
    ------
    BadInputError
        The folder is replaced as a whole, so nothing but an earlier result may be in it.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"--out {folder} is a file; name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / _RESULT).is_file():
        raise BadInputError(
            f"--out {folder} holds other things than an earlier result; choose another folder"
        )
    if not force:
        raise BadInputError(
            f"--out {folder} holds an earlier result; choose another folder, or replace it with "
            "--force"
        )


def check_result_folder(folder: Path) -> None:
    """Refuse a folder that `ssmred reduce` did not write."""
    if not folder.is_dir():
        raise BadInputError(f"there is no folder {folder}; name what `ssmred reduce --out` wrote")
    missing = [name for name in (_RESULT, "certificate.json") if not (folder / name).is_file()]
    if missing:
        raise BadInputError(
            f"{folder} lacks {' and '.join(missing)}; "
            "name a folder that `ssmred reduce --out` wrote"
        )


def needs_class(folder: Path) -> bool:
    """Tell whether a result can only be read with the user's own class at hand."""
    try:
        return json.loads((folder / "network.json").read_text(encoding="utf-8"))["declared"] is None
    except (OSError, ValueError, KeyError, TypeError):
        return False  # damaged: reading it says how


def zoo_data(source: str | None) -> Any:
    """Return the bundled data of a result's source, None if it is not one of the zoo's."""
    if not source or not source.startswith(ZOO):
        return None
    from ssmred import zoo

    name = source.removeprefix(ZOO)
    return zoo.load(name)[1] if name in zoo.names() else None


def load_certificate(path: Path) -> Certificate:
    """Return the certificate in a file."""
    from ssmred.certify import Certificate

    return Certificate.load(path)


def _made_by_factory(text: str) -> nn.Module:
    from torch import nn

    module_name, _, attribute = text.partition(":")
    if not module_name or not attribute:
        raise BadInputError(
            f"MODEL {text!r} is neither zoo:NAME nor package.module:function "
            "(a function without arguments that returns the network)"
        )
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        made: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
        model = made()
    except Exception as error:  # user code may raise anything; all of it means: no model
        raise BadInputError(
            f"MODEL {text}: {type(error).__name__}: {error}. Expected an importable module "
            "(the current folder is searched first) with a function that takes no arguments "
            "and returns the network"
        ) from error
    if not isinstance(model, nn.Module):
        raise BadInputError(
            f"MODEL {text} returned {type(model).__name__}; expected a torch.nn.Module"
        )
    return model


def _fill_weights(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"weights: there is no file {path}")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"weights: {path.name} is not a safetensors file ({error}); convert the checkpoint "
            "with safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error
    own = model.state_dict()
    missing, extra = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    shapes = [
        f"{key} {tuple(stored[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(own.keys() & stored.keys())
        if stored[key].shape != own[key].shape
    ]
    faults = [("missing", missing), ("not in the model", extra), ("of another shape", shapes)]
    found = "; ".join(f"{kind}: {_shortened(keys)}" for kind, keys in faults if keys)
    if found:
        raise CheckpointError(
            f"weights: {path.name} does not fit the model. {found}. "
            "Let the factory build the network that was trained"
        )
    model.load_state_dict(stored)


def _shortened(keys: list[str]) -> str:
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return ", ".join(keys[:4]) + more


def _from_npy(path: Path) -> torch.Tensor:
    return _tensor(np.load(path, allow_pickle=False))


def _from_npz(path: Path) -> torch.Tensor:
    with np.load(path, allow_pickle=False) as stored:
        return _tensor(stored[_chosen(list(stored.files), path)])


def _from_safetensors(path: Path) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        return stored.get_tensor(_chosen(list(stored.keys()), path))


def _chosen(names: list[str], path: Path) -> str:
    if "inputs" in names:
        return "inputs"
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"--data: {path.name} holds {len(names)} arrays ({_shortened(sorted(names)) or 'none'}); "
        "expected one called 'inputs', or a single one"
    )


def _tensor(array: Any) -> torch.Tensor:
    import torch

    values = np.asarray(array)
    if values.dtype.kind not in "iufcb":
        raise DataError(f"--data: expected numbers, got an array of dtype {values.dtype}")
    if values.dtype.kind == "u" or values.dtype.byteorder == ">":
        values = values.astype(
            np.int64 if values.dtype.kind == "u" else values.dtype.newbyteorder("=")
        )
    if values.dtype == np.longdouble and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(values))
