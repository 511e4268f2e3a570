"""Bundled trained networks with the data they were trained for."""

from ssmred.zoo.bundle import Sample, ZooData, load, names, record

__all__ = ["Sample", "ZooData", "load", "names", "record"]
