"""What a run of progressive pruning is asked for, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from ssmred.checks import check_choice, check_fraction, check_integer
from ssmred.errors import RequestError, message
from ssmred.prune.allocation import ALLOCATIONS, check_rates
from ssmred.prune.recipe import Training
from ssmred.prune.replacement import Replacement
from ssmred.prune.selection import SELECTIONS

__all__ = ["RATES", "S4OP", "TARGETS", "Options"]

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)

TARGETS = ("latency", "bytes")
"""What a budget can be given in, as a share of the parent's."""

S4OP: dict[str, Any] = {
    "selection": "random",
    "replacement": "identity",
    "allocation": "exponential",
    "repair": False,
    "step": None,
    "seeds": (0, 1, 2, 3, 4),
}
"""The published method (arXiv 2606.18096): ``progressive(model, task, **S4OP)``."""


@dataclass(frozen=True)
class Options:
    """Hold the arguments of `progressive`; see there."""

    rates: tuple[float, ...] = RATES
    targets: dict[str, tuple[float, ...]] = field(default_factory=dict)
    selection: str = "calibrated"
    replacement: str = "static_gain"
    order: int = 2
    allocation: str = "global"
    repair: bool = True
    silence: float = 0.0
    step: float | None = 0.05
    seeds: tuple[int, ...] = (0,)
    training: Training = field(default_factory=Training)
    repeats: int = 30
    threads: int = 1
    calibration: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every option; raise RequestError or the like, naming it."""
        set_ = object.__setattr__
        set_(self, "targets", _checked_targets(self.targets))
        set_(self, "rates", () if self.targets else check_rates(tuple(self.rates)))
        check_choice(self.selection, SELECTIONS, "selection", "progressive")
        check_choice(self.allocation, ALLOCATIONS, "allocation", "progressive")
        Replacement(self.replacement, self.order)
        if self.silence:
            set_(self, "silence", check_fraction(self.silence, "silence", "progressive"))
            if not self.repair:
                raise RequestError(
                    message(
                        "progressive",
                        "channels are silenced where nothing is fitted to do without them",
                        expected="repair=True, or silence=0",
                        got=f"silence={self.silence!r}, repair=False",
                    )
                )
        if self.step is not None:
            set_(self, "step", check_fraction(self.step, "step", "progressive"))
        seeds = tuple(check_integer(seed, "a seed", "progressive") for seed in self.seeds)
        if not seeds or len(set(seeds)) < len(seeds):
            raise RequestError(
                message("progressive", "seeds are empty or repeat", got=f"{self.seeds!r}")
            )
        set_(self, "seeds", seeds)
        for name, low in (("repeats", 1), ("threads", 1), ("calibration", 1), ("seed", 0)):
            check_integer(getattr(self, name), name, "progressive", low=low)
        if not isinstance(self.training, Training):
            raise RequestError(
                message(
                    "progressive",
                    "training is no recipe",
                    expected="ssmred.prune.Training",
                    got=type(self.training).__name__,
                )
            )

    @property
    def how(self) -> Replacement:
        """What stands in the place of removed operators."""
        return Replacement(self.replacement, self.order)

    @property
    def goals(self) -> tuple[tuple[str, float], ...]:
        """Kind and value of every member: ``("rate", 0.3)`` or ``("latency", 0.6)``."""
        if self.targets:
            ((kind, values),) = self.targets.items()
            return tuple((kind, value) for value in values)
        return tuple(("rate", rate) for rate in self.rates)

    def to_dict(self) -> dict[str, Any]:
        """Return all options as JSON types."""
        stored = asdict(self)
        stored["targets"] = {kind: list(values) for kind, values in self.targets.items()}
        return stored | {"rates": list(self.rates), "seeds": list(self.seeds)}


def _checked_targets(targets: Mapping[str, Sequence[float]] | None) -> dict[str, tuple[float, ...]]:
    if not targets:
        return {}
    if len(targets) != 1 or next(iter(targets)) not in TARGETS:
        raise RequestError(
            message(
                "progressive",
                "targets are of an unknown kind, or of several",
                expected=f"one of {', '.join(TARGETS)} with falling shares of the parent's",
                got=f"{dict(targets)!r}",
            )
        )
    ((kind, values),) = targets.items()
    shares = tuple(check_fraction(value, kind, "progressive") for value in values)
    if not shares or any(b >= a for a, b in pairwise(shares)):
        raise RequestError(
            message(
                "progressive",
                f"targets of {kind} do not fall",
                expected="falling shares between 0 and 1 of the parent's",
                got=f"{values!r}",
            )
        )
    return {kind: shares}
