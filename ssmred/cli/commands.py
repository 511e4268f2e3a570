"""The commands. Heavy imports stay inside them, so that ``--help`` answers at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ssmred.cli import measuring
from ssmred.cli.console import BadInputError, Console, epilog
from ssmred.cli.folders import (
    Data,
    Factory,
    Folder,
    Json,
    Quiet,
    Weights,
    loaded,
    sequences_of,
    write_record,
)
from ssmred.cli.inspecting import EXAMPLES, inspect
from ssmred.cli.planning import EXAMPLES as PLAN_EXAMPLES
from ssmred.cli.planning import plan
from ssmred.cli.pruning import EXAMPLES as PRUNE_EXAMPLES
from ssmred.cli.pruning import prune
from ssmred.cli.reporting import EXAMPLES as REPORT_EXAMPLES
from ssmred.cli.reporting import report, written_out
from ssmred.cli.rigorous import verify_rigorously
from ssmred.cli.sources import (
    check_new_folder,
    input_set,
    load_certificate,
    load_data,
    load_model,
)

__all__ = ["app", "main"]

PICTURE = "reduction.png"

app = typer.Typer(
    name="ssmred",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Run the command line."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from ssmred import __version__

        typer.echo(f"ssmred {__version__}")
        raise typer.Exit


@app.callback(
    epilog=epilog(
        "ssmred zoo",
        "ssmred inspect weights.safetensors",
        "ssmred reduce zoo:fashion-mnist-s4d --states 0.2 --out small",
        "ssmred plan --coverage 0.999 --confidence 0.95",
        "ssmred verify small",
        "ssmred latency small",
        "ssmred report small",
        "ssmred prune --example > prune.toml",
    )
)
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Remove states from trained state-space networks, and certify what that did."""


@app.command(
    epilog=epilog(
        "ssmred reduce zoo:fashion-mnist-s4d --states 0.2 --out small",
        "ssmred reduce zoo:fashion-mnist-s4d --tol 0.05 --coverage 0.9 --out small",
        "ssmred reduce zoo:fashion-mnist-s4d --data-free --horizon 196 \\",
        "    --guarantee layer --tol 1e-3 --out provable",
        "ssmred reduce zoo:fashion-mnist-s4d --states 0.2 --method balanced --out moved",
        "ssmred reduce my_nets:classifier --weights trained.safetensors \\",
        "    --data inputs.npy --tol 1e-2 --out small",
        "ssmred reduce my_nets:filter --weights trained.safetensors \\",
        "    --horizon 256 --input-box -1 1 --out small --json",
    )
)
def reduce(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="zoo:NAME, or package.module:function (a function without arguments that returns "
            "the network; the current folder is searched first).",
            metavar="MODEL",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the result.", metavar="DIR")],
    weights: Weights = None,
    tol: Annotated[
        float | None,
        typer.Option(help="Largest output error relative to the output scale.  [default: 1e-3]"),
    ] = None,
    states: Annotated[
        float | None,
        typer.Option(help="Keep at most this share of the states (0 to 1) instead of a --tol."),
    ] = None,
    data: Data = None,
    data_free: Annotated[
        bool, typer.Option("--data-free", help="Leave a zoo network's bundled data unused.")
    ] = False,
    horizon: Annotated[
        int | None,
        typer.Option(help="Sequence length; default: the data's, infinite without data."),
    ] = None,
    input_box: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Declare low <= u <= high at every step.", metavar="LOW HIGH"),
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            help="Declare the input set: data (box of the data), tokens, or ball:R (l2 norm of "
            "the whole sequence <= R).",
            metavar="data|tokens|ball:R",
        ),
    ] = None,
    guarantee: Annotated[
        Literal["worst-case", "statistical", "layer"] | None,
        typer.Option(help="What to certify; default: statistical with data, worst-case without."),
    ] = None,
    metric: Annotated[
        Literal["h2", "calibrated"] | None,
        typer.Option(help="How removals are weighed; default: calibrated with data, h2 without."),
    ] = None,
    method: Annotated[
        Literal[
            "subset",
            "alternating",
            "balanced",
            "residualised",
            "h2_optimal",
            "modal",
            "hankel",
            "random",
            "lqo-bound",
            "lqo-h2",
            "lqo-limited",
            "lqo-balanced",
        ],
        typer.Option(
            help="How systems are made smaller; all but subset, alternating, modal and random "
            "(chance, a baseline) move poles. lqo-...: networks of layers with quadratic outputs."
        ),
    ] = "subset",
    feedthrough: Annotated[
        Literal["full", "diagonal"],
        typer.Option(
            help="Shape of D in reduced S5 and LRU layers: full is best, diagonal is smaller and "
            "what the layers' classes hold."
        ),
    ] = "full",
    division: Annotated[
        Literal["sensitivity", "measured"],
        typer.Option(
            help="How states are divided among layers on data: by sensitivities, or by trying; "
            "measured is for cuts that go far, and takes four to seven times as long."
        ),
    ] = "sensitivity",
    coverage: Annotated[
        float, typer.Option(help="Share of inputs that a statistical statement is about.")
    ] = 0.95,
    confidence: Annotated[
        float, typer.Option(help="Confidence of a statistical statement.")
    ] = 0.95,
    seed: Annotated[
        int, typer.Option(help="Seed of the split, of the sampling and of --method random.")
    ] = 0,
    test_images: Annotated[
        int,
        typer.Option(help="Zoo only: test images to measure accuracy on (0: none).", min=0),
    ] = 2000,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier result in --out.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Reduce a network under a bound, and write it with its certificate to a folder.

    The folder holds the reduced network, the original, the certificate, the whole
    error-versus-states path and a picture. For a zoo network, accuracy on the
    bundled test images and latency are measured too.
    """
    console = Console("reduce", as_json=as_json, quiet=quiet)
    with console.guarded():
        if tol is not None and states is not None:
            raise BadInputError("give --tol or --states, not both: one bounds error, one size")
        if data is not None and data_free:
            raise BadInputError("give --data or --data-free, not both")
        check_new_folder(out, force=force)
        declared = input_set(input_box, inputs)
        source = load_model(model, weights)
        if data is not None:
            sequences = load_data(data, source.model)
        elif source.zoo is not None and not data_free:
            sequences = source.zoo.calibration.inputs
        else:
            sequences = None
        from ssmred import pipeline

        wish: dict[str, Any] = {"states": states} if states is not None else {}
        if tol is not None:
            wish["tol"] = tol
        result = pipeline.reduce(
            source.model,
            data=sequences,
            horizon=horizon,
            inputs=declared,
            guarantee=guarantee,
            metric=metric,
            method=method,
            feedthrough=feedthrough,
            division=division,
            coverage=coverage,
            confidence=confidence,
            seed=seed,
            progress=console.progress,
            **wish,
        )
        facts: dict[str, Any] = {
            "model": source.name,
            "command": written_out(context),
            "out": out,
            "method": result.method,
            "states": {"kept": result.states[0], "full": result.states[1]},
            "parameters": {"kept": result.parameters[0], "full": result.parameters[1]},
            "seconds": result.seconds,
            "certificate": json.loads(result.certificate.to_json()),
            "alternatives": [vars(a) for a in result.alternatives],
        }
        measured = ""
        if source.zoo is not None:
            measured, more = measuring.measured(result, source.zoo.test, test_images, console)
            facts |= more
        result.save(out)
        result.plot(out / PICTURE)
        facts["picture"] = out / PICTURE
        write_record(out, facts)
        console.show(result.summary())
        if measured:
            console.show(f"\n{measured}")
        console.show(f"\n{result.certificate}\n\nWritten to {out}, with {PICTURE}.")
        console.finish(facts)


@app.command(
    epilog=epilog(
        "ssmred verify small",
        "ssmred verify small --data inputs.npy",
        "ssmred verify small --rigorous --save rigorous.json",
        "ssmred verify small --certificate rigorous.json",
        "ssmred verify small --json --quiet",
    )
)
def verify(
    folder: Folder,
    data: Data = None,
    rigorous: Annotated[
        bool,
        typer.Option(
            "--rigorous",
            help="Recompute a worst-case certificate in ball arithmetic, from the stored files "
            "alone. Needs pip install 'ssmred[rigour]'.",
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            help="With --rigorous: write the certificate at level RIGOROUS.", metavar="FILE.json"
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(help="Another certificate than the folder's.", metavar="FILE.json"),
    ] = None,
    model: Factory = None,
    weights: Weights = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Recompute a certificate from the two stored networks; refuse on any difference.

    A statistical statement is recomputed from the data it was made with: the zoo's
    bundled data is found by itself, other data is given with --data. With --rigorous
    nothing but the files is read, and neither PyTorch nor the code that made the
    certificate is loaded; the output scale is then taken as recorded.
    """
    console = Console("verify", as_json=as_json, quiet=quiet)
    with console.guarded():
        if rigorous:
            if data is not None or model is not None or weights is not None:
                raise BadInputError("--rigorous reads the stored files alone; leave the rest out")
            verify_rigorously(folder, certificate, save, console)
            return
        if save is not None:
            raise BadInputError("--save writes what --rigorous found; give both")
        result = loaded(folder, model, weights)
        if certificate is not None:
            result = replace(result, certificate=load_certificate(certificate))
        sequences = sequences_of(folder, data, result)
        evidence = measuring.evidence_of(result, sequences, given=data is not None)
        from ssmred.certify import verify as recompute

        with console.stages() as progress:
            found = recompute(
                result.certificate,
                result.original,
                result.model,
                data=evidence,
                progress=progress,
            )
        console.show(found)
        verdict = (
            "what was recomputed agrees; what was not is listed above"
            if found.not_recomputed
            else "the certificate holds for the two networks stored there"
        )
        console.show(f"\n{folder}: {verdict}.")
        console.finish({"folder": folder, "verification": measuring.verification_facts(found)})


@app.command(
    epilog=epilog(
        "ssmred latency small",
        "ssmred latency small --threads 1 --batch 1 --batch 64 --repeats 31",
        "ssmred latency small --data inputs.npy --picture latency.png",
    )
)
def latency(
    folder: Folder,
    data: Data = None,
    repeats: Annotated[int, typer.Option(help="Timed blocks per figure.", min=1)] = 15,
    batch: Annotated[
        list[int] | None,
        typer.Option(help="Batch size; give it several times.  [default: 1 and 32]", min=1),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads; default: as torch is set.", min=1)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Length of random inputs; default: the certificate's, or 256.", min=1),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the figures.", metavar="FILE.png")
    ] = None,
    model: Factory = None,
    weights: Weights = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure original against reduced, alternating, on this machine.

    Whole sequences, one streaming step, bytes of parameters, peak memory. Inputs are
    --data, the zoo's data, or random inputs of the certificate's input set and length.
    """
    console = Console("latency", as_json=as_json, quiet=quiet)
    with console.guarded():
        result = loaded(folder, model, weights)
        sequences = sequences_of(folder, data, result)
        if sequences is None:
            sequences = measuring.random_inputs(
                result.original, steps or result.certificate.horizon
            )
        from ssmred.deploy import latency as measure

        measured = measure(
            result.original,
            result.model,
            sequences,
            batches=tuple(batch or (1, 32)),
            repeats=repeats,
            threads=threads,
            progress=console.progress,
        )
        if picture is not None:
            from ssmred.report import plot_latency

            plot_latency(measured, picture)
        console.show(measured)
        console.finish({"folder": folder, "latency": measured.to_dict()})


@app.command(
    epilog=epilog(
        "ssmred zoo",
        "ssmred zoo fashion-mnist-s4d",
        "ssmred zoo fashion-mnist-s4d --json",
    )
)
def zoo(
    name: Annotated[
        str | None, typer.Argument(help="Show one network in detail.", metavar="NAME")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List the bundled trained networks, or describe one."""
    console = Console("zoo", as_json=as_json, quiet=quiet)
    with console.guarded():
        from ssmred import zoo as bundled
        from ssmred.report.tables import table

        if name is not None and name not in bundled.names():
            raise BadInputError(
                f"no bundled network is called {name!r}; there are: {', '.join(bundled.names())}"
            )
        listed = [measuring.described(entry) for entry in ([name] if name else bundled.names())]
        if name is None:
            columns = (
                "name",
                "layers",
                "channels",
                "states",
                "parameters",
                "steps",
                "calibration",
                "test",
            )
            rows = [[entry[column] for column in columns] for entry in listed]
            console.show(table(rows, columns))
        else:
            console.show(table(list(listed[0].items()), ("", name)))
            console.show(f"\nReduce it: ssmred reduce zoo:{name} --states 0.2 --out small")
        console.finish({"networks": listed})


app.command(epilog=epilog(*REPORT_EXAMPLES))(report)
app.command(epilog=epilog(*EXAMPLES))(inspect)
app.command(epilog=epilog(*PLAN_EXAMPLES))(plan)
app.command(epilog=epilog(*PRUNE_EXAMPLES))(prune)
