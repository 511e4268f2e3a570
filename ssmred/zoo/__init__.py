"""Bundled trained networks with the data they were trained for."""

from ssmred.tasks.listops import ListOps
from ssmred.zoo.bundle import load, names, record
from ssmred.zoo.tasks import Sample, ZooData

__all__ = ["ListOps", "Sample", "ZooData", "load", "names", "record"]
