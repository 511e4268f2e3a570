"""The numbers that figures of a reduction draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ReductionPicture", "channel_states", "picture_of"]


@dataclass(frozen=True, eq=False)
class ReductionPicture:
    """Hold the numbers that `plot_reduction` draws.

    Attributes
    ----------
    curve_states, curve_error : (K,) array_like
        The whole path: real states kept and the error there.
    kept, full : int
        Real states of the reduced and of the original network.
    layers : sequence of str
        Names of the layers.
    layer_states : sequence of (kept, full)
        Real states of every layer.
    layer_errors : (L,) array_like
        What every layer adds to the bound, or its relative error; inf where nothing is known.
    layer_label : str
        What `layer_errors` are, for the axis.
    channel_states : sequence of (H,) array_like, optional
        Real states kept in every channel of every layer.
    tol : float, optional
        The tolerance that was asked for.
    curve_label : str
        What `curve_error` is, for the axis.
    title : str
        One line above the panels.
    """

    curve_states: Any
    curve_error: Any
    kept: int
    full: int
    layers: Sequence[str]
    layer_states: Sequence[tuple[int, int]]
    layer_errors: Any
    layer_label: str = "relative layer error"
    channel_states: Sequence[Any] | None = None
    tol: float | None = None
    curve_label: str = "relative error"
    title: str = ""


def picture_of(result: Any) -> ReductionPicture:
    """Return the numbers of a `ReductionResult` that its figure shows.

    The layers' panel shows what each layer adds to the bound where the certificate bounds the
    output layer by layer (worst-case), and relative h2 errors otherwise.
    """
    certificate = result.certificate
    layers = certificate.layers
    added = [layer.contribution for layer in layers]
    bounded = certificate.guarantee == "worst-case" and all(value is not None for value in added)
    kept, full = result.states
    vacuous = ", vacuous" if certificate.vacuous else ""
    method = getattr(result, "method", "subset")
    moved = "" if method == "subset" else f" (method {method})"
    return ReductionPicture(
        curve_states=result.path.states,
        curve_error=result.path.error,
        kept=kept,
        full=full,
        layers=[layer.name for layer in layers],
        layer_states=[(layer.states_kept, layer.states_full) for layer in layers],
        layer_errors=added if bounded else [layer.relative_error for layer in layers],
        layer_label="contribution to the bound" if bounded else "relative h2 error of the layer",
        channel_states=channel_states(result.model, layers),
        curve_label="error of the layers, relative to removing all",
        title=f"{kept:,} of {full:,} states kept{moved}; {certificate.guarantee} certificate, "
        f"bound {certificate.bound:.2e}{vacuous}",
    )


def channel_states(model: Any, layers: Sequence[Any]) -> list[np.ndarray] | None:
    """Return the real states kept in every channel (H,) of every layer.

    Parameters
    ----------
    model : nn.Module
        The reduced network.
    layers : sequence of LayerRecord
        Of its certificate.

    Returns
    -------
    list of (H,) int64, or None
        None where the states of a layer cannot be told apart by its channels.
    """
    # Reduced layers are told by their attribute, so that figures need no torch.
    cores = {_layer_of(path): m for path, m in model.named_modules() if hasattr(m, "orders")}
    rows = []
    for layer in layers:
        core = cores.get(layer.name)
        if core is None:
            return None
        orders = np.asarray(core.orders, dtype=np.int64)
        row = next((k * orders for k in (1, 2) if k * orders.sum() == layer.states_kept), None)
        if row is None:
            return None
        rows.append(row)
    return rows


def _layer_of(path: str) -> str:
    """Return the name of the layer whose core lies at a path, as certificates have it."""
    if path == "backward":
        return "model.backward"
    outer = path.removesuffix("core").removesuffix(".") if path.split(".")[-1] == "core" else path
    return outer or "model"
