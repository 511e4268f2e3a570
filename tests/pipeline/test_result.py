"""Saving, loading and drawing of results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import HORIZON, WithoutRule, classifier, sequences

import ssmred
from ssmred.errors import CertificateError, CheckpointError
from ssmred.pipeline import ReductionResult


@pytest.fixture(scope="module")
def result() -> ReductionResult:
    return ssmred.reduce(classifier(), states=0.4, data=sequences(200), progress=False)


def test_folder_round_trip(result: ReductionResult, tmp_path: Path) -> None:
    again = ssmred.load(result.save(tmp_path / "reduced"))
    x = sequences(5, seed=3)
    with torch.no_grad():
        assert torch.equal(again.model(x), result.model(x))
        assert torch.equal(again.original(x), result.original(x))
    assert again.certificate == result.certificate
    assert again.states == result.states
    assert again.alternatives == result.alternatives
    assert ssmred.verify(again.certificate, again.original, again.model).passed


def test_network_that_cannot_be_declared_needs_its_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = WithoutRule().eval()
    reduced = ssmred.reduce(model, states=0.4, data=sequences(200), progress=False)
    folder = reduced.save(tmp_path / "reduced")
    with pytest.raises(CheckpointError, match="model"):
        ssmred.load(folder)
    again = ssmred.load(folder, model=model)
    x = sequences(5, seed=3)
    with torch.no_grad():
        assert torch.equal(again.model(x), reduced.model(x))


def test_interrupted_save_leaves_the_old_folder(
    result: ReductionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result.save(tmp_path / "reduced")
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(result.certificate), "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result.save(folder)
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["reduced"]


def test_interruption_between_the_two_moves_restores_the_old_folder(
    result: ReductionResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result.save(tmp_path / "reduced")
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if Path(target) == folder and not self.name.endswith("-old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result.save(folder)
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["reduced"]


def test_foreign_folder_is_left_alone(result: ReductionResult, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="not empty"):
        result.save(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1}'])
def test_foreign_or_truncated_result_is_refused(
    result: ReductionResult, tmp_path: Path, text: str
) -> None:
    folder = result.save(tmp_path / "reduced")
    (folder / "result.json").write_text(text)
    with pytest.raises(CheckpointError, match="load"):
        ssmred.load(folder)


def test_tampered_certificate_is_refused(result: ReductionResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "reduced")
    path = folder / "certificate.json"
    record = json.loads(path.read_text())
    record["layers"][0]["states_kept"] += 2
    path.write_text(json.dumps(record))
    with pytest.raises(CertificateError, match="content_sha256"):
        ssmred.load(folder)
    first, *others = result.certificate.layers  # written as certificates are: the seal is in order
    forged = replace(first, states_kept=first.states_kept + 2)
    replace(result.certificate, layers=(forged, *others)).save(path)
    again = ssmred.load(folder)
    with pytest.raises(CertificateError, match="states_kept"):
        ssmred.verify(again.certificate, again.original, again.model)


def test_summary_and_picture(result: ReductionResult, tmp_path: Path) -> None:
    text = result.summary()
    assert f"{result.states[0]:,} of {result.states[1]:,}" in text
    figure = result.plot(tmp_path / "picture.png")
    assert len(figure.axes) >= 3
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_shares_do_not_follow_gains_that_prove_nothing() -> None:
    model = classifier(layers=3)
    worst = ssmred.reduce(model, states=0.3, horizon=HORIZON, progress=False)
    layer = ssmred.reduce(model, states=0.3, horizon=HORIZON, guarantee="layer", progress=False)
    assert worst.certificate.vacuous
    assert worst.certificate.reduced_sha256 == layer.certificate.reduced_sha256


def test_worst_case_result_survives_the_folder(tmp_path: Path) -> None:
    made = ssmred.reduce(classifier(), states=0.5, horizon=HORIZON, progress=False)
    again = ssmred.load(made.save(tmp_path / "worst"))
    assert again.certificate == made.certificate
    assert ssmred.verify(again.certificate, again.original, again.model).passed
