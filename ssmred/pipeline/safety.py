"""Gather what the safety report of a reduction shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssmred.certify import verify
from ssmred.deploy import LatencyReport
from ssmred.errors import AccuracyError, UnstableSystemError
from ssmred.gramians import hankel_singular_values
from ssmred.networks import import_network
from ssmred.networks.filters import is_core
from ssmred.pipeline.progress import Progress
from ssmred.pipeline.reduction import count
from ssmred.report.page import LayerDecay, SafetyPage
from ssmred.report.picture import picture_of

__all__ = ["decay_of", "layer_numbers", "safety_page"]


def safety_page(
    result: Any,
    *,
    data: Any = None,
    latency: LatencyReport | Mapping[str, Any] | None = None,
    title: str = "",
    command: str = "",
    folder: str = "",
    progress: bool = False,
) -> SafetyPage:
    """Recompute a result's certificate and return what its report shows.

    Parameters
    ----------
    result : ReductionResult
    data : array, optional
        As for `ssmred.verify`.
    latency : LatencyReport or dict, optional
        What `ssmred.deploy.latency` measured, or its ``to_dict()``.
    title, command, folder : str
        What was reduced; the command that did; where the result lies.
    progress : bool
        Show progress bars on standard error.

    Raises
    ------
    CertificateError
        If the certificate does not describe the two networks: of a statement that does not hold
        there is no report.
    """
    certificate = result.certificate
    with Progress(progress) as bars:
        advance = bars.stage("recomputing the certificate", 1)
        verification = verify(certificate, result.original, result.model, data=data)
        advance(1)
        picture = picture_of(result)
        network = import_network(result.original)
        advance = bars.stage("Hankel singular values", len(network.layers))
        kept = dict(zip(picture.layers, picture.channel_states or (), strict=False))
        decays = []
        for layer in network.layers:
            counts = kept.get(layer.name)
            decays.append(decay_of(layer.name, layer.system, certificate.horizon, counts))
            advance(1)
    return SafetyPage(
        title=title or type(result.original).__name__,
        certificate=certificate,
        verification=verification,
        picture=picture,
        decays=decays,
        states=result.states,
        parameters=result.parameters,
        layer_parameters=layer_numbers(result),
        method=result.method,
        seconds=result.seconds,
        machine=result.machine,
        request=result.request,
        command=command,
        folder=folder,
        latency=latency.to_dict() if isinstance(latency, LatencyReport) else latency,
    )


def decay_of(name: str, system: Any, horizon: int | None, kept: np.ndarray | None) -> LayerDecay:
    """Return the Hankel singular values of ``C (z I - A)^-1 B``, as an inspection does."""
    wide = system.outputs > system.inputs
    try:
        values = hankel_singular_values(system.replace(recurrence="standard"), horizon=horizon)
    except (UnstableSystemError, AccuracyError) as error:
        return LayerDecay(name, None, kept, str(error), wide)
    return LayerDecay(name, values.reshape(-1, values.shape[-1]), kept, "", wide)


def layer_numbers(result: Any) -> tuple[int, int]:
    """Return how many numbers the state-space layers hold, kept and full.

    Counted as `ReductionResult.parameters` are: what is in no filter of the reduced network was in
    no state-space layer of the original, for a reduction leaves it alone.
    """
    kept = sum(count(module) for module in result.model.modules() if is_core(module))
    rest = result.parameters[0] - kept
    return kept, result.parameters[1] - rest
