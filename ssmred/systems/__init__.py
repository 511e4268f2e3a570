"""Linear systems as frozen values, and conversions between their forms."""

from ssmred.systems.bilinear import GatedSystem, gated_system
from ssmred.systems.cayley import cayley
from ssmred.systems.conversions import (
    difference,
    from_control,
    from_scipy,
    to_control,
    to_scipy,
)
from ssmred.systems.dense import DenseSystem
from ssmred.systems.diagonal import DiagonalSystem
from ssmred.systems.discretisation import discretise
from ssmred.systems.linear import LinearSystem
from ssmred.systems.quadratic import QuadraticOutputSystem
from ssmred.systems.stability import check_stable, is_stable, stability_margins

__all__ = [
    "DenseSystem",
    "DiagonalSystem",
    "GatedSystem",
    "LinearSystem",
    "QuadraticOutputSystem",
    "cayley",
    "check_stable",
    "difference",
    "discretise",
    "from_control",
    "from_scipy",
    "gated_system",
    "is_stable",
    "stability_margins",
    "to_control",
    "to_scipy",
]
