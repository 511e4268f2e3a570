"""S5 layers: the original's parameter tree, s5-pytorch, and our own.

Facts: ``docs/conventions.md``. Parametrisation: Smith, Warrington and Linderman, arXiv 2208.04933.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError, message
from ssmred.networks.adapters.shared_adapter import (
    BACKWARD,
    CORE,
    SharedModes,
    SharedStateAdapter,
    shared_system,
)
from ssmred.networks.adapters.shared_checks import Candidate, Rounding
from ssmred.networks.adapters.shared_tensors import LayerTensors, layer_prefix, prefixes
from ssmred.systems import DiagonalSystem

__all__ = ["S5Adapter", "S5Settings", "read_s5", "recognises_tensors"]

ORIGINAL = frozenset({"Lambda_re", "Lambda_im", "B", "D", "log_step"})
READ_OUTS = (frozenset({"C"}), frozenset({"C1", "C2"}))
PACKAGE = frozenset({"Lambda", "B", "C", "D", "log_step"})
MARKERS = (*(ORIGINAL | outs for outs in READ_OUTS), PACKAGE)
"""What the tensors of a layer are called, in its three forms."""

CLIPPED_AT = -1e-4
"""Largest real part of a pole where eigenvalues are clipped."""

DISCRETISATIONS = ("zoh", "bilinear")

NEVER = 40.0
"""``exp(-NEVER)`` is 0 to rounding: the decay per step of a pole at 0."""


@dataclass(frozen=True)
class S5Settings:
    """Say what the tensors of an S5 layer do not.

    Attributes
    ----------
    discretisation : {"zoh", "bilinear"}
    conj_sym : bool
        Whether poles stand for conjugate pairs, so that ``y = 2 Re(C x) + D u``. The package
        s5-pytorch stores whole spectra always.
    clip_eigs : bool
        Whether real parts are at most -1e-4.
    step_scale : float
        What steps are multiplied with.
    degree : int
        Power of the entries of the discrete B (s5-pytorch).
    """

    discretisation: str = "zoh"
    conj_sym: bool = True
    clip_eigs: bool = False
    step_scale: float = 1.0
    degree: int = 1


def recognises_tensors(names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether named tensors are those of one S5 layer; others may be among them."""
    return len(prefixes(names_to_shapes, MARKERS)) == 1


def read_s5(
    tensors: Mapping[str, Any],
    *,
    discretisation: str = "zoh",
    conj_sym: bool | None = None,
    clip_eigs: bool = False,
    step_scale: float = 1.0,
) -> dict[str, DiagonalSystem]:
    """Return the systems of an S5 layer from its tensors: a state dict or a parameter tree.

    Parameters
    ----------
    tensors : mapping of str to array_like or torch.Tensor
        Of the original: ``Lambda_re``, ``Lambda_im (P,)``, ``B (P, H, 2)``, ``C (H, P, 2)`` or
        ``(H, 2 P, 2)`` or ``C1`` and ``C2``, ``D (H,)``, ``log_step (P, 1)``. Of s5-pytorch:
        ``Lambda (P,)``, ``B (P, H, 2)``, ``C (H, P)`` or ``(H, 2 P)``, ``D``, ``log_step``. Behind
        one prefix, ``.`` or ``/`` between its parts; other keys are not looked at.
    discretisation, conj_sym, clip_eigs, step_scale
        See `S5Settings`; the tensors do not tell. By default ``conj_sym`` is True for the
        original's names, where most layers are trained so, and False for the package's.

    Returns
    -------
    dict
        ``"core"``, and ``"backward"`` for a bidirectional layer: DiagonalSystem of batch shape
        (1,), post-update, real outputs; the backward one runs on the reversed sequence, this step
        included.

    Raises
    ------
    CheckpointError
        If a tensor is missing, misshapen, nan or inf, or there is more than one layer.
    """
    where = "read_s5"
    layer = LayerTensors(tensors, layer_prefix(tensors, MARKERS, "S5", where), where)
    package = "Lambda" in layer.stored
    settings = S5Settings(
        discretisation, not package if conj_sym is None else conj_sym, clip_eigs, step_scale
    )
    return _candidate(layer, settings).systems


class S5Adapter(SharedStateAdapter):
    """Translate S5 layers: of s5-pytorch, and of classes with the original's tensor names.

    What the tensors do not tell (discretisation, conjugate symmetry, clipping) is found by
    comparing with the layer's own output. Input-dependent ("liquid") layers are refused.
    """

    family = "s5"
    PREFIXES = ("", "seq.")

    def fits(self, names_to_shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Tell whether these are a layer's tensors, all of them and no others."""
        return set(names_to_shapes) in MARKERS

    def candidates(self, module: nn.Module, tensors: Mapping[str, Any]) -> Sequence[Candidate]:
        """Return the readings of a layer's tensors, the usual one first."""
        where = "S5Adapter.to_systems"
        inner = getattr(module, "seq", module)
        if getattr(inner, "liquid", False):
            raise UnsupportedOperationError(
                message(
                    where,
                    f"{type(module).__name__} is liquid: its poles move with the input",
                    expected="a linear time-invariant filter",
                    cure="Such a layer has no impulse response to reduce; reduce the others.",
                )
            )
        layer = LayerTensors(tensors, "", where)
        degree = int(getattr(inner, "degree", 1))
        package = "Lambda" in tensors
        return [
            _candidate(layer, S5Settings(rule, pairs, clip, degree=degree))
            for pairs, clip, rule in itertools.product(
                (False,) if package else (True, False),
                (False,) if package else (False, True),
                DISCRETISATIONS,
            )
        ]

    def holds_matrix(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Return False: D is a diagonal."""
        return False

    def parameters(
        self,
        tensors: Mapping[str, torch.Tensor],
        settings: S5Settings,
        wanted: SharedModes,
        modes: int,
    ) -> dict[str, np.ndarray]:
        """Return the tensors of a layer that has so many modes and computes what is wanted."""
        where = "S5Adapter.from_systems"
        if settings.degree != 1:
            raise UnsupportedOperationError(
                message(where, "powers of B (degree) cannot be undone", got=f"{settings.degree}")
            )
        step = np.exp(_steps(tensors, wanted.modes))
        with np.errstate(divide="ignore"):
            if settings.discretisation == "zoh":
                exponent = np.where(wanted.poles == 0, -NEVER, np.log(wanted.poles))
                exponent.real = np.maximum(exponent.real, -NEVER)
            else:
                exponent = 2 * (wanted.poles - 1) / (wanted.poles + 1)
        if settings.clip_eigs:  # shorter steps keep slow poles left of the bound
            slow = exponent.real > CLIPPED_AT * step
            step = np.where(slow, exponent.real / (2 * CLIPPED_AT), step)
        if not (np.isfinite(exponent) & (step > 0)).all():
            at = int(np.argmin(np.isfinite(exponent) & (step > 0)))
            raise CheckpointError(
                message(
                    where,
                    f"the pole {wanted.poles[at]:.6g} has no parameters "
                    f"({settings.discretisation}, clip_eigs={settings.clip_eigs})",
                    expected="a pole inside the unit circle, and not -1",
                )
            )
        rate = exponent / step
        hold = np.expm1(exponent) / rate if settings.discretisation == "zoh" else None
        if hold is None:
            hold = step / (1 - exponent / 2)
        room = modes - wanted.modes
        rate = np.pad(rate, (0, room), constant_values=-0.5)
        B = np.pad(wanted.B / hold[:, None], ((0, room), (0, 0)))
        factor = 0.5 if settings.conj_sym else 1.0
        C = [np.pad(factor * c, ((0, 0), (0, room))) for c in wanted.C.values()]
        log_step = np.pad(np.log(step), (0, room), constant_values=-3.0)
        values: dict[str, np.ndarray] = {
            "B": B.astype(complex),
            "D": np.diag(wanted.D),
            "log_step": log_step.reshape(-1, *tensors["log_step"].shape[1:]),
        }
        if "Lambda" in tensors:
            values["Lambda"] = rate.astype(complex)
        else:
            values |= {"Lambda_re": rate.real, "Lambda_im": rate.imag}
        if "C1" in tensors:
            return values | {"C1": C[0].astype(complex), "C2": C[1].astype(complex)}
        return values | {"C": np.concatenate(C, axis=-1).astype(complex)}


def _steps(tensors: Mapping[str, torch.Tensor], modes: int) -> np.ndarray:
    """Return as many logarithms of steps, the layer's own as far as they go."""
    own = tensors["log_step"].double().cpu().numpy().ravel()
    return np.resize(own, modes)


def _candidate(layer: LayerTensors, settings: S5Settings) -> Candidate:
    package = "Lambda" in layer.stored
    if package:
        layer.check_names(PACKAGE)
        rate = layer.take_complex("Lambda", "P")
    else:
        outs = READ_OUTS[1] if "C1" in layer.stored else READ_OUTS[0]
        layer.check_names(ORIGINAL | outs)
        rate = layer.take("Lambda_re", "P") + 1j * layer.take("Lambda_im", "P")
    B = layer.take_complex("B", "P", "H")
    if package:  # the package computes with it in single precision always
        B = B.astype(np.complex64).astype(np.complex128)
    D = layer.take("D", "H")
    steps = layer.stored["log_step"]
    log_step = layer.take("log_step", "P", *((1,) if steps.ndim == 2 else ())).ravel()
    C = _read_outs(layer)
    if settings.clip_eigs:
        rate = np.minimum(rate.real, CLIPPED_AT) + 1j * rate.imag
    poles, hold, moved, held = _discrete(rate, log_step, settings)
    with np.errstate(over="ignore", invalid="ignore"):
        driven = hold[:, None] * B
        if settings.degree != 1:
            driven = driven**settings.degree
    factor = 2.0 if settings.conj_sym else 1.0
    direct = D
    systems = {}
    for name, part in zip((CORE, BACKWARD), C, strict=False):
        systems[name] = shared_system(poles, driven, factor * part, direct)
        direct = np.zeros_like(D)
    size = np.abs(driven)
    inputs = settings.degree * (held[:, None] * np.abs(B) + size)
    return Candidate(settings, systems, Rounding(moved, inputs))


def _read_outs(layer: LayerTensors) -> list[np.ndarray]:
    if "C1" in layer.stored:
        return [layer.take_complex(name, "H", "P") for name in ("C1", "C2")]
    stored = layer.stored["C"]
    columns = stored.shape[1] if stored.ndim >= 2 else 0
    twice = columns == 2 * layer.sizes["P"]
    C = layer.take_complex("C", "H", columns if twice else "P")
    return np.split(C, 2, axis=-1) if twice else [C]


def _discrete(
    rate: np.ndarray, log_step: np.ndarray, settings: S5Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return poles, what multiplies B, and how one rounding of every operation moves both."""
    step = settings.step_scale * np.exp(log_step)
    exponent = rate * step
    off = np.abs(exponent) * (4.0 + np.abs(log_step))
    if settings.discretisation == "zoh":
        poles = np.exp(exponent)
        zero = exponent == 0
        hold = np.where(zero, step, np.expm1(exponent) / np.where(zero, 1, rate))
        moved = np.abs(poles) * (1.0 + off)
        # the layers subtract 1 from the rounded pole
        held = (moved + 2.0) / np.maximum(np.abs(rate), 1e-300) + 2.0 * np.abs(hold)
        return poles, hold, moved, held
    solved = 1.0 / (1.0 - exponent / 2)
    poles = solved * (1.0 + exponent / 2)
    hold = solved * step
    grown = np.abs(solved) * (1.0 + off)
    moved = (4.0 + grown) * grown * (1.0 + np.abs(exponent))
    held = np.abs(hold) * (4.0 + np.abs(log_step) + grown)
    return poles, hold, moved, held
