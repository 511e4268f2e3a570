"""What an inspection returns: numbers, and the page that they make."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmred.pipeline.spare_states import LEVELS, THEOREM, Answers
from ssmred.report import plot_hankel_decay, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["InspectedFilter", "InspectedLayer", "Inspection"]

SCHEMA = 1
"""Version of the JSON."""

LISTED = 6
"""Names that are listed before "and so many more"."""


@dataclass(frozen=True, eq=False)
class InspectedFilter:
    """Hold the answers for one linear filter of a layer under one set of assumptions.

    Attributes
    ----------
    name : str
        The layer's; ``<layer>.backward`` for the filter on the reversed sequence.
    assumed : dict of str to Any
        What the file leaves open and was taken here; empty where nothing is left open.
    inputs, outputs, channels : int
        Features; independent systems (1 for a shared state).
    states : int
        Real states of all channels together.
    per_channel : (int, int)
        Fewest and most of one channel.
    answers : Answers
    """

    name: str
    assumed: dict[str, Any]
    inputs: int
    outputs: int
    channels: int
    states: int
    per_channel: tuple[int, int]
    answers: Answers


@dataclass(frozen=True, eq=False)
class InspectedLayer:
    """Hold what is known of one layer.

    Attributes
    ----------
    name, family : str
    facts : dict of str to Any
        Generation, and hints at the horizon.
    bidirectional : bool
    dtypes : dict of str to int
        Real numbers by dtype.
    numbers : int
        Real numbers in its state-space part.
    filters : tuple of InspectedFilter
        One per direction and assumption.
    silent : dict of str to str
        What no file of this family tells, and what that means for the answers.
    impossible : tuple of str
        Assumptions under which the tensors cannot be read, with the reason.
    """

    name: str
    family: str
    facts: dict[str, Any]
    bidirectional: bool
    dtypes: dict[str, int]
    numbers: int
    filters: tuple[InspectedFilter, ...]
    silent: dict[str, str]
    impossible: tuple[str, ...]

    @property
    def states(self) -> int:
        """Real states of the layer, both directions together."""
        first = self.filters[0].assumed
        return sum(f.states for f in self.filters if f.assumed == first)

    @property
    def open_options(self) -> dict[str, list[Any]]:
        """What the file leaves open and was not given, with the values that were assumed."""
        found: dict[str, list[Any]] = {}
        for one in self.filters:
            for name, value in one.assumed.items():
                if value not in found.setdefault(name, []):
                    found[name].append(value)
        return found


@dataclass(frozen=True, eq=False)
class Inspection:
    """Hold what a checkpoint is; prints as a page.

    Attributes
    ----------
    source, form, entry : str
        Where the tensors came from: name, kind of file, entry of a training checkpoint.
    others : tuple of str
        Entries that are no tensors and were left alone.
    tensors : int
    dtypes : dict of str to int
        Real numbers by dtype.
    numbers : int
        Real numbers in all floating-point tensors; a complex number is two.
    hints : dict of str to Any
        What files beside it, or a training checkpoint's own settings, say; never used.
    layers : tuple of InspectedLayer
    rest : tuple of str
        Names of the tensors that belong to no recognised state-space layer: mixing, norms, ...
    rest_numbers : int
    given : dict of str to Any
        The options that were given.
    """

    source: str
    form: str
    entry: str
    others: tuple[str, ...]
    tensors: int
    dtypes: dict[str, int]
    numbers: int
    hints: dict[str, Any]
    layers: tuple[InspectedLayer, ...]
    rest: tuple[str, ...]
    rest_numbers: int
    given: dict[str, Any]

    @property
    def families(self) -> dict[str, int]:
        """Number of layers by family."""
        found: dict[str, int] = {}
        for layer in self.layers:
            found[layer.family] = found.get(layer.family, 0) + 1
        return found

    @property
    def states(self) -> int:
        """Real states of all layers."""
        return sum(layer.states for layer in self.layers)

    def summary(self) -> str:
        """Return the page."""
        parts = [self._head(), self._sizes(), self._facts(), self._answers(), self._open()]
        return "\n\n".join(part for part in parts if part)

    __str__ = summary

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the Hankel singular values themselves, as JSON types."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "format": self.form,
            "entry": self.entry or None,
            "other_entries": list(self.others),
            "tensors": self.tensors,
            "dtypes": self.dtypes,
            "parameters": {
                "all": self.numbers,
                "state_space": self.numbers - self.rest_numbers,
                "in_no_layer": self.rest_numbers,
            },
            "in_no_layer": list(self.rest),
            "hints": _plain(self.hints),
            "given": _plain(self.given),
            "families": self.families,
            "states": self.states,
            "theorem": THEOREM,
            "layers": [_layer_dict(layer) for layer in self.layers],
        }

    def to_json(self) -> str:
        """Return `to_dict` as text; infinite numbers are ``"inf"``."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw how the Hankel singular values of every layer fall.

        Parameters
        ----------
        path : path-like, optional
            Also save the picture there.
        """
        curves = [
            (_label(f, _varying(layer)), f.answers.hankel)
            for layer in self.layers
            for f in layer.filters
            if f.answers.hankel is not None and f.answers.hankel.shape[1]
        ]
        return plot_hankel_decay(curves, path)

    # The page, part by part --------------------------------------------------------------------

    def _head(self) -> str:
        inside = f" (entry {self.entry!r})" if self.entry else ""
        lines = [
            f"{self.source}: {self.form}{inside}, {self.tensors} tensors, {self.numbers:,} "
            f"parameters ({_listed(self.dtypes)})",
            f"{len(self.layers)} state-space layer{'s' * (len(self.layers) != 1)} "
            f"({', '.join(f'{count} x {name}' for name, count in self.families.items())}): "
            f"{self.states:,} states, {self.numbers - self.rest_numbers:,} parameters",
        ]
        if self.rest:
            lines.append(
                f"{self.rest_numbers:,} parameters belong to no state-space layer: "
                f"{_listed(self.rest)}"
            )
        if self.others:
            lines.append(f"left alone, no tensors: {_listed(self.others)}")
        lines += [f"beside the tensors, {n}: {value}" for n, value in self.hints.items()]
        return "\n".join(lines)

    def _sizes(self) -> str:
        rows = []
        for layer in self.layers:
            first = layer.filters[0]
            low, high = first.per_channel
            rows.append(
                [
                    layer.name,
                    layer.family,
                    first.inputs,
                    first.outputs,
                    first.channels,
                    str(high) if low == high else f"{low} to {high}",
                    layer.states,
                    "yes" if layer.bidirectional else "no",
                    layer.numbers,
                    ", ".join(layer.dtypes),
                ]
            )
        titles = ["layer", "family", "in", "out", "channels", "states each", "states", "both ways"]
        return table(rows, [*titles, "parameters", "dtype"])

    def _facts(self) -> str:
        groups: dict[str, list[str]] = {}
        for layer in self.layers:
            text = "; ".join(f"{name}: {value}" for name, value in layer.facts.items())
            groups.setdefault(text, []).append(layer.name)
        return "\n".join(f"{_some(names, len(self.layers))}: {t}" for t, names in groups.items())

    def _answers(self) -> str:
        several = any(_varying(layer) for layer in self.layers)
        rows: list[list[Any]] = []
        problems = []
        for layer in self.layers:
            for one in layer.filters:
                answers = one.answers
                spare = answers.spare
                rows.append(
                    [
                        one.name,
                        *([_said(one, _varying(layer))] if several else []),
                        answers.margin,
                        answers.slowest,
                        answers.median,
                        answers.fastest,
                        *(_share(spare[k], one.states) if spare else None for k in LEVELS),
                    ]
                )
                if answers.problem:
                    problems.append(f"{one.name}: no Hankel singular values: {answers.problem}")
        titles = ["layer", *(["if"] if several else []), "1 - max|pole|", "slowest", "median"]
        text = table(rows, [*titles, "fastest", *(f"spare at {k:.0e}" for k in LEVELS)])
        text += (
            "\nslowest, median, fastest: time constants -1/log|pole| of the modes, in steps"
            "\nspare: states that balanced truncation leaves out of channels with 2 (sum of the "
            "tail of the\nHankel singular values) <= level x the largest: a bound on the "
            f"layer's own error ({THEOREM})"
        )
        return "\n".join([text, *dict.fromkeys(problems)])

    def _open(self) -> str:
        lines = []
        asked: dict[str, list[str]] = {}
        silent: dict[str, list[str]] = {}
        for layer in self.layers:
            for name, values in layer.open_options.items():
                text = f"{name}: assumed {' and '.join(map(str, values))}; --option {name}=..."
                asked.setdefault(text, []).append(layer.name)
            for name, meaning in layer.silent.items():
                if name not in self.given:
                    silent.setdefault(f"{name}: {meaning}", []).append(layer.name)
            lines += [f"{layer.name} cannot be read with {text}" for text in layer.impossible]
        told = [
            f"  {text} ({_some(names, len(self.layers))})"
            for group in (asked, silent)
            for text, names in group.items()
        ]
        if told:
            lines = ["Not in the file:", *told, *lines]
        return "\n".join(lines)


def _varying(layer: InspectedLayer) -> tuple[str, ...]:
    """Return the open options that more than one value was assumed for."""
    return tuple(name for name, values in layer.open_options.items() if len(values) > 1)


def _said(one: InspectedFilter, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={one.assumed[name]}" for name in names)


def _label(one: InspectedFilter, names: tuple[str, ...]) -> str:
    return f"{one.name} ({_said(one, names)})" if names else one.name


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else "0"


def _listed(names: Any) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _some(names: list[str], total: int) -> str:
    return "every layer" if len(names) == total > 1 else _listed(names)


def _layer_dict(layer: InspectedLayer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "family": layer.family,
        "facts": _plain(layer.facts),
        "bidirectional": layer.bidirectional,
        "dtypes": layer.dtypes,
        "parameters": layer.numbers,
        "states": layer.states,
        "not_in_the_file": {
            "assumed": _plain(layer.open_options),
            "cannot_be_read_with": list(layer.impossible),
            "others": layer.silent,
        },
        "filters": [_filter_dict(one) for one in layer.filters],
    }


def _filter_dict(one: InspectedFilter) -> dict[str, Any]:
    answers = one.answers
    spare = answers.spare
    return {
        "name": one.name,
        "assumed": _plain(one.assumed),
        "inputs": one.inputs,
        "outputs": one.outputs,
        "channels": one.channels,
        "states": one.states,
        "states_per_channel": list(one.per_channel),
        "stability_margin": _plain(answers.margin),
        "time_constants": _plain(
            {"slowest": answers.slowest, "median": answers.median, "fastest": answers.fastest}
        ),
        "spare_states": {f"{k:g}": spare[k] for k in spare} if spare else None,
        "problem": answers.problem or None,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)
