"""Read checkpoints without the classes that wrote them: files, families, layers."""

from ssmred.networks.checkpoints.families import FAMILIES, Family
from ssmred.networks.checkpoints.files import StoredTensors, as_stored, read_file
from ssmred.networks.checkpoints.found import Filter, Reading, StoredLayer
from ssmred.networks.checkpoints.layers import stored_layers
from ssmred.networks.checkpoints.modules import module_layers

__all__ = [
    "FAMILIES",
    "Family",
    "Filter",
    "Reading",
    "StoredLayer",
    "StoredTensors",
    "as_stored",
    "module_layers",
    "read_file",
    "stored_layers",
]
