"""The networks that progressive pruning leaves, one per rate, with what each costs and is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ssmred.checks import check_choice
from ssmred.errors import CheckpointError, DataError, RequestError, SsmredError, message
from ssmred.networks import load_network, save_network
from ssmred.networks.writing import new_folder, write_text
from ssmred.prune.family_files import (
    FAMILY,
    FORMAT,
    PLAIN,
    SCHEMA,
    copy_weights,
    digest,
    read_record,
    unreadable,
)
from ssmred.prune.family_table import family_table
from ssmred.prune.member import Member, json_ready

__all__ = ["Family"]


@dataclass(frozen=True, eq=False)
class Family:
    """Hold a parent network and its pruned descendants.

    Parameters
    ----------
    parent : Member
        The network before pruning, rate 0.
    members : tuple of Member
        By rate; each has only operators that the one before has.
    options : mapping
        How they were made: arguments, seeds, recipe.
    split : mapping
        How the task's parts were made.
    machine : str
        What the latencies were measured on.
    task, metric : str
        What the networks do, and what the scores are.
    folder : Path, optional
        Where the weights lie; None where all are in memory.
    held : mapping of str to nn.Module
        Networks in memory, by their members' `weights`.
    read : function of a path
        Returns the network that is stored there.
    digests : mapping of str to str
        SHA-256 of the stored weights, by their members' `weights`.

    Raises
    ------
    DataError
        If the members are no family: of other layers, rates that fall, an operator that
        comes back.

    Notes
    -----
    Scores are percent. Errors are certified before fine-tuning: a fine-tuned network may do
    anything.
    """

    parent: Member
    members: tuple[Member, ...]
    options: Mapping[str, Any]
    split: Mapping[str, Any]
    machine: str
    task: str = ""
    metric: str = "accuracy"
    folder: Path | None = None
    held: Mapping[str, nn.Module] = field(default_factory=dict)
    read: Callable[[Path], nn.Module] = load_network
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        for name in ("options", "split"):
            object.__setattr__(self, name, json_ready(getattr(self, name), name, "Family"))
        if self.parent.removed:
            raise _no_family(f"the parent has lost {self.parent.removed} operators")
        for before, member in zip((self.parent, *self.members), self.members, strict=False):
            if member.kept.keys() != before.kept.keys() or member.operators != before.operators:
                raise _no_family(f"the member of rate {member.rate:g} has other layers")
            if member.rate < before.rate:
                raise _no_family(f"rates fall: {before.rate:g}, then {member.rate:g}")
            back = [k for k, live in member.kept.items() if not set(live) <= set(before.kept[k])]
            if back:
                raise _no_family(f"operators of {back[0]} come back at rate {member.rate:g}")
        places = [member.weights for member in (self.parent, *self.members)]
        if len(set(places)) < len(places):
            raise _no_family("two members have their weights in one place")

    # Its members --------------------------------------------------------------------------------

    def member(self, rate: float) -> Member:
        """Return the member of a rate, to half an operator; 0 is the parent.

        Raises
        ------
        RequestError
            If there is none.
        """
        everyone = (self.parent, *self.members)
        found = [member for member in everyone if member.has_rate(rate)]
        if found:  # of equal ones the last, which was fine-tuned longest
            return min(reversed(found), key=lambda member: abs(member.rate - rate))
        raise RequestError(
            message(
                "Family",
                "there is no member of this rate",
                expected=f"one of {', '.join(f'{member.rate:g}' for member in everyone)}",
                got=f"{rate!r}",
            )
        )

    def model(self, rate: float) -> nn.Module:
        """Return the network of a rate, in eval mode; 0 is the parent.

        Raises
        ------
        RequestError
            If there is no such rate.
        CheckpointError
            If the weights are missing, or not those that the family was saved with.
        """
        member = self.member(rate)
        if member.weights in self.held:
            return self.held[member.weights].eval()
        if self.folder is None:
            raise CheckpointError(
                message("Family.model", f"{member.weights} is neither in memory nor in a folder")
            )
        path = self.folder / member.weights
        known = self.digests.get(member.weights)
        if known is not None and known != digest(path):
            raise CheckpointError(
                message(
                    "Family.model",
                    f"{path} does not hold the weights that the family was saved with",
                    cure="The folder was changed; prune again, or copy it again.",
                )
            )
        return self.read(path).eval()

    def pareto(self, x: str = "latency", y: str = "val") -> tuple[Member, ...]:
        """Return the members, the parent among them, that none beats in both respects.

        Parameters
        ----------
        x : {"latency", "parameters", "bytes"}
            What should be small; latency as the ratio to the parent, measured in the same run.
        y : {"val", "test"}
            Score that should be high, after fine-tuning.

        Returns
        -------
        tuple of Member
            By rising cost.

        Raises
        ------
        ShapeError
            If x or y is none of these.
        RequestError
            If the test part was not opened.
        """
        check_choice(x, ("latency", "parameters", "bytes"), "x", "Family.pareto")
        check_choice(y, ("val", "test"), "y", "Family.pareto")
        found = [(_cost(m, x), m.scores[f"{y}_after"], m) for m in (self.parent, *self.members)]
        if any(score is None for _, score, _ in found):
            raise RequestError(message("Family.pareto", "the test part was not opened"))
        front = [
            (cost, member)
            for cost, score, member in found
            if not any(
                other <= cost and better >= score and (other < cost or better > score)
                for other, better, _ in found
            )
        ]
        return tuple(member for _, member in sorted(front, key=lambda pair: pair[0]))

    def __str__(self) -> str:
        """Return the table as plain text: medians, quartiles of the latency in brackets."""
        return family_table(self)

    # On disk ------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return all but the weights as JSON-ready types."""
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "task": self.task,
            "metric": self.metric,
            "machine": self.machine,
            "options": self.options,
            "split": self.split,
            "parent": self.parent.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "digests": dict(self.digests),
        }

    def save(
        self,
        folder: str | Path | None = None,
        *,
        write: Callable[[nn.Module, Path], Any] = save_network,
    ) -> Family:
        """Write ``family.json`` and all weights to a folder.

        Parameters
        ----------
        folder : path-like, optional
            By default the family's own; there only what is missing is written, ``family.json``
            last. Another folder is written beside its place and moved there as a whole; it is
            replaced if it holds an earlier family and refused if it holds anything else.
        write : function of a network and a path
            Stores a network that is in memory.

        Returns
        -------
        Family
            The same, living in that folder.

        Raises
        ------
        RequestError
            If there is no folder.
        CheckpointError
            If the folder holds something else, or weights are missing.
        """
        target = self.folder if folder is None else Path(folder)
        if target is None:
            raise RequestError(message("Family.save", "the family has no folder; name one"))
        if self.folder is not None and target.resolve() == self.folder.resolve():
            return self._written(target, write)
        if target.exists() and (
            not target.is_dir() or (any(target.iterdir()) and not (target / FAMILY).is_file())
        ):
            raise CheckpointError(
                message(
                    "Family.save",
                    f"{target} is not empty and holds no earlier family",
                    cure="Choose another folder.",
                )
            )
        with new_folder(target) as part:
            saved = self._written(part, write)
        return replace(saved, folder=target)

    @classmethod
    def load(
        cls, folder: str | Path, *, read: Callable[[Path], nn.Module] = load_network
    ) -> Family:
        """Read a family; its networks are read when they are asked for.

        Parameters
        ----------
        folder : path-like
            Written by `save`.
        read : function of a path
            Returns the network that is stored there.

        Raises
        ------
        CheckpointError
            If ``family.json`` is missing, damaged, foreign or newer, or weights are missing.
        """
        folder = Path(folder)
        stored = read_record(folder / FAMILY)
        try:
            members = tuple(Member.from_dict(record) for record in stored["members"])
            family = cls(
                parent=Member.from_dict(stored["parent"]),
                members=members,
                folder=folder,
                read=read,
                **{name: stored[name] for name in PLAIN},
            )
        except (SsmredError, TypeError) as error:
            raise unreadable(folder / FAMILY, str(error)) from error
        if set(family.digests) != {m.weights for m in (family.parent, *members)}:
            raise unreadable(folder / FAMILY, "its digests are not those of its members")
        missing = [place for place in family.digests if not (folder / place).exists()]
        if missing:
            raise CheckpointError(
                message(
                    "Family.load", f"{folder} lacks {', '.join(missing)}", cure="Copy it again."
                )
            )
        return family

    def _written(self, folder: Path, write: Callable[[nn.Module, Path], Any]) -> Family:
        folder.mkdir(parents=True, exist_ok=True)
        digests = {}
        for member in (self.parent, *self.members):
            place = folder / member.weights
            if not place.exists():
                if member.weights in self.held:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    write(self.held[member.weights], place)
                elif self.folder is not None and (self.folder / member.weights).exists():
                    copy_weights(self.folder / member.weights, place)
                else:
                    raise CheckpointError(
                        message("Family.save", f"the weights {member.weights} are nowhere")
                    )
            digests[member.weights] = digest(place)
        saved = replace(self, folder=folder, digests=digests)
        write_text(folder / FAMILY, json.dumps(saved.to_dict(), indent=1, allow_nan=False) + "\n")
        return saved


def _no_family(problem: str) -> DataError:
    return DataError(message("Family", problem, cure="Prune step by step from one parent."))


def _cost(member: Member, kind: str) -> float:
    return member.latency_ratio if kind == "latency" else float(getattr(member, kind))
