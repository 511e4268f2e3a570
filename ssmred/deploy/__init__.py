"""What a reduced network costs on this machine, and its form for inference alone."""

from ssmred.deploy.compact import compacted
from ssmred.deploy.latency import latency
from ssmred.deploy.latency_report import LatencyReport, Measurement, Spread

__all__ = ["LatencyReport", "Measurement", "Spread", "compacted", "latency"]
