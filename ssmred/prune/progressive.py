"""Progressive pruning of operators, after S4oP: one network per rate, each made of the last."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from torch import nn

from ssmred.deploy import Spread
from ssmred.deploy.latency import machine
from ssmred.deploy.memory import parameter_bytes, peak_forward_bytes
from ssmred.errors import RequestError, message
from ssmred.networks import save_network, weights_sha256
from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.writing import write_text
from ssmred.prune.candidate import (
    AFTER,
    BEFORE,
    Assignment,
    restored,
    split_validation,
)
from ssmred.prune.candidates import run_all
from ssmred.prune.family import Family
from ssmred.prune.latency import Uncached, alternating
from ssmred.prune.latency_model import LatencyModel, measure_layers
from ssmred.prune.member import Member
from ssmred.prune.network import PrunableNetwork, operators_of
from ssmred.prune.options import RATES, Options
from ssmred.prune.recipe import Training
from ssmred.prune.scoring import evaluate
from ssmred.tasks import Task

__all__ = ["progressive"]

RUN, MEMBER, SECONDS, PARENT = "run.json", "member.json", "seconds.json", "parent"


def progressive(
    model: nn.Module,
    task: Task,
    *,
    rates: Sequence[float] = RATES,
    targets: Mapping[str, Sequence[float]] | None = None,
    selection: str = "calibrated",
    replacement: str = "static_gain",
    order: int = 2,
    allocation: str = "global",
    repair: bool = True,
    silence: float = 0.0,
    step: float | None = 0.05,
    seeds: Sequence[int] = (0,),
    training: Training | None = None,
    repeats: int = 30,
    threads: int = 1,
    calibration: int = 256,
    seed: int = 0,
    workers: int = 1,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Family:
    """Remove operators at rising rates, fine-tune at each, and return all the networks.

    An operator is one channel's single-input single-output system inside a layer. At every rate
    each seed makes a candidate of the best network of the rate before: operators go, something
    stands in their place, the mixings are fitted, the network is fine-tuned. The candidate with the
    best validation score is the network of this rate, measured on this machine in alternation with
    its parent. What is pruned stays pruned.

    Parameters
    ----------
    model : nn.Module
        A trained network with layers of independent channels (S4, S4D, DSS); never modified.
    task : Task
        Its validation part is cut in two: one half chooses (candidates, epochs), the other
        certifies. The test part is opened once, at the end.
    rates : sequence of float
        Rising shares of all operators that are gone.
    targets : mapping, optional
        Instead of rates: ``{"latency": (0.8, 0.6)}`` or ``{"bytes": (0.5,)}``, falling shares of
        the parent's. Operators go until the layers' latency model, measured at the beginning, or
        the bytes say so; the member's measured latency is what is reported.
    selection : {"calibrated", "h2", "gradient", "random"}
        What removals are judged by; see `costs_of`. S4oP: "random".
    replacement : {"static_gain", "identity", "zero", "low_order"}
        What stands in the place of an operator; see `Replacement`. S4oP: "identity".
    order : int
        Real states of "low_order".
    allocation : {"global", "latency", "uniform", "exponential"}
        How removals are divided among the layers; see `removals_by_layer`. S4oP: "exponential".
        "exponential" and "uniform" leave one operator in every layer, and a rate that would not is
        refused; "global" and "latency" may empty layers, which then are gains and mixings.
    repair : bool
        Fit the mixings to what the parent computes, once operators are gone; see `repaired`.
    silence : float
        Share of the channels without operator whose gain and column of the mixing go too, as that
        fit says; less to compute for `ssmred.deploy.compacted` networks.
    step : float or None
        Share of all operators that go before what is left is judged again; None: all at once.
    seeds : sequence of int
        One candidate each.
    training : Training, optional
        The fine-tuning; ``Training(epochs=0)`` leaves it out.
    repeats, threads : int
        Timed blocks per network, and threads, of latencies.
    calibration : int
        Training inputs that removals and mixings are fitted to.
    seed : int
        Draws these, and halves the validation part.
    workers : int
        Candidates at a time; through joblib, whose back-end may be a cluster.
    folder : path-like, optional
        Where the run's state is kept: a run that was killed goes on where it was. By default a
        temporary folder.
    progress : bool

    Returns
    -------
    Family

    Raises
    ------
    RequestError
        If an option is wrong, a rate would empty a layer where that is not allowed, a target is
        out of reach, or the folder holds another run.
    UnsupportedOperationError
        If the channels of a layer share a state.

    Notes
    -----
    Certificates are statistical, and of the network before fine-tuning. Source: arXiv 2606.18096
    for the scheme; costs, replacements and repairs: ``theory/operator-removal.md`` and
    ``theory/mixing-refit.md``.
    """
    options = Options(
        rates=tuple(rates),
        targets=dict(targets or {}),
        selection=selection,
        replacement=replacement,
        order=order,
        allocation=allocation,
        repair=repair,
        silence=silence,
        step=step,
        seeds=tuple(seeds),
        training=training or Training(),
        repeats=repeats,
        threads=threads,
        calibration=calibration,
        seed=seed,
    )
    place = Path(tempfile.mkdtemp(prefix="ssmred-prune-")) if folder is None else Path(folder)
    run = _Run(model, task, options, place, workers)
    return run.family(progress)


class _Run:
    """Keep the state of a run: everything that is done is on disk."""

    def __init__(
        self, model: nn.Module, task: Task, options: Options, folder: Path, workers: int
    ) -> None:
        self.parent = operators_of(model)
        self.parent.model.eval()
        self.whole, self.options, self.folder, self.workers = task, options, folder, workers
        self.task, self.certification = split_validation(task, options.seed)
        self.inputs = self.task.val.inputs[:1]
        self._begin(weights_sha256(model))

    def _begin(self, weights: str) -> None:
        """Start a run in the folder, or make sure that the one in it is this one."""
        wanted = {
            "options": self.options.to_dict(),
            "task": self.whole.name,
            "split": self.whole.split,
            "weights_sha256": weights,
        }
        wanted = json.loads(json.dumps(wanted))
        path = self.folder / RUN
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            other = sorted(key for key in wanted if found.get(key) != wanted[key])
            if other:
                raise RequestError(
                    message(
                        "progressive",
                        f"{self.folder} holds another run",
                        expected="the same network, task and options as it was started with",
                        got=f"other {', '.join(other)}",
                        cure="Choose another folder, or remove this one.",
                    )
                )
        elif any(self.folder.iterdir()):
            raise RequestError(
                message(
                    "progressive",
                    f"{self.folder} is not empty and holds no run",
                    cure="Choose another folder.",
                )
            )
        else:
            save_network(self.parent.model, self.folder / PARENT)
            write_text(path, json.dumps(wanted, indent=1) + "\n")

    def family(self, progress: bool) -> Family:
        """Do what is still to be done and return the family."""
        goals, options = self.options.goals, self.options
        with Progress(console=Console(stderr=True), disable=not progress) as bar:
            job = bar.add_task("prune", total=len(goals) * len(options.seeds) + 1)
            seconds = self._layer_seconds()
            start, members, folders = self.parent, [], []
            for number, goal in enumerate(goals):
                bar.update(job, description=f"{goal[0]} {goal[1]:g}")
                folder = self.folder / f"{number}-{goal[0]}-{goal[1]:g}"
                records = self._candidates(start, goal, folder, seconds)
                best = max(records, key=lambda r: (r["val_after"], -r["seed"]))
                chosen = folder / f"seed-{best['seed']}"
                start = restored(self.parent, chosen)
                members.append(self._member(start, folder, chosen, best, records))
                folders.append(chosen)
                bar.advance(job, len(options.seeds))
            bar.update(job, description="test")
            family = self._tested(members, folders)
            bar.advance(job)
        return family

    def _candidates(
        self,
        start: PrunableNetwork,
        goal: tuple[str, float],
        folder: Path,
        seconds: LatencyModel | None,
    ) -> list[dict[str, Any]]:
        folder.mkdir(exist_ok=True)
        jobs = [
            Assignment(
                self.parent,
                start,
                self.task,
                self.certification,
                self.options,
                goal,
                seconds,
                seed,
                len(self.options.seeds),
                folder / f"seed-{seed}",
            )
            for seed in self.options.seeds
        ]
        return run_all(jobs, workers=self.workers)

    def _layer_seconds(self) -> LatencyModel | None:
        """Return the latency model of the parent's layers, where something asks for it."""
        if self.options.allocation != "latency" and "latency" not in self.options.targets:
            return None
        path = self.folder / SECONDS
        if not path.exists():
            banks = self.parent.banks
            whole = alternating(
                {"parent": self.parent.model},
                self.inputs,
                repeats=self.options.repeats,
                threads=self.options.threads,
            )
            model = measure_layers(
                lambda layer, live: _with_live(banks[layer], live),
                self.parent.channels,
                self.task.length,
                network=whole["parent"].median,
                repeats=self.options.repeats,
                threads=self.options.threads,
            )
            write_text(path, json.dumps(model.to_dict(), indent=1) + "\n")
        return LatencyModel.from_dict(json.loads(path.read_text(encoding="utf-8")))

    def _member(
        self,
        network: PrunableNetwork,
        folder: Path,
        chosen: Path,
        best: dict[str, Any],
        records: list[dict[str, Any]],
    ) -> Member:
        path = folder / MEMBER
        if path.exists():
            return Member.from_dict(json.loads(path.read_text(encoding="utf-8")))
        start = time.perf_counter()
        times = alternating(
            {"parent": self.parent.model, "member": network.model},
            self.inputs,
            repeats=self.options.repeats,
            threads=self.options.threads,
        )
        total = sum(network.channels.values())
        gone = total - network.operators
        member = Member(
            rate=gone / total,
            kept=network.live,
            removed=gone,
            operators=total,
            parameters=sum(p.numel() for p in network.model.parameters()),
            bytes=parameter_bytes(network.model),
            latency=times["member"],
            parent_latency=times["parent"],
            uncached=self._uncached(network),
            ratio=times.ratio("member", "parent"),
            peak_bytes=peak_forward_bytes(network.model, self.inputs)[1],
            error=best["error"],
            scores={
                "val_before": best["val_before"],
                "val_after": best["val_after"],
                "test_before": None,
                "test_after": None,
                "candidates": [
                    {key: r[key] for key in ("seed", "val_before", "val_after", "seconds")}
                    for r in records
                ],
            },
            seconds=sum(r["seconds"] for r in records) + time.perf_counter() - start,
            weights=(chosen / AFTER).relative_to(self.folder).as_posix(),
        )
        write_text(path, json.dumps(member.to_dict(), indent=1) + "\n")
        return member

    def _uncached(self, network: PrunableNetwork) -> Spread:
        """Return the latency where every pass makes the kernels; apart, as it evicts the caches."""
        times = alternating(
            {"uncached": Uncached(network.model)},
            self.inputs,
            repeats=self.options.repeats,
            threads=self.options.threads,
        )
        return times["uncached"]

    def _tested(self, members: list[Member], folders: list[Path]) -> Family:
        """Open the test part, once for all networks, and write the family."""
        if (self.folder / "family.json").exists():
            return Family.load(self.folder)
        test = self.whole.open_test()
        parent, final = self._parent_member(test), []
        for member, folder in zip(members, folders, strict=True):
            networks = {which: restored(self.parent, folder, which) for which in (BEFORE, AFTER)}
            scores = {
                f"test_{which}": evaluate(network.model, test, self.whole)
                for which, network in networks.items()
            }
            final.append(Member(**(_fields(member) | {"scores": dict(member.scores) | scores})))
        family = Family(
            parent=parent,
            members=tuple(final),
            options=self.options.to_dict(),
            split=self.whole.split,
            machine=machine(),
            task=self.whole.name,
            metric=self.whole.metric,
            folder=self.folder,
        )
        return family.save()

    def _parent_member(self, test: Any) -> Member:
        network = self.parent
        times = alternating(
            {"parent": network.model},
            self.inputs,
            repeats=self.options.repeats,
            threads=self.options.threads,
        )
        val = evaluate(network.model, self.task.val, self.task)
        score = evaluate(network.model, test, self.whole)
        return Member(
            rate=0.0,
            kept=network.live,
            removed=0,
            operators=network.operators,
            parameters=sum(p.numel() for p in network.model.parameters()),
            bytes=parameter_bytes(network.model),
            latency=times["parent"],
            parent_latency=times["parent"],
            uncached=self._uncached(network),
            peak_bytes=peak_forward_bytes(network.model, self.inputs)[1],
            error={},
            scores={
                "val_before": val,
                "val_after": val,
                "test_before": score,
                "test_after": score,
                "candidates": [],
            },
            seconds=0.0,
            weights=PARENT,
        )


def _fields(member: Member) -> dict[str, Any]:
    return {name: getattr(member, name) for name in member.__dataclass_fields__}


def _with_live(bank: OperatorBank, live: int) -> OperatorBank:
    """Return a bank with so many operators; which does not matter for its time."""
    gone = sorted(bank.live.tolist())[live:]
    return bank.pruned({channel: 1.0 for channel in gone})
