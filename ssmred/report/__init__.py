"""Figures and tables from plain data."""

from ssmred.report.plots import plot_latency, plot_reduction
from ssmred.report.tables import table

__all__ = ["plot_latency", "plot_reduction", "table"]
