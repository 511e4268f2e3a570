"""Figures, tables and the safety report, from plain data."""

from ssmred.report.decay import plot_hankel_decay
from ssmred.report.families import plot_family
from ssmred.report.page import SafetyPage, save_page
from ssmred.report.plots import plot_latency, plot_layers, plot_reduction, plot_weights
from ssmred.report.tables import table

__all__ = [
    "SafetyPage",
    "plot_family",
    "plot_hankel_decay",
    "plot_latency",
    "plot_layers",
    "plot_reduction",
    "plot_weights",
    "save_page",
    "table",
]
