"""Bring reduced systems into the modes that the heads of an S4 layer share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssmred.errors import AccuracyError, CheckpointError, OrderError, message
from ssmred.networks.adapters.s4_checks import CHECKED_SAMPLES
from ssmred.networks.adapters.s4_names import S4Names
from ssmred.networks.adapters.s4_reading import in_channel_order
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.reduced import ReducedSSM
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised
from ssmred.systems.linear import LinearSystem

__all__ = ["modes_by_head"]

WHERE = "S4Adapter.from_systems"

DIAGONALISED_TO = 1e-9
"""Error of the modes of a dense system that is accepted, relative to its largest sample."""


def modes_by_head(
    systems: Mapping[str, LinearSystem], names: S4Names, settings: S4Settings
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return the poles (n_h) and residues (directions * channels, n_h) of every head, and D."""
    wanted = {"core", "backward"} if names.directions == 2 else {"core"}
    if set(systems) != wanted:
        raise CheckpointError(
            message(
                WHERE,
                "the systems are not the layer's",
                expected=f"{wanted}",
                got=f"{set(systems)}",
            )
        )
    order = in_channel_order(np.arange(names.channels * names.heads), names, settings)
    cores = [
        ReducedSSM.from_system(_diagonal(systems[name])) for name in sorted(wanted, reverse=True)
    ]
    if any(core.channels != order.size for core in cores):
        raise OrderError(
            message(
                WHERE,
                "the systems do not have the layer's channels",
                expected=f"{order.size}",
                got=f"{[core.channels for core in cores]}",
            )
        )
    if len(cores) == 2 and bool(cores[1].D.any()):
        raise CheckpointError(
            message(WHERE, "the backward system has a D, which the layer cannot hold", expected="0")
        )
    plain = [core.to_system() for core in cores]
    poles, residues = [], []
    for head in range(names.heads):
        rows = []
        for core, system in zip(cores, plain, strict=True):
            for row in order[:, head]:
                used = slice(0, core.orders[row])
                rows.append((system.poles[row, used], system.C[row, 0, used]))
        union = list(dict.fromkeys(pole for own, _ in rows for pole in own.tolist()))
        table = np.zeros((len(rows), len(union)), dtype=np.complex128)
        for index, (own, values) in enumerate(rows):
            for pole, value in zip(own.tolist(), values, strict=True):
                table[index, union.index(pole)] += value
        poles.append(np.array(union, dtype=np.complex128))
        residues.append(table)
    D = in_channel_order(plain[0].D[:, 0, 0], names, settings)
    return poles, residues, D


def _diagonal(system: LinearSystem) -> DiagonalSystem:
    """Return a system in modes: half a spectrum, real outputs."""
    if isinstance(system, DiagonalSystem):
        return system
    if not isinstance(system, DenseSystem):
        raise CheckpointError(message(WHERE, "no system", got=type(system).__name__))
    try:
        modal = diagonalised(system, half=True).system
    except AccuracyError as error:
        raise CheckpointError(
            message(
                WHERE,
                "a dense system whose modes are badly conditioned has no such parameters: an S4 "
                "layer holds it only as modes with P = 0",
                cure="Keep the DenseSSM layer, or reduce further.",
            )
        ) from error
    wanted = system.impulse_response(CHECKED_SAMPLES)[..., 0, 0]
    error = np.abs(modal.impulse_response(CHECKED_SAMPLES)[..., 0, 0] - wanted)
    if not (error <= DIAGONALISED_TO * np.abs(wanted).max(axis=-1, keepdims=True)).all():
        raise CheckpointError(
            message(
                WHERE,
                "the modes of the dense system are too badly conditioned",
                expected=f"an error <= {DIAGONALISED_TO:g}",
                got=f"{error.max():.3g}",
                cure="Keep the DenseSSM layer, or reduce further.",
            )
        )
    return modal
