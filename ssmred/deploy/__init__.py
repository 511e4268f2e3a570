"""What a reduced network costs on this machine."""

from ssmred.deploy.latency import latency
from ssmred.deploy.latency_report import LatencyReport, Measurement, Spread

__all__ = ["LatencyReport", "Measurement", "Spread", "latency"]
