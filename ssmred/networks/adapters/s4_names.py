"""Find the tensors of an S4 layer among named ones, in every generation of its key names.

=============  ===============  ==================  ==================  =================
state-spaces   step             real part           imaginary part      length of C
=============  ===============  ==================  ==================  =================
version 4      ``inv_dt``       ``A_real``          ``A_imag``, ``-i``  ``l_kernel``
version 3      ``log_dt``       ``inv_w_real``      ``w_imag``, ``+i``  ``L``
diagonal       ``log_dt``       ``inv_A_real``      ``A_imag``, ``+i``  none
version 2      ``log_dt``       ``log_w_real``      ``w_imag``, ``+i``  ``L``
diagonal       ``log_dt``       ``log_A_real``      ``A_imag``, ``+i``  none
=============  ===============  ==================  ==================  =================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ssmred.errors import CheckpointError, UnsupportedOperationError, message

__all__ = [
    "S4Names",
    "check_not_selective",
    "find_names",
    "recognises_tensors",
    "without_wrappers",
]

Shapes = Mapping[str, tuple[int, ...]]

_STEPS = ("inv_dt", "log_dt")
_REALS = ("A_real", "inv_A_real", "inv_w_real", "log_w_real", "log_A_real")
_KERNEL = {"C", "B", "P", "A_imag", "w_imag", "l_kernel", "L", *_STEPS, *_REALS}
_UNUSED = {"A"}  # version 3 stores its initial A too and never reads it
_BESIDE_D = {"D", "active_idx", "pruning_mask"}
_SELECTIVE = ("A_log", "x_proj.weight", "dt_proj.weight", "conv1d.weight")


@dataclass(frozen=True)
class S4Names:
    """Name the tensors of one layer; an empty string means there is none.

    Attributes
    ----------
    D, C, B, P, step, real, imag, length : str
        Keys.
    heads, systems, modes, rank : int
        H, n_ssm, N/2, and the rank of P (0 for a diagonal layer).
    channels : int
        Copies of every head, ``D.shape[0]``.
    directions : int
        2 for a bidirectional layer.
    """

    D: str
    C: str
    B: str
    P: str
    step: str
    real: str
    imag: str
    length: str
    heads: int
    systems: int
    modes: int
    rank: int
    channels: int
    directions: int

    @property
    def is_current(self) -> bool:
        """Whether these are the names of version 4, with ``A = -f(A_real) - i g(A_imag)``."""
        return self.real.rpartition(".")[2] == "A_real"

    @property
    def told(self) -> dict[str, str]:
        """The settings that the names tell."""
        real = self.real.rpartition(".")[2]
        settings = {} if self.is_current else {"imag_transform": "none"}
        if not self.imag:
            settings["imag_transform"] = "none"
        if real.startswith("log_"):
            settings["real_transform"] = "exp"
        if self.step.rpartition(".")[2] == "log_dt":
            settings["dt_transform"] = "exp"
        if self.rank:
            settings["disc"] = "bilinear"
        return settings


def recognises_tensors(names_to_shapes: Shapes) -> bool:
    """Tell whether named tensors are those of one S4 layer, diagonal or with a low-rank term.

    Parameters
    ----------
    names_to_shapes : mapping of str to tuple of int
        As in a state dict of the layer: its D, its kernel, whatever else it has.
    """
    return len(_kernels(names_to_shapes)) == 1


def find_names(names_to_shapes: Shapes, *, where: str = "read_s4") -> S4Names:
    """Return the names of a layer's tensors and its sizes.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unknown or misshapen; the key is named.
    UnsupportedOperationError
        If the layer is a selective one.
    """
    check_not_selective(names_to_shapes, where=where)
    kernels = _kernels(names_to_shapes) or _kernels(names_to_shapes, complete=False)
    if len(kernels) != 1:
        raise CheckpointError(
            message(
                where,
                f"{'no' if not kernels else 'more than one'} S4 kernel among the tensors",
                expected=f"one set of C, B, {' or '.join(_STEPS)}, {' or '.join(_REALS)}",
                got=", ".join(sorted(names_to_shapes)) or "nothing",
            )
        )
    prefix = kernels[0]
    own = _own(names_to_shapes, prefix)
    D = _outer_name(names_to_shapes, prefix, where)
    outside = _own(names_to_shapes, D.removesuffix("D")) - _BESIDE_D - own
    unknown = sorted(own - _KERNEL - _UNUSED - _BESIDE_D)
    unknown = [f"{prefix}{n}" for n in unknown] + [f"{D.removesuffix('D')}{n}" for n in outside]
    if unknown:
        raise CheckpointError(
            message(where, f"{unknown[0]} is unknown", expected=f"{', '.join(sorted(_KERNEL))}")
        )

    def key(*names: str, optional: bool = False) -> str:
        present = [name for name in names if name in own]
        if len(present) > 1 or not (present or optional):
            raise CheckpointError(
                message(
                    where,
                    f"{prefix}{' or '.join(names)} is {'missing' if not present else 'ambiguous'}",
                    got=", ".join(f"{prefix}{name}" for name in sorted(own)),
                )
            )
        return f"{prefix}{present[0]}" if present else ""

    real = key(*_REALS)
    C = key("C")
    is_real = len(names_to_shapes[C]) == 3 and not own & {"A_imag", "w_imag"}
    imag = "" if is_real else key("w_imag" if "w_real" in real else "A_imag")
    P = key("P", optional=True)
    names = S4Names(
        D, C, key("B"), P, key(*_STEPS), real, imag, key("l_kernel", "L", optional=True),
        *(0,) * 6,
    )  # fmt: skip
    return _with_sizes(names, names_to_shapes, where)


def _with_sizes(names: S4Names, shapes: Shapes, where: str) -> S4Names:
    """Fill in the sizes and check every shape against them."""
    C, D = shapes[names.C], shapes[names.D]
    pair = (2,) if names.imag else ()
    if len(C) != 3 + len(pair) or (pair and C[-1] != 2):
        raise _misshapen(names.C, f"(channels, H, N/2{', 2' if pair else ''})", C, where)
    directions = 2 if len(D) == 2 and C[0] == 2 * D[0] else 1
    heads, modes = C[1], C[2]
    systems = shapes[names.real][0] if shapes[names.real] else 0
    if heads == 0 or modes == 0:
        raise _misshapen(names.C, "H >= 1 and N >= 2", C, where)
    if systems < 1 or heads % systems:
        raise _misshapen(
            names.real,
            f"(n_ssm, {modes}) with n_ssm a divisor of {heads}",
            shapes[names.real],
            where,
        )
    rank = shapes[names.P][0] if names.P and shapes[names.P] else 0
    old_diagonal = not names.is_current and not names.P
    steps = {(heads,), (heads, 1)} | ({(heads, modes)} if not names.P else set())
    wanted = {
        names.D: {(C[0] // directions, heads)},
        names.B: {(1, systems, modes, *pair)}
        | ({(systems, modes, *pair)} if old_diagonal else set()),
        names.step: steps,
        names.real: {(systems, modes)},
        names.imag: {(systems, modes)},
        names.P: {(max(rank, 1), systems, modes, 2)},
        names.length: {(), (1,)},
    }
    for name, allowed in wanted.items():
        if name and shapes[name] not in allowed:
            raise _misshapen(name, " or ".join(map(str, sorted(allowed))), shapes[name], where)
    if names.P and not names.imag:
        raise _misshapen(names.C, "complex pairs beside a P", C, where)
    values = {
        "heads": heads,
        "systems": systems,
        "modes": modes,
        "rank": rank,
        "channels": C[0] // directions,
        "directions": directions,
    }
    return S4Names(**{**vars(names), **values})


def check_not_selective(names: Iterable[str], *, where: str) -> None:
    """Raise UnsupportedOperationError for the tensors of a selective layer."""
    found = {}
    for name in names:
        for kind in _SELECTIVE:
            if name == kind or name.endswith(f".{kind}"):
                found.setdefault(kind, name)
    if len(found) > 1:
        raise UnsupportedOperationError(
            message(
                where,
                f"{', '.join(sorted(found.values()))} belong to a selective layer (Mamba): its "
                "step, B and C depend on the input, so it has no impulse response and is no linear "
                "system",
                expected="a time-invariant layer",
                cure="Selective layers cannot be reduced by this theory.",
            )
        )


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return names without the prefixes of wrappers, each with the name it had.

    Examples
    --------
    >>> without_wrappers(["module._orig_mod.fc.weight"])
    {'fc.weight': 'module._orig_mod.fc.weight'}
    """
    stripped = {}
    for name in names:
        parts = [part for part in name.split(".") if part not in ("module", "_orig_mod")]
        stripped[".".join(parts)] = name
    return stripped


def _kernels(names: Iterable[str], *, complete: bool = True) -> list[str]:
    """Return the prefixes of kernels; with `complete` False also of those that lack something."""
    names = set(names)
    owners: dict[str, set[str]] = {}
    for name in names:
        outer, dot, last = name.rpartition(".")
        owners.setdefault(f"{outer}{dot}", set()).add(last)
    found = []
    for prefix, own in owners.items():
        steps, reals = own & set(_STEPS), own & set(_REALS)
        if complete:  # the minimal S4D layer has no B
            is_kernel = bool(steps and reals and own & {"B", "P"})
        else:
            is_kernel = bool((steps or reals) and "C" in own) or bool(steps and reals)
        if is_kernel:
            found.append(prefix)
    return sorted(found)


def _own(names: Iterable[str], prefix: str) -> set[str]:
    inside = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return {name for name in inside if "." not in name}


def _outer_name(names: Shapes, prefix: str, where: str) -> str:
    """Return the key of D: beside the kernel, one or two levels up."""
    outer = prefix
    for _ in range(3):
        if f"{outer}D" in names:
            return f"{outer}D"
        if not outer:
            break
        head = outer.removesuffix(".").rpartition(".")[0]
        outer = f"{head}." if head else ""
    raise CheckpointError(
        message(where, "D is missing", expected=f"a tensor D above {prefix}C", got="none")
    )


def _misshapen(name: str, expected: str, got: tuple[int, ...], where: str) -> CheckpointError:
    return CheckpointError(
        message(where, f"{name} has the wrong shape", expected=expected, got=f"{got}")
    )
