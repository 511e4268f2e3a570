"""What the adapters of layers with one shared state (S5, LRU) have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, OrderError, ShapeError, message
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.drop_in import agrees
from ssmred.networks.adapters.shared_checks import Agreement, Candidate, agree
from ssmred.networks.adapters.shared_tensors import like
from ssmred.networks.copying import copy_module
from ssmred.networks.cores import core_for, full_core
from ssmred.systems import DiagonalSystem
from ssmred.systems.linear import LinearSystem

__all__ = ["BACKWARD", "CORE", "SharedModes", "SharedStateAdapter", "shared_system"]

CORE, BACKWARD = "core", "backward"
"""Names of a layer's filters."""

RANK = 1e-13
"""Singular values of a direct term, relative to its largest entry, that are rounding."""

CHECKED = 64
"""Samples of a written layer's response that are compared."""

ROUNDINGS = 1000.0
"""Roundings of the stored parameters that a response may be off by: poles enter 64 times."""


@dataclass(frozen=True, eq=False)
class SharedModes:
    """Hold the recurrence that a layer shall be written with, all filters on the same modes.

    Attributes
    ----------
    poles : (K,) complex128
    B : (K, m) complex128
    C : dict of str to (p, K) complex128
        By filter: ``"core"``, ``"backward"``.
    D : (p, m) float64
    """

    poles: np.ndarray
    B: np.ndarray
    C: dict[str, np.ndarray]
    D: np.ndarray

    @property
    def modes(self) -> int:
        """Number of modes."""
        return len(self.poles)


def shared_system(
    poles: np.ndarray, B: np.ndarray, C: np.ndarray, D: np.ndarray, *, delayed: bool = False
) -> DiagonalSystem:
    """Return ``y = Re(C x) + D u`` of one layer as a system of batch shape (1,)."""
    return DiagonalSystem(
        poles[None],
        B[None],
        C[None],
        (np.diag(D) if D.ndim == 1 else D)[None],
        recurrence="standard" if delayed else "post-update",
        real_output=True,
    )


class SharedStateAdapter(ABC):
    """Read, replace and write layers in which one diagonal state serves all features.

    Parameters
    ----------
    trusted : str, optional
        The way of computing that counts where a layer's own ones disagree; they are named then.
    """

    family: ClassVar[str]
    PREFIXES: ClassVar[tuple[str, ...]] = ("",)
    """What the names of a layer's tensors begin with, where a module is the whole layer."""

    def __init__(self, *, trusted: str | None = None) -> None:
        self.trusted = trusted

    # What a family says of itself ----------------------------------------------------------------

    @abstractmethod
    def fits(self, names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Tell whether these are a layer's tensors, all of them and no others."""

    @abstractmethod
    def candidates(self, module: nn.Module, tensors: Mapping[str, Any]) -> Sequence[Candidate]:
        """Return the readings of a layer's tensors, the usual one first."""

    @abstractmethod
    def parameters(
        self, tensors: Mapping[str, torch.Tensor], settings: Any, wanted: SharedModes, modes: int
    ) -> dict[str, np.ndarray]:
        """Return the tensors of a layer that has so many modes and computes what is wanted."""

    def resize(self, module: nn.Module, modes: int) -> None:  # noqa: B027  most have nothing to do
        """Tell a written layer its new number of modes, where it keeps that beside its tensors."""

    def holds_matrix(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Tell whether the layer's direct term is a full matrix."""
        return tensors["D"].ndim == 2

    # The protocol --------------------------------------------------------------------------------

    def recognises(self, module: nn.Module) -> bool:
        """Tell by its tensors whether the module is such a layer, whole and alone."""
        return self._prefix(module) is not None

    def to_systems(self, module: nn.Module) -> dict[str, LinearSystem]:
        """Return the systems of the stored weights, compared with what the layer computes.

        Raises
        ------
        CheckpointError
            If a tensor is misshapen, nan or inf, or no reading gives the layer's own response.
        """
        return dict(self._agreement(module).candidate.systems)

    def to_block(self, module: nn.Module, cores: Mapping[str, nn.Module]) -> nn.Module:
        """Return a drop-in that filters with the cores.

        Raises
        ------
        CheckpointError
            If with the layer's own systems the drop-in answers otherwise than the layer.
        """
        agreement = self._agreement(module)
        layout, systems = agreement.layout, agreement.candidate.systems
        block = FilterBlock(
            **{name: full_core(system) for name, system in systems.items()},
            delayed=False,
            transposed=not layout.time_first,
            paired=layout.paired,
        )
        width = systems[CORE].inputs
        if set(cores) != set(systems) or not agrees(
            module, block, width=width, batched=layout.batched
        ):
            raise CheckpointError(
                message(
                    f"{type(self).__name__}.to_block",
                    f"{type(module).__name__} answers otherwise than its drop-in",
                    expected=f"y = filter(u), filters {sorted(systems)}",
                    got=f"filters {sorted(cores)}",
                    cure="Register an adapter of its own with ssmred.networks.register_adapter.",
                )
            )
        for name, core in cores.items():
            setattr(block, name, core)
        return block.train(module.training)

    def states_needed(self, module: nn.Module, systems: Mapping[str, LinearSystem]) -> int:
        """Return the real states that `from_systems` needs, two per mode."""
        tensors = self._tensors(module)
        return 2 * max(united_modes(systems, self.holds_matrix(tensors)).modes, 1)

    def from_systems(
        self, module: nn.Module, systems: Mapping[str, LinearSystem], *, states: int | None = None
    ) -> nn.Module:
        """Return a copy of the layer, of its own class, that computes what the systems say.

        Parameters
        ----------
        module : nn.Module
            The layer that the systems were made from.
        systems : mapping
            ``"core"``, and ``"backward"`` for a bidirectional layer: one DiagonalSystem each.
        states : int, optional
            Real states, two per mode; what the systems need by default.

        Returns
        -------
        nn.Module
            ``state_dict()`` loads into the original class built with ``states // 2`` modes.

        Raises
        ------
        OrderError
            If `states` is odd or too few.
        CheckpointError
            If a pole has no such parameters, or the written layer computes something else.

        Notes
        -----
        Both filters of a bidirectional layer share poles and B: it gets the modes of either. Where
        the layer's D is a diagonal, the rest of a direct term becomes modes with pole 0 (or one
        that is 0 to rounding), half as many as its rank.
        """
        where = f"{type(self).__name__}.from_systems"
        agreement, tensors = self._agreement(module), self._tensors(module)
        wanted = united_modes(systems, self.holds_matrix(tensors))
        count = 2 * max(wanted.modes, 1) if states is None else states
        own = agreement.candidate.systems
        if set(systems) != set(own):
            raise CheckpointError(
                message(where, "other filters", expected=f"{sorted(own)}", got=f"{sorted(systems)}")
            )
        sizes, found = own[CORE].D.shape[1:], wanted.D.shape
        if sizes != found:
            raise ShapeError(
                message(where, "other inputs or outputs", expected=f"{sizes}", got=f"{found}")
            )
        if count % 2 or count < 2 * wanted.modes:
            raise OrderError(
                message(
                    where,
                    "states do not fit",
                    expected=f"an even number >= {2 * wanted.modes}: both directions share the "
                    "modes, and what a diagonal D cannot hold is among them",
                    got=f"states={states}",
                )
            )
        values = self.parameters(tensors, agreement.candidate.settings, wanted, count // 2)
        plain = copy_module(module)
        prefix = self._prefix(module) or ""
        for name, value in values.items():
            _replace(plain, prefix + name, like(tensors[name], value))
        self.resize(plain.get_submodule(prefix.removesuffix(".")), count // 2)
        back = self.candidates(plain, self._tensors(plain))
        settings = agreement.candidate.settings
        same = next(c for c in back if c.settings == settings)
        _check_written(where, systems, agree(plain, [same], where, trusted=self.trusted), module)
        return plain

    # Machinery -----------------------------------------------------------------------------------

    def _prefix(self, module: nn.Module) -> str | None:
        tensors = {k: tuple(t.shape) for k, t in module.state_dict().items()}
        for prefix in self.PREFIXES:
            if all(name.startswith(prefix) for name in tensors):
                short = {name[len(prefix) :]: shape for name, shape in tensors.items()}
                if short and self.fits(short):
                    return prefix
        return None

    def _tensors(self, module: nn.Module) -> dict[str, torch.Tensor]:
        prefix = self._prefix(module) or ""
        return {name[len(prefix) :]: t.detach() for name, t in module.state_dict().items()}

    def _agreement(self, module: nn.Module) -> Agreement:
        prefix = self._prefix(module) or ""
        stepper = module.get_submodule(prefix.removesuffix(".")) if prefix else module
        candidates = self.candidates(module, self._tensors(module))
        where = f"{type(self).__name__}.to_systems"
        return agree(module, candidates, where, trusted=self.trusted, stepper=stepper)


def united_modes(systems: Mapping[str, LinearSystem], full_direct: bool) -> SharedModes:
    """Return the filters of a layer on one set of modes, without modes that do nothing.

    With a direct term that has to be diagonal, the rest of it becomes modes with pole 0.
    """
    parts = {name: _plain(system) for name, system in systems.items()}
    first = parts[CORE]
    second = parts.get(BACKWARD)
    poles, B, C = first.poles[0], first.B[0], {CORE: first.C[0]}
    D = first.D[0].real.copy()
    if second is not None:
        D += second.D[0].real  # acts on the same sample of the reversed sequence
        if np.array_equal(second.poles[0], poles) and np.array_equal(second.B[0], B):
            C[BACKWARD] = second.C[0]
        else:
            silent = np.zeros((len(D), second.order)), np.zeros_like(first.C[0])
            C = {
                CORE: np.concatenate([first.C[0], silent[0]], axis=-1),
                BACKWARD: np.concatenate([silent[1], second.C[0]], axis=-1),
            }
            poles = np.concatenate([poles, second.poles[0]])
            B = np.concatenate([B, second.B[0]])
    if not full_direct:
        rest = D - np.diag(np.diag(D)) if D.shape[0] == D.shape[1] else D
        at_zero = _as_modes(rest)
        D = D - rest
        poles = np.concatenate([poles, np.zeros(len(at_zero[0]))])
        B = np.concatenate([B, at_zero[0]])
        C = {
            name: np.concatenate([c, at_zero[1] if name == CORE else 0 * at_zero[1]], axis=-1)
            for name, c in C.items()
        }
    read = np.max([np.abs(c).max(axis=0, initial=0.0) for c in C.values()], axis=0)
    used = np.flatnonzero((read > 0) & np.any(B != 0, axis=-1))
    return SharedModes(poles[used], B[used], {n: c[:, used] for n, c in C.items()}, D)


def _plain(system: LinearSystem) -> DiagonalSystem:
    plain = core_for(system).to_system()
    if not isinstance(plain, DiagonalSystem) or plain.batch_shape != (1,):
        raise ShapeError(
            message("from_systems", "no shared diagonal state", expected="batch shape (1,)")
        )
    return plain


def _as_modes(direct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return B (K, m) and C (p, K) with ``Re(C B) = direct``, two ranks to a mode."""
    U, values, Vh = np.linalg.svd(direct, full_matrices=False)
    rank = int(np.sum(values > RANK * np.abs(direct).max(initial=0.0)))
    rank += rank % 2 if rank < len(values) else 0
    root = np.sqrt(values[:rank])
    left, right = U[:, :rank] * root, (Vh[:rank].T * root).T
    if rank % 2:  # an odd number of rows altogether
        left = np.pad(left, ((0, 0), (0, 1)))
        right = np.pad(right, ((0, 1), (0, 0)))
    # Re((c1 - i c2)(b1 + i b2)) = c1 b1 + c2 b2
    return right[0::2] + 1j * right[1::2], left[:, 0::2] - 1j * left[:, 1::2]


def _replace(module: nn.Module, path: str, tensor: torch.Tensor) -> None:
    owner_path, _, name = path.rpartition(".")
    owner = module.get_submodule(owner_path)
    old = getattr(owner, name)
    if isinstance(old, nn.Parameter):
        setattr(owner, name, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        owner.register_buffer(name, tensor)


def _check_written(
    where: str, systems: Mapping[str, LinearSystem], written: Agreement, module: nn.Module
) -> None:
    """Raise CheckpointError unless a written layer has the response of the systems."""
    precisions = [
        torch.finfo(t.dtype).eps
        for t in (*module.parameters(), *module.buffers())
        if t.is_floating_point() or t.is_complex()
    ]
    pairs = {
        name: [
            part.impulse_response(CHECKED)
            for part in (core_for(system).to_system(), written.candidate.systems[name])
        ]
        for name, system in systems.items()
    }
    if BACKWARD in pairs:  # both directions see the sample itself: only their sum there is told
        for one, other in zip(pairs[CORE], pairs[BACKWARD], strict=True):
            one[:, 0] += other[:, 0]
            other[:, 0] = 0.0
    for name, (response, found) in pairs.items():
        size = np.abs(response).max(initial=0.0)
        error = np.abs(response - found).max(initial=0.0)
        if not error <= ROUNDINGS * max(precisions) * size:
            raise CheckpointError(
                message(
                    where,
                    f"the written layer does not compute its {name} system",
                    got=f"a difference of {error:.3g} beside responses of {size:.3g}",
                    cure="Write into a layer of higher precision.",
                )
            )
