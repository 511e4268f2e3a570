"""Figures and tables from plain data."""

from ssmred.report.decay import plot_hankel_decay
from ssmred.report.families import plot_family
from ssmred.report.plots import plot_latency, plot_layers, plot_reduction, plot_weights
from ssmred.report.tables import table

__all__ = [
    "plot_family",
    "plot_hankel_decay",
    "plot_latency",
    "plot_layers",
    "plot_reduction",
    "plot_weights",
    "table",
]
