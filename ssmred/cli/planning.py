"""The command ``ssmred plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmred.cli.console import Console

__all__ = ["EXAMPLES", "plan"]

EXAMPLES = (
    "ssmred plan --coverage 0.999 --confidence 0.95",
    "ssmred plan --coverage 0.99 --violations 3",
    "ssmred plan --coverage 0.95 --statements 10",
    "ssmred plan --inputs 2000 --coverage 0.999",
    "ssmred plan --inputs 2000 --json",
)


def plan(
    coverage: Annotated[
        float, typer.Option(help="Share of inputs that the statement is about.")
    ] = 0.95,
    confidence: Annotated[float, typer.Option(help="Confidence of the statement.")] = 0.95,
    violations: Annotated[
        int | None,
        typer.Option(
            help="Held-out inputs that may be above the bound.  [default: 0 to 5, each]", min=0
        ),
    ] = None,
    inputs: Annotated[
        int | None,
        typer.Option(
            help="Held-out inputs at hand: say what they can state, instead of how many are needed "
            "(ssmred reduce holds out half of --data).",
            min=1,
        ),
    ] = None,
    statements: Annotated[
        int,
        typer.Option(help="Statements that shall hold at once, classes for example.", min=1),
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object to stdout and nothing else there."),
    ] = False,
) -> None:
    """Say how many inputs a statistical certificate needs, or what given ones can state.

    The probabilities are exact binomial ones, the same that the test itself uses.
    """
    console = Console("plan", as_json=as_json, quiet=quiet)
    with console.guarded():
        from ssmred.certify import sample_plan

        found = sample_plan(
            coverage, confidence, violations=violations, inputs=inputs, statements=statements
        )
        console.show(found)
        console.finish(
            {
                "coverage": found.coverage,
                "confidence": found.confidence,
                "statements": found.statements,
                "inputs": found.inputs,
                "rows": [vars(row) for row in found.rows],
            }
        )
