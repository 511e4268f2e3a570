"""The table of families: how to tell a layer's tensors, what they leave open, how to read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ssmred.errors import CheckpointError, RequestError, message
from ssmred.networks.adapters import dss, lqo, lru, s4_names, s4_reading, s4d_reading, s5
from ssmred.networks.adapters.s4_settings import DISCRETISATIONS, UPSTREAM, S4Settings
from ssmred.networks.checkpoints.stored_cores import read_core, recognises_core
from ssmred.networks.cores import CORES
from ssmred.networks.filters import LinearFilter
from ssmred.systems.linear import LinearSystem

__all__ = ["FAMILIES", "Family", "family_named", "whole_number", "yes_or_no"]

Tensors = Mapping[str, torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]
Filters = Mapping[str, LinearSystem | LinearFilter]


def _nothing(_tensors: Tensors) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Family:
    """Say what there is to know about one family of stored layers; the table holds one line each.

    Attributes
    ----------
    name : str
    recognises : callable
        ``recognises(names_to_shapes)``: whether named tensors, those of one place in a checkpoint,
        are the kernel of such a layer.
    read : callable
        ``read(tensors, **options)``: systems, or cores, by filter name.
    options : dict of str to callable
        What the tensors may leave open, and what makes a value of it.
    asks : callable
        ``asks(tensors)``: the options left open by these tensors, each with the values to answer
        for where none is given, the usual one first.
    facts : callable
        ``facts(tensors)``: ``{"generation": ..., and hints}``.
    free : tuple of str
        Options that no tensors tell and that need no answer.
    markers : frozenset of str
        Last parts of names; two of them in one place that is not recognised are a damaged layer.
    above : tuple of str
        Tensors of the layer that lie above its kernel.
    silent : dict of str to str
        What no such file says, with what it means for the answers.
    """

    name: str
    recognises: Callable[[Shapes], bool]
    read: Callable[..., Filters]
    options: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    asks: Callable[[Tensors], dict[str, tuple[Any, ...]]] = _nothing
    facts: Callable[[Tensors], dict[str, Any]] = _nothing
    free: tuple[str, ...] = ()
    markers: frozenset[str] = frozenset()
    above: tuple[str, ...] = ()
    silent: Mapping[str, str] = field(default_factory=dict)

    def chosen(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return those options that this family knows."""
        return {n: make(options[n]) for n, make in self.options.items() if n in options}


def whole_number(value: Any) -> int:
    """Return an option's value as a whole number or raise RequestError."""
    try:
        if isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise RequestError(message("inspect", "no whole number", got=repr(value)))


def yes_or_no(value: Any) -> bool:
    """Return an option's value as a bool or raise RequestError."""
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() in known:
        return known[str(value).lower()]
    raise RequestError(message("inspect", "no yes or no", expected="true or false", got=f"{value}"))


def _real_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RequestError(message("inspect", "no number", got=repr(value))) from None


def _text(value: Any) -> str:
    return str(value)


# S4: diagonal and with a low-rank term -----------------------------------------------------------

_GENERATIONS = {
    "A_real": "state-spaces/s4, version 4",
    "inv_A_real": "state-spaces/s4, version 3, diagonal",
    "inv_w_real": "state-spaces/s4, version 3",
    "log_w_real": "state-spaces/s4, version 2",
    "log_A_real": "state-spaces/s4, version 2, diagonal",
}


def _s4_names(tensors: Tensors) -> s4_names.S4Names:
    short = {name: tuple(tensors[old].shape) for name, old in _bare(tensors).items()}
    return s4_names.find_names(short, where="inspect")


def _bare(tensors: Tensors) -> dict[str, str]:
    return s4_names.without_wrappers(tensors)


def _read_s4(tensors: Tensors, **options: Any) -> Filters:
    return s4_reading.read_s4(tensors, S4Settings(swap_channels=False).replace(**options))


def _s4_asks(tensors: Tensors) -> dict[str, tuple[Any, ...]]:
    names = _s4_names(tensors)
    open_ones: dict[str, tuple[Any, ...]] = {} if names.rank else {"disc": DISCRETISATIONS[:2]}
    for name in ("real_transform", "imag_transform", "dt_transform"):
        open_ones[name] = (getattr(UPSTREAM, name),)
    open_ones = {name: values for name, values in open_ones.items() if name not in names.told}
    if names.rank and not names.length:
        open_ones["length"] = (0,)
    return open_ones


def _s4_facts(tensors: Tensors) -> dict[str, Any]:
    names = _s4_names(tensors)
    facts: dict[str, Any] = {
        "generation": _GENERATIONS[names.real.rpartition(".")[2]],
        "matrix": f"diagonal plus rank {names.rank}" if names.rank else "diagonal",
    }
    if names.systems != names.heads:
        facts["shared systems (n_ssm)"] = names.systems
    if names.channels > 1:
        facts["copies (channels)"] = names.channels
    if names.length:
        length = int(tensors[_bare(tensors)[names.length]].reshape(()))
        facts["horizon (l_kernel)"] = length or "none yet: C was never made for a length"
    return facts


_S4 = Family(
    name="s4",
    recognises=s4_names.recognises_tensors,
    read=_read_s4,
    options={
        one.name: {"length": whole_number, "swap_channels": yes_or_no}.get(
            one.name, _real_number if one.name == "bandlimit" else _text
        )
        for one in fields(S4Settings)
        if one.name != "trust"  # of two realisations, a class without which there is but one
    },
    asks=_s4_asks,
    facts=_s4_facts,
    free=("bandlimit", "swap_channels"),
    markers=frozenset(
        [
            "A_real",
            "inv_A_real",
            "inv_w_real",
            "log_w_real",
            "A_imag",
            "w_imag",
            "inv_dt",
            "l_kernel",
        ]
    ),
    above=("D",),
    silent={
        "bandlimit": "none, unless given as an option",
        "swap_channels": "the order of outputs only",
        "dropout, activation, layout": "not needed for these answers",
    },
)

# The others --------------------------------------------------------------------------------------

_S4D = Family(
    name="s4d",
    recognises=s4d_reading.recognises_tensors,
    read=s4d_reading.read_s4d,
    facts=lambda _: {"generation": "state-spaces/s4, minimal", "discretisation": "zero-order hold"},
    markers=frozenset({"log_A_real", "A_imag", "log_dt"}),
    above=("D",),
    silent={
        "training length": "S4D has none",
        "dropout, activation, layout": "not needed for these answers",
    },
)

_DSS = Family(
    name="dss",
    recognises=dss.recognises_tensors,
    read=dss.read_dss,
    options={"imag_exp": yes_or_no},
    asks=lambda _: {"imag_exp": (True, False)},
    facts=lambda _: {"generation": "gated-state-spaces-pytorch", "step": "1"},
    markers=frozenset({"Lambda_real", "Lambda_imag", "param_D"}),
)


def _s5_asks(tensors: Tensors) -> dict[str, tuple[Any, ...]]:
    short = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    asks: dict[str, tuple[Any, ...]] = {"discretisation": s5.DISCRETISATIONS}
    if "Lambda_re" in short:  # the package stores whole spectra and clips nothing
        asks["conj_sym"] = (True, False)
        if bool((short["Lambda_re"] > s5.CLIPPED_AT).any()):
            asks["clip_eigs"] = (False, True)
    return asks


def _s5_facts(tensors: Tensors) -> dict[str, Any]:
    package = any(name.rpartition(".")[2] == "Lambda" for name in tensors)
    return {"generation": "s5-pytorch" if package else "lindermanlab/S5, the original"}


_S5 = Family(
    name="s5",
    recognises=s5.recognises_tensors,
    read=s5.read_s5,
    options={
        "discretisation": _text,
        "conj_sym": yes_or_no,
        "clip_eigs": yes_or_no,
        "step_scale": _real_number,
    },
    asks=_s5_asks,
    facts=_s5_facts,
    free=("step_scale",),
    markers=frozenset({"Lambda_re", "Lambda_im", "Lambda", "log_step"}),
    silent={
        "step_scale": "1, unless given as an option",
        "liquid": "a layer whose poles move with the input has the same tensors, and no system",
    },
)


def _lru_facts(tensors: Tensors) -> dict[str, Any]:
    names = {name.rpartition(".")[2] for name in tensors}
    kinds = {"Bp": "neural-ssm", "B_re": "minimal-LRU or lru-reduction", "B": "LRU-pytorch"}
    return {"generation": next((kinds[name] for name in kinds if name in names), "LRU")}


_LRU = Family(
    name="lru",
    recognises=lru.recognises_tensors,
    read=lru.read_lru,
    options={"delayed": yes_or_no, "doubled": yes_or_no},
    facts=_lru_facts,
    free=("delayed", "doubled"),
    markers=frozenset({"nu_log", "theta_log", "gamma_log"}),
    silent={"delayed, doubled": "not needed for these answers"},
)


_LQO = Family(
    name="lqo",
    recognises=lqo.recognises_tensors,
    read=lqo.read_lqo,
    facts=lambda _: {"generation": "ssmred, quadratic outputs"},
    silent={"squares": "the filter before them; rows that are squared count like the others"},
)


def _core(kind: str) -> Family:
    late = kind != "ReducedSSM"
    return Family(
        name=f"ssmred {kind}",
        recognises=lambda shapes: recognises_core(kind, shapes),
        read=lambda tensors, **options: read_core(kind, tensors, **options),
        options={"delayed": yes_or_no} if late else {},
        asks=(lambda _: {"delayed": (False, True)}) if late else _nothing,
        facts=lambda _: {"generation": "ssmred, imported or reduced"},
        markers=frozenset({"poles", "residues", "offsets"} if not late else ()),
    )


FAMILIES: tuple[Family, ...] = (_S4D, _S4, _DSS, _S5, _LQO, _LRU, *(_core(kind) for kind in CORES))
"""Families in the order in which they are asked; one line here makes a family known."""


def family_named(name: str) -> Family:
    """Return a family of the table."""
    found = next((family for family in FAMILIES if family.name == name), None)
    if found is None:
        raise CheckpointError(message("inspect", f"there is no family {name}"))
    return found
