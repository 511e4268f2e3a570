"""Torch networks: find, import, reduce, trace, stream and store state-space layers."""

from ssmred.certify.verifier import register_model_reader
from ssmred.networks.adapter_check import AdapterReport, check_adapter
from ssmred.networks.adapters import Adapter, adapter_for, register_adapter
from ssmred.networks.adapters.block import FilterBlock
from ssmred.networks.adapters.dss import DSSAdapter, read_dss
from ssmred.networks.adapters.lqo import LQOAdapter, read_lqo
from ssmred.networks.adapters.lru import LRUAdapter, read_lru
from ssmred.networks.adapters.own import LayerAdapter
from ssmred.networks.adapters.s4_block import S4Adapter
from ssmred.networks.adapters.s4_reading import read_s4
from ssmred.networks.adapters.s4_settings import S4Settings
from ssmred.networks.adapters.s4d import S4DAdapter
from ssmred.networks.adapters.s4d_reading import read_s4d
from ssmred.networks.adapters.s4op import read_s4op
from ssmred.networks.adapters.s4op_network import network_from_s4op
from ssmred.networks.adapters.s5 import S5Adapter, read_s5
from ssmred.networks.bilinear import export_bilinear
from ssmred.networks.cores import core_for
from ssmred.networks.dense_core import DenseSSM
from ssmred.networks.discovery import (
    ImportedLayer,
    ImportedNetwork,
    find_layers,
    import_network,
    with_systems,
)
from ssmred.networks.exporting import SystemChain, export
from ssmred.networks.filters import LinearFilter
from ssmred.networks.plain_export import export_plain
from ssmred.networks.reader import TorchReader
from ssmred.networks.reduced import ReducedSSM
from ssmred.networks.shared import SharedSSM
from ssmred.networks.storage import load_network, load_weights_into, save_network, weights_sha256
from ssmred.networks.streaming import StreamingNetwork
from ssmred.networks.tracing import trace

__all__ = [
    "Adapter",
    "AdapterReport",
    "DSSAdapter",
    "DenseSSM",
    "FilterBlock",
    "ImportedLayer",
    "ImportedNetwork",
    "LQOAdapter",
    "LRUAdapter",
    "LayerAdapter",
    "LinearFilter",
    "ReducedSSM",
    "S4Adapter",
    "S4DAdapter",
    "S4Settings",
    "S5Adapter",
    "SharedSSM",
    "StreamingNetwork",
    "SystemChain",
    "TorchReader",
    "adapter_for",
    "check_adapter",
    "core_for",
    "export",
    "export_bilinear",
    "export_plain",
    "find_layers",
    "import_network",
    "load_network",
    "load_weights_into",
    "network_from_s4op",
    "read_dss",
    "read_lqo",
    "read_lru",
    "read_s4",
    "read_s4d",
    "read_s4op",
    "read_s5",
    "register_adapter",
    "save_network",
    "trace",
    "weights_sha256",
    "with_systems",
]

register_model_reader(TorchReader())
