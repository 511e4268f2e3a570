"""Find by comparing what the tensors of a live S4 layer leave open."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from ssmred.errors import CheckpointError, message
from ssmred.networks.adapters.s4_checks import OwnKernels, responses, tolerances
from ssmred.networks.adapters.s4_half import half_spectrum_kernels, made_for
from ssmred.networks.adapters.s4_names import S4Names
from ssmred.networks.adapters.s4_reading import complex_weights, systems_of, with_told
from ssmred.networks.adapters.s4_settings import DISCRETISATIONS, TRANSFORMS, S4Settings

__all__ = ["find_settings"]

PROBED_HEADS = 2
"""Heads on which all settings are tried; those that agree there are tried on all."""


def find_settings(
    arrays: Mapping[str, np.ndarray],
    names: S4Names,
    given: S4Settings,
    own: OwnKernels,
    hints: Mapping[str, str],
) -> tuple[S4Settings, str]:
    """Return the one group of settings under which the tensors give the layer's own kernels.

    Parameters
    ----------
    arrays, names
        The layer's tensors.
    given : S4Settings
        What is known already is not tried.
    own : OwnKernels
        At `CHECKED_SAMPLES` samples.
    hints : mapping of str to str
        The layer's attributes; they decide only between settings that agree.

    Returns
    -------
    settings : S4Settings
    realisation : {"both", "matrices"}
        Which one of the layer's realisations the tensors give: "matrices" where its own
        convolution leaves out the conjugate modes.

    Raises
    ------
    CheckpointError
        If no setting agrees, or settings that mean different layers do.
    """
    probe, few = _first_heads(arrays, names), None
    for realisation in ("both", "matrices") if names.rank else ("both",):
        found = []
        for settings in _possible(names, given):
            few = few or _few(names)
            if _agree(probe, few, settings, own, realisation) and _agree(
                arrays, names, settings, own, realisation
            ):
                found.append(settings)
        if found:
            return _the_one(found, arrays, names, hints), realisation
    raise CheckpointError(
        message(
            "S4Adapter",
            "the layer's own kernel is not the response of its tensors under any known setting",
            expected=f"disc {', '.join(DISCRETISATIONS)}; transforms {', '.join(TRANSFORMS)}",
            got="; ".join(f"{k}={v}" for k, v in hints.items()) or "no attribute that tells them",
            cure="The class computes something else; register an adapter of its own.",
        )
    )


def _agree(
    arrays: Mapping[str, np.ndarray],
    names: S4Names,
    settings: S4Settings,
    own: OwnKernels,
    realisation: str,
) -> bool:
    weights = complex_weights(arrays, names, settings)
    usable = np.isfinite(weights.A).all() and np.isfinite(weights.dt).all()
    if not usable or (weights.dt <= 0).any() or (weights.A.real >= 0).any():
        return False
    values = own.values[:, : names.heads]
    length = values.shape[-1]
    if realisation == "matrices":
        if own.length < length:  # the class makes C for no length: it is none of these
            return False
        expected = half_spectrum_kernels(made_for(weights, own.length), own.length, length)
    else:
        at_length = settings.replace(length=length) if settings.disc == "dss" else settings
        expected = responses(systems_of(weights, names, at_length), names, length, settings)
    own = OwnKernels(values, own.eps, own.length)
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = tolerances(weights, names, settings, own)
    # what a wrong setting makes of the tensors may be too wild to be computed at all
    usable = np.sqrt(own.eps) * np.abs(values).max(axis=-1, keepdims=True)
    return bool((np.abs(values - expected) <= np.minimum(allowed, usable)).all())


def _possible(names: S4Names, given: S4Settings) -> Iterator[S4Settings]:
    told = with_told(given, names)
    ranges = {
        "disc": DISCRETISATIONS,
        "real_transform": TRANSFORMS,
        "imag_transform": ("none", *(t for t in TRANSFORMS if t != "none")),
        "dt_transform": TRANSFORMS,
    }
    choices = [
        values if getattr(told, name) is None else (getattr(told, name),)
        for name, values in ranges.items()
    ]
    for combination in itertools.product(*choices):
        yield told.replace(**dict(zip(ranges, combination, strict=True)))


def _the_one(
    found: list[S4Settings],
    arrays: Mapping[str, np.ndarray],
    names: S4Names,
    hints: Mapping[str, str],
) -> S4Settings:
    """Return the settings that agree; of several, the one that the layer's attributes name."""
    if len(found) > 1:
        named = [s for s in found if all(getattr(s, k) == v for k, v in hints.items())]
        found = named or found
    first = complex_weights(arrays, names, found[0])
    for other in found[1:]:
        weights = complex_weights(arrays, names, other)
        same = np.array_equal(weights.A, first.A) and np.array_equal(weights.dt, first.dt)
        if not same or other.disc != found[0].disc:
            differ = [k for k in vars(other) if getattr(other, k) != getattr(found[0], k)]
            raise CheckpointError(
                message(
                    "S4Adapter",
                    "more than one setting gives the layer's own kernel to rounding: "
                    + ", ".join(
                        f"{k} {getattr(found[0], k)} or {getattr(other, k)}" for k in differ
                    ),
                    cure=f"Pass S4Settings({differ[0]}=...).",
                )
            )
    return found[0]


def _few(names: S4Names) -> S4Names:
    heads = min(PROBED_HEADS, names.heads)
    systems = heads if names.systems > heads or heads % names.systems else names.systems
    return S4Names(**{**vars(names), "heads": heads, "systems": systems})


def _first_heads(arrays: Mapping[str, np.ndarray], names: S4Names) -> dict[str, np.ndarray]:
    """Return the tensors of the first heads, their systems written out."""
    few = _few(names)
    tile = np.arange(few.systems) % names.systems
    cut = dict(arrays)
    cut[names.C] = arrays[names.C][:, : few.heads]
    cut[names.D] = arrays[names.D][:, : few.heads]
    cut[names.step] = arrays[names.step][: few.heads]
    for name in (names.real, names.imag):
        if name:
            cut[name] = arrays[name][tile]
    B = arrays[names.B]
    cut[names.B] = B.reshape(names.systems, names.modes, *B.shape[B.ndim - bool(names.imag) :])[
        tile
    ]
    if names.P:
        cut[names.P] = arrays[names.P][:, tile]
    return cut
