"""Bundled trained networks with the data they were trained for."""

from ssmred.tasks import ListOps, Sample
from ssmred.zoo.bundle import load, names, record
from ssmred.zoo.tasks import ZooData

__all__ = ["ListOps", "Sample", "ZooData", "load", "names", "record"]
