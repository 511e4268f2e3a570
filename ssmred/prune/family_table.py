"""Print a family as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssmred.deploy.quantities import aligned, quantity
from ssmred.prune.member import SCORES, Member

if TYPE_CHECKING:
    from ssmred.prune.family import Family

__all__ = ["family_table"]

_TITLES = (
    *("operators removed", "left", "parameters", "memory", "latency", "[quartiles]"),
    *("to parent", "bound", "val before", "after", "test before", "after"),
)


def family_table(family: Family) -> str:
    """Return a family as plain text: a line per network, and below it what the columns mean."""
    lines = [_TITLES, *(_row(member) for member in (family.parent, *family.members))]
    scored = f"{family.metric} in percent, before and after fine-tuning"
    rows = [
        *aligned(lines),
        "",
        f"{family.task}: {scored}" if family.task else scored,
        "latency of one whole sequence, kernels cached: median [quartiles]; to parent: measured in "
        "alternation",
    ]
    guarantees = sorted({str(m.error["guarantee"]) for m in family.members if m.error})
    if guarantees:
        rows.append(
            f"bound ({', '.join(guarantees)}) on the error against the parent, before fine-tuning, "
            "relative to the output scale"
        )
    if family.parent.uncached is not None:
        time = quantity(family.parent.uncached.median, "s")
        rows.append(f"the parent takes {time} where every pass makes the kernels anew")
    return "\n".join([*rows, family.machine])


def _row(member: Member) -> tuple[str, ...]:
    lower, upper = (quantity(t, "s") for t in (member.latency.lower, member.latency.upper))
    left = member.operators - member.removed
    scores = (member.scores[name] for name in SCORES)
    return (
        f"{100.0 * member.rate:.3g} %" if member.removed else "none (parent)",
        f"{left:,} of {member.operators:,}",
        f"{member.parameters:,}",
        quantity(member.bytes, "B"),
        quantity(member.latency.median, "s"),
        f"[{lower}, {upper}]",
        f"{member.latency_ratio:.2f}",
        "-" if member.bound is None else f"{member.bound:.2e}",
        *("-" if score is None else f"{score:.2f}" for score in scores),
    )
