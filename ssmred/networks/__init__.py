"""Torch networks: find, import, reduce, trace, stream and store state-space layers."""

from ssmred.certify.verifier import register_model_reader
from ssmred.networks.adapter_check import AdapterReport, check_adapter
from ssmred.networks.adapters import Adapter, adapter_for, register_adapter
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.own import LayerAdapter
from ssmred.networks.cores import core_for
from ssmred.networks.dense_core import DenseSSM
from ssmred.networks.discovery import (
    ImportedLayer,
    ImportedNetwork,
    export_plain,
    find_layers,
    import_network,
    with_systems,
)
from ssmred.networks.exporting import SystemChain, export
from ssmred.networks.filters import LinearFilter
from ssmred.networks.reader import TorchReader
from ssmred.networks.reduced import ReducedSSM
from ssmred.networks.shared import SharedSSM
from ssmred.networks.storage import load_network, load_weights_into, save_network, weights_sha256
from ssmred.networks.streaming import StreamingNetwork
from ssmred.networks.tracing import trace

__all__ = [
    "Adapter",
    "AdapterReport",
    "DenseSSM",
    "FilterBlock",
    "ImportedLayer",
    "ImportedNetwork",
    "LayerAdapter",
    "LinearFilter",
    "ReducedSSM",
    "SharedSSM",
    "StreamingNetwork",
    "SystemChain",
    "TorchReader",
    "adapter_for",
    "check_adapter",
    "core_for",
    "export",
    "export_plain",
    "find_layers",
    "import_network",
    "load_network",
    "load_weights_into",
    "register_adapter",
    "save_network",
    "trace",
    "weights_sha256",
    "with_systems",
]

register_model_reader(TorchReader())
