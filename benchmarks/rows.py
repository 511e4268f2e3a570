"""Lines of the tables that hold ssmred against its peers."""

from __future__ import annotations

from timing import shown

HEADERS = ["task", "ssmred", "best peer", "its value", "ratio", "wanted", "met"]


def row(task: str, ours: float, times: dict[str, float], wanted: float) -> list[str]:
    """Return one line of the table: against the fastest peer."""
    name = min(times, key=times.__getitem__)
    ratio = times[name] / ours
    met = "yes" if ratio >= wanted else "no"
    return [task, shown(ours), name, shown(times[name]), f"{ratio:.3g}", f">= {wanted:.3g}", met]


def plain(task: str, value: str) -> list[str]:
    """Return a line that has no peer."""
    return [task, value, "", "", "", "", ""]


def error_row(task: str, ours: float, peer: str, theirs: float) -> list[str]:
    """Return one line of relative errors, nan counted as inf."""
    met = "yes" if ours <= max(theirs, 1e-15) else "no"
    return [
        f"relative error: {task}",
        f"{ours:.1e}",
        peer,
        f"{theirs:.1e}",
        "",
        "<= peer or 1e-15",
        met,
    ]
