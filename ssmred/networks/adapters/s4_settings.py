"""What the tensors of an S4 layer do not tell: discretisation, transforms, and how to undo them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ssmred.errors import CheckpointError, RequestError, message

__all__ = [
    "DISCRETISATIONS",
    "TRANSFORMS",
    "TRUSTED",
    "UPSTREAM",
    "S4Settings",
    "inverse_transform",
    "transformed",
]

DISCRETISATIONS = ("zoh", "bilinear", "dss")
TRANSFORMS = ("exp", "none", "softplus", "sigmoid", "relu")
TRUSTED = ("matrices", "convolution")

RELU_FLOOR = 1e-4
"""Upstream adds it to a relu; its old kernels with a low-rank term do not."""

SOFTPLUS_LINEAR = 20.0
"""Torch's softplus is the identity above it."""


@dataclass(frozen=True)
class S4Settings:
    """Say what a state dict leaves open; what is None is found by comparing, or asked for.

    Attributes
    ----------
    disc : {"zoh", "bilinear", "dss"}, optional
        Discretisation of a diagonal layer. One with a low-rank term is always bilinear.
    real_transform, imag_transform, dt_transform : str, optional
        ``"exp"``, ``"none"``, ``"softplus"``, ``"sigmoid"`` or ``"relu"``.
    length : int, optional
        Sequence length for which the layer is read, where its response depends on it: with
        ``disc="dss"``, with ``trust="convolution"``, and where an old file lacks the length that
        its C is made for (0 if for none).
    swap_channels : bool, optional
        Output order of a layer with several channels: ``(channel, head)`` (False) or
        ``(head, channel)``.
    bandlimit : float, optional
        Modes with ``dt |Im A| / (2 pi) >= bandlimit / 2`` are left out.
    trust : {"matrices", "convolution"}, optional
        Which realisation counts where a layer's own convolution is not the impulse response of
        its own matrices.

    Raises
    ------
    RequestError
        If a value is none of these.
    """

    disc: str | None = None
    real_transform: str | None = None
    imag_transform: str | None = None
    dt_transform: str | None = None
    length: int | None = None
    swap_channels: bool | None = None
    bandlimit: float | None = None
    trust: str | None = None

    def __post_init__(self) -> None:
        """Check the choices."""
        allowed = {
            "disc": DISCRETISATIONS,
            "real_transform": TRANSFORMS,
            "imag_transform": TRANSFORMS,
            "dt_transform": TRANSFORMS,
            "trust": TRUSTED,
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if value is not None and value not in values:
                raise RequestError(
                    message(
                        "S4Settings",
                        f"{name} is unknown",
                        expected=f"one of {', '.join(values)}",
                        got=repr(value),
                    )
                )
        if self.length is not None and (not isinstance(self.length, int) or self.length < 0):
            raise RequestError(
                message("S4Settings", "length is no length", expected=">= 0", got=repr(self.length))
            )

    def replace(self, **changes: object) -> S4Settings:
        """Return a copy with some values replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def require(self, *names: str, where: str = "read_s4") -> None:
        """Raise CheckpointError unless these values are given."""
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            usual = [f"{n}={getattr(UPSTREAM, n)!r}" for n in missing if n != "length"]
            cure = "length: the sequence length it is used at. " if "length" in missing else ""
            if usual:
                cure += (
                    f"Pass S4Settings({', '.join(usual)}) if the layer was built with the defaults "
                    "of state-spaces/s4, else what it was built with"
                )
            raise CheckpointError(
                message(
                    where,
                    f"the tensors do not tell {', '.join(missing)}",
                    cure=cure.rstrip(". ") + ".",
                )
            )


UPSTREAM = S4Settings(
    disc="zoh", real_transform="exp", imag_transform="none", dt_transform="exp", swap_channels=False
)
"""What state-spaces/s4 takes where nothing is said (its version 3 discretised "bilinear")."""


def transformed(name: str, parameter: np.ndarray, *, floor: float = RELU_FLOOR) -> np.ndarray:
    """Return the positive quantity that a stored parameter stands for; inf where it overflows."""
    with np.errstate(over="ignore"):
        if name == "exp":
            return np.exp(parameter)
        if name == "softplus":
            smooth = np.logaddexp(0.0, parameter)
            return np.where(parameter > SOFTPLUS_LINEAR, parameter, smooth)
        if name == "sigmoid":
            return 1.0 / (1.0 + np.exp(-parameter))
    if name == "relu":
        return np.maximum(parameter, 0.0) + floor
    return parameter


def inverse_transform(name: str, value: np.ndarray, *, floor: float = RELU_FLOOR) -> np.ndarray:
    """Return the parameter that stands for a quantity; nan where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if name == "exp":
            parameter = np.log(value)
        elif name == "softplus":
            smooth = value + np.log(-np.expm1(-value))
            parameter = np.where(value > SOFTPLUS_LINEAR, value, smooth)
        elif name == "sigmoid":
            parameter = np.log(value) - np.log1p(-value)
        elif name == "relu":
            parameter = np.where(value >= floor, value - floor, np.nan)
        else:
            parameter = value
    return np.where(np.isfinite(parameter), parameter, np.nan)
