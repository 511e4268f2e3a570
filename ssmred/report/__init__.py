"""Figures and tables from plain data."""

from ssmred.report.decay import plot_hankel_decay
from ssmred.report.plots import plot_latency, plot_reduction, plot_weights
from ssmred.report.tables import table

__all__ = ["plot_hankel_decay", "plot_latency", "plot_reduction", "plot_weights", "table"]
