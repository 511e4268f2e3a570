"""Read torch networks for the certificate verifier, which knows no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssmred.certify.graph import NetworkGraph
from ssmred.certify.inputs import InputSet
from ssmred.errors import DataError, message
from ssmred.networks.discovery import import_network
from ssmred.networks.storage import save_network, weights_sha256
from ssmred.networks.tracing import floating_dtype, trace
from ssmred.systems.linear import LinearSystem

__all__ = ["TorchReader"]

BATCH = 128
"""Inputs per forward pass."""


class TorchReader:
    """Translate torch networks into what certificates speak about."""

    def accepts(self, model: Any) -> bool:
        """Tell whether the object is a torch network."""
        return isinstance(model, nn.Module)

    def graph(
        self, model: nn.Module, horizon: int | None = None, inputs: InputSet | None = None
    ) -> NetworkGraph:
        """Return the network's operations; see `ssmred.networks.trace`."""
        return trace(model, horizon=horizon, inputs=inputs)

    def systems(self, model: nn.Module) -> dict[str, LinearSystem]:
        """Return the state-space layers by name, as they are stored once imported."""
        network = import_network(model)
        return {layer.name: network.core(layer.name).to_system() for layer in network.layers}

    def weights_sha256(self, model: nn.Module) -> str:
        """Return the SHA-256 of the stored weights; see `ssmred.networks.weights_sha256`."""
        return weights_sha256(model)

    def store(self, model: nn.Module, folder: Path) -> None:
        """Write the network to a folder; see `ssmred.networks.save_network`."""
        save_network(model, folder)

    def outputs(self, model: nn.Module, data: Any) -> np.ndarray:
        """Return the network's outputs on inputs (n, T, ...), in eval mode, as float64.

        Raises
        ------
        DataError
            If the network does not run on the data.
        """
        tensor = torch.as_tensor(data).detach()
        if tensor.is_floating_point():
            tensor = tensor.to(floating_dtype(model))
        was_training = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.no_grad():
                answers = [model(part) for part in tensor.split(BATCH)]
        except (RuntimeError, ValueError, TypeError) as error:
            raise DataError(
                message(
                    "TorchReader.outputs",
                    f"{type(model).__name__} does not run on data of shape {tuple(tensor.shape)} "
                    f"({error})",
                    cure="Pass inputs as the network takes them, batch first.",
                )
            ) from error
        finally:
            for module, training in was_training.items():
                module.training = training
        tensors = [a[0] if isinstance(a, (tuple, list)) else a for a in answers]
        return torch.cat(tensors).double().cpu().numpy()
