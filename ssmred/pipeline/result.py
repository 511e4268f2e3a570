"""What a reduction returns: the model, its certificate, and the curve behind the choice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ssmred.certify import Certificate
from ssmred.errors import CheckpointError
from ssmred.networks import load_network, save_network
from ssmred.networks.writing import new_folder
from ssmred.pipeline.methods import SUBSET, check_method
from ssmred.pipeline.prediction import BoundedPredictor, Predictions
from ssmred.report import plot_reduction, save_page, table
from ssmred.report.page import checked_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = 1
"""Version of ``result.json``."""


_YARDSTICK = {
    "worst-case": "the output scale, for every input of the set",
    "statistical": "the output scale, for most inputs like the data",
    "layer": "each layer's own h2 norm, nothing about the output",
}


@dataclass(frozen=True)
class Alternative:
    """Say how much another guarantee or tolerance would allow.

    Attributes
    ----------
    guarantee : str
        Kind of statement.
    tol : float
        Its relative error.
    removed : float
        Share of the states that could go.
    """

    guarantee: str
    tol: float
    removed: float


@dataclass(frozen=True, eq=False)
class RemovalCurve:
    """Hold the error against the number of states over the whole path of removals.

    Attributes
    ----------
    states : (K,) int
        States kept, falling.
    error : (K,) float
        Layer error, all layers together, in the metric and with the weights that chose the cut,
        relative to removing everything.
    """

    states: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class ReductionResult:
    """Hold a reduced network and everything known about it.

    Attributes
    ----------
    model : nn.Module
        The reduced network, in eval mode; a drop-in for the original.
    original : nn.Module
        The network that was given; it is never modified.
    certificate : Certificate
        What is guaranteed; see ``docs/certificates.md``.
    states, parameters : (int, int)
        Kept and full: real states (a conjugate pair is two), numbers in parameters and
        floating-point buffers.
    path : RemovalCurve
        The whole error-versus-order curve.
    alternatives : tuple of Alternative
        What other tolerances and guarantees would allow.
    seconds : float
        Wall time of the reduction.
    method : str
        How the layers' systems were made smaller.
    request : dict or None
        The arguments of `ssmred.reduce` that ask for this again, as JSON types; of the data their
        shape, type and hash. None where an older version did not record it.
    machine : str
        Where it was made: processor, system, versions.
    """

    model: nn.Module
    original: nn.Module
    certificate: Certificate
    states: tuple[int, int]
    parameters: tuple[int, int]
    path: RemovalCurve
    alternatives: tuple[Alternative, ...]
    seconds: float
    method: str = SUBSET
    request: dict[str, Any] | None = None
    machine: str = ""

    @property
    def removed(self) -> float:
        """Share of the states that were removed, 0 to 1."""
        kept, full = self.states
        return 1.0 - kept / full

    def summary(self) -> str:
        """Return a readable account: sizes, guarantee, layers, alternatives."""
        certificate = self.certificate
        lines = [
            f"states      {self.states[0]:>8,} of {self.states[1]:,} "
            f"({100 * self.removed:.1f} % removed)",
            f"parameters  {self.parameters[0]:>8,} of {self.parameters[1]:,}",
            f"method      {self.method}",
            f"guarantee   {certificate.guarantee}, level {certificate.level}",
            f"bound       {certificate.bound:.3e} of {_YARDSTICK[certificate.guarantee]}"
            f"{', which says nothing: VACUOUS' if certificate.vacuous else ''}",
            f"time        {self.seconds:.1f} s",
            "",
            table(
                [
                    [r.name, f"{r.states_kept} of {r.states_full}", f"{r.relative_error:.2e}"]
                    for r in certificate.layers
                ],
                ["layer", "states", "relative h2 error"],
            ),
        ]
        if self.states[0] == self.states[1]:
            asked = f" within {certificate.tol:.1e}" if certificate.tol is not None else ""
            lines += ["", f"Nothing can be removed{asked} under this guarantee."]
        if self.alternatives:
            rows = [
                [a.guarantee, f"{a.tol:.1e}", f"{100 * a.removed:.1f} %"] for a in self.alternatives
            ]
            lines += ["", "What would allow how much:"]
            lines += [table(rows, ["guarantee", "relative error", "states removed"])]
        return "\n".join(lines)

    __str__ = summary

    @cached_property
    def _predictor(self) -> BoundedPredictor:
        return BoundedPredictor(self.original, self.model)

    def predict(self, inputs: Any, *, progress: bool = False) -> Predictions:
        """Predict with the reduced network and bound the error of every single answer.

        ``||f(x) - f^(x)||_2 <= error_bound`` for each input x, from what the reduced network
        computes on it; the original does not run.

        Parameters
        ----------
        inputs : torch.Tensor, numpy.ndarray or DataLoader
            (n, T, ...), in the model's type; any length.
        progress : bool
            Show a bar on standard error.

        Returns
        -------
        Predictions
            ``prediction, error_bound = result.predict(x)``; ``guaranteed`` tells where the
            original decides for the same class, ``cost`` what the bounds cost.

        Raises
        ------
        DataError
            If the network does not run on the inputs.
        UnsupportedOperationError
            If an operation has no rule, or is a user's own.

        Notes
        -----
        Certificate level FLOAT, about the stored weights in exact arithmetic, whatever the
        certificate's guarantee is. Usually vacuous for gated networks: docs/certificates.md has
        figures. Theory: ``theory/observed-bound.md``.

        Examples
        --------
        >>> import torch, ssmred
        >>> from ssmred.networks.deep import DeepSSM
        >>> model = DeepSSM(1, 3, channels=2, states=8, layers=1, mixing="linear").eval()
        >>> result = ssmred.reduce(model, states=0.75, horizon=20, progress=False)
        >>> x = torch.ones(2, 20, 1)
        >>> prediction, error_bound = result.predict(x)
        >>> bool(((model(x) - prediction).norm(dim=-1) <= error_bound + 1e-5).all())
        True
        """
        return self._predictor.predict(inputs, progress=progress)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the error curve, the states kept per layer and the error budget.

        Parameters
        ----------
        path : path-like, optional
            Also save the picture there.
        """
        return plot_reduction(self, path)

    def report(
        self,
        path: str | Path,
        *,
        data: Any = None,
        latency: Any = None,
        title: str = "",
        progress: bool = False,
    ) -> Path:
        """Write the safety report: one page, for a reviewer, that loads nothing from anywhere.

        What was removed where, what is promised and what is not, in plain words, with the
        assumptions, how to check it and how to make it again. It prints well.

        Parameters
        ----------
        path : path-like
            A ``.html`` file. The write is atomic.
        data : array, optional
            What the certificate rests on, as for `ssmred.verify`; without it the page says that
            this part was not recomputed.
        latency : LatencyReport or dict, optional
            What `ssmred.deploy.latency` measured, or its ``to_dict()``.
        title : str
            Name of the network on the page; its class by default.
        progress : bool
            Show progress bars on standard error.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        CertificateError
            If the certificate does not describe the two networks: it is recomputed first.
        RequestError
            If the file does not end in ``.html``.
        DataError
            If `latency` holds no measurements.
        """
        from ssmred.pipeline.safety import safety_page

        target = checked_path(path)
        page = safety_page(self, data=data, latency=latency, title=title, progress=progress)
        return save_page(page, target)

    def save(self, folder: str | Path) -> Path:
        """Write both networks, the certificate and the figures of the reduction to a folder.

        The folder is written beside its place and moved there at the end, so an interruption
        leaves what was there before.

        Parameters
        ----------
        folder : path-like
            Replaced if it holds an earlier result; refused if it holds anything else.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        CheckpointError
            If the folder exists and is not an earlier result.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "result.json").exists():
            raise CheckpointError(
                f"save: {folder} is not empty and holds no earlier result. Choose another folder."
            )
        with new_folder(folder) as beside:
            save_network(self.model, beside)
            save_network(self.original, beside / "original")
            self.certificate.save(beside / "certificate.json")
            (beside / "result.json").write_text(json.dumps(self._record(), indent=1))
        return folder

    def _record(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "states": list(self.states),
            "parameters": list(self.parameters),
            "path": {
                "states": self.path.states.tolist(),
                "error": self.path.error.tolist(),
            },
            "alternatives": [asdict(a) for a in self.alternatives],
            "seconds": self.seconds,
            "method": self.method,
            "request": self.request,
            "machine": self.machine,
        }


def load(folder: str | Path, *, model: nn.Module | None = None) -> ReductionResult:
    """Read a result that `ReductionResult.save` wrote.

    Parameters
    ----------
    folder : path-like
        The folder.
    model : nn.Module, optional
        The original network; needed only where its operations could not be declared in the folder.

    Returns
    -------
    ReductionResult

    Raises
    ------
    CheckpointError, CertificateError
        If a file is missing, foreign, newer, truncated or does not fit the others.
    """
    folder = Path(folder)
    record = _read_record(folder)
    return ReductionResult(
        model=load_network(folder, model=model).eval(),
        original=load_network(folder / "original", model=model).eval(),
        certificate=Certificate.load(folder / "certificate.json"),
        **record,
    )


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "result.json").read_text())
        if record["schema"] != SCHEMA:
            raise CheckpointError(
                f"load: {folder} has result schema {record['schema']!r}, this version reads "
                f"{SCHEMA}. Update ssmred."
            )
        curve = record["path"]
        return {
            "states": _pair(record["states"]),
            "parameters": _pair(record["parameters"]),
            "path": RemovalCurve(np.asarray(curve["states"]), np.asarray(curve["error"])),
            "alternatives": tuple(Alternative(**row) for row in record["alternatives"]),
            "seconds": float(record["seconds"]),
            # what older ones do not say
            "method": check_method(record.get("method", SUBSET)),
            "request": record.get("request"),
            "machine": str(record.get("machine", "")),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"load: {folder} holds no readable result.json ({error!r}). "
            "Pass a folder written by ReductionResult.save."
        ) from error


def _pair(values: Any) -> tuple[int, int]:
    kept, full = values
    return int(kept), int(full)
