"""Read what ``ssmred prune`` shall do from a TOML file, strictly: a typing error is no default."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from ssmred.errors import RequestError, SsmredError, message
from ssmred.prune.options import Options
from ssmred.prune.recipe import Training

__all__ = ["ModelSource", "PruneConfig", "TaskChoice", "read_config"]


@dataclass(frozen=True)
class ModelSource:
    """Say where the network comes from: exactly one of `zoo`, `folder`, `factory` and `recipe`.

    Parameters
    ----------
    zoo : str, optional
        Name of a bundled network.
    folder : Path, optional
        Written by ``ssmred.networks.save_network``.
    factory : str, optional
        ``package.module:function``, a function without arguments that returns the network.
    recipe : mapping, optional
        Arguments of ``ssmred.networks.deep.DeepSSM``.
    weights : Path, optional
        A .safetensors file for a factory's network; a recipe needs one.
    """

    zoo: str | None = None
    folder: Path | None = None
    factory: str | None = None
    recipe: Mapping[str, Any] | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class TaskChoice:
    """Say which task of ``ssmred.tasks.load``, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PruneConfig:
    """Hold a whole configuration.

    Parameters
    ----------
    model : ModelSource
    task : TaskChoice
    options : mapping
        Keywords of ``ssmred.prune.progressive`` that were given.
    training : Training
        Of every candidate.
    text : str
        The file as it was read.
    """

    model: ModelSource
    task: TaskChoice
    options: Mapping[str, Any]
    training: Training
    text: str = ""


def read_config(path: str | Path) -> PruneConfig:
    """Return the configuration in a TOML file.

    Parameters
    ----------
    path : path-like
        Sections ``[model]``, ``[task]``, ``[prune]`` and ``[training]``, the latter two optional;
        ``ssmred prune --example`` prints one with every key. Files that it names are looked for
        from its folder.

    Raises
    ------
    RequestError
        If the file cannot be read, lacks a section or key, or has an unknown one or one of another
        type; the message names the key and those that there are.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        stored = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(
            message(
                str(path),
                f"this is no readable TOML file ({error})",
                cure="`ssmred prune --example` prints one to start from.",
            )
        ) from error
    reader = _Reader(path)
    reader.check_keys(stored, ("model", "task", "prune", "training"), "")
    for section in ("model", "task"):
        if section not in stored:
            raise reader.refused(f"there is no section [{section}]")
    for section, content in stored.items():
        if not isinstance(content, dict):
            raise reader.refused(f"{section} is a value, not a section", f"[{section}]")
    return PruneConfig(
        model=reader.model(stored["model"]),
        task=reader.task(stored["task"]),
        options=reader.options(stored.get("prune", {})),
        training=reader.training(stored.get("training", {})),
        text=text,
    )


class _Reader:
    """Turn sections into dataclasses; its errors name the file, the section and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refused(self, problem: str, expected: str = "", got: str = "", cure: str = "") -> Exception:
        return RequestError(message(str(self.path), problem, expected=expected, got=got, cure=cure))

    def check_keys(self, section: Mapping[str, Any], known: tuple[str, ...], name: str) -> None:
        for key in section:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                raise self.refused(
                    f"{name or 'the file'} has no {'key' if name else 'section'} {key!r}",
                    f"one of {', '.join(known)}",
                    cure=f"Did you mean {close[0]!r}?" if close else "",
                )

    def value(self, section: Mapping[str, Any], key: str, name: str, kind: Any) -> Any:
        """Return a value as a kind, a type or one of `_KINDS`."""
        words, convert = _KINDS[kind]
        try:
            return convert(section[key])
        except TypeError:
            raise self.refused(
                f"{name} {key} is of another type", words, repr(section[key])
            ) from None

    def model(self, section: Mapping[str, Any]) -> ModelSource:
        kinds = {"zoo": str, "folder": str, "factory": str, "recipe": dict, "weights": str}
        self.check_keys(section, tuple(kinds), "[model]")
        given = {key: self.value(section, key, "[model]", kinds[key]) for key in section}
        sources = [key for key in given if key != "weights"]
        if len(sources) != 1:
            raise self.refused(
                "[model] needs one source",
                "exactly one of zoo, folder, factory, recipe",
                ", ".join(sources) or "none",
            )
        if "weights" in given and sources[0] in ("zoo", "folder"):
            raise self.refused(f"[model] a {sources[0]} network brings its own weights")
        if "weights" not in given and sources[0] == "recipe":
            raise self.refused("[model] a recipe needs weights", "weights = 'FILE.safetensors'")
        for key in {"folder", "weights"} & set(given):
            given[key] = self.path.parent / given[key]
        return ModelSource(**given)

    def task(self, section: Mapping[str, Any]) -> TaskChoice:
        if "name" not in section:
            raise self.refused("[task] has no name", "name = 'listops', for example")
        name = self.value(section, "name", "[task]", str)
        return TaskChoice(name, {key: value for key, value in section.items() if key != "name"})

    def options(self, section: Mapping[str, Any]) -> dict[str, Any]:
        self.check_keys(section, tuple(_OPTIONS), "[prune]")
        given = {key: self.value(section, key, "[prune]", _OPTIONS[key]) for key in section}
        if "rates" in given and "targets" in given:
            raise self.refused("[prune] has both rates and targets", "one of them")
        try:
            Options(**given)
        except SsmredError as error:
            raise self.refused(f"[prune] {error}") from error
        return given

    def training(self, section: Mapping[str, Any]) -> Training:
        hints = get_type_hints(Training)
        known = tuple(entry.name for entry in fields(Training))
        self.check_keys(section, known, "[training]")
        given = {}
        for key in section:
            hint = hints[key]
            plain = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
            given[key] = self.value(section, key, "[training]", plain[0])
        try:
            return Training(**given)
        except SsmredError as error:
            raise self.refused(f"[training] {error}") from error


def _of(kind: type, *, but: tuple[type, ...] = ()) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, kind) or isinstance(value, but):
            raise TypeError
        return value

    return convert


_integer = _of(int, but=(bool,))


def _number(value: Any) -> float:
    return value if isinstance(value, float) else float(_integer(value))


def _listed(convert: Callable[[Any], Any]) -> Callable[[Any], tuple]:
    return lambda value: tuple(convert(entry) for entry in _of(list)(value))


def _targets(value: Any) -> dict[str, tuple[float, ...]]:
    return {key: _listed(_number)(entry) for key, entry in _of(dict)(value).items()}


_KINDS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    str: ("a text", _of(str)),
    bool: ("true or false", _of(bool)),
    int: ("a whole number", _integer),
    float: ("a number", _number),
    dict: ("a table", _of(dict)),
    "numbers": ("a list of numbers", _listed(_number)),
    "integers": ("a list of whole numbers", _listed(_integer)),
    "step": ('a number, or "all"', lambda value: None if value == "all" else _number(value)),
    "targets": ("a table of lists, for example { latency = [0.8, 0.6] }", _targets),
}

_OPTIONS: dict[str, Any] = {
    "rates": "numbers",
    "targets": "targets",
    "selection": str,
    "replacement": str,
    "order": int,
    "allocation": str,
    "repair": bool,
    "silence": float,
    "step": "step",
    "seeds": "integers",
    "repeats": int,
    "threads": int,
    "calibration": int,
    "seed": int,
}
"""Keywords of `progressive` that a file may give."""
