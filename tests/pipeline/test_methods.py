"""`ssmred.reduce(method=...)`: every method end to end, under each guarantee."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import HORIZON, classifier, sequences

import ssmred
from ssmred.errors import CertificateError, CheckpointError, RequestError, UnstableSystemError
from ssmred.networks import ReducedSSM, import_network
from ssmred.pipeline.methods import LAYER_METHODS

MOVING = LAYER_METHODS[1:]
MOVE_POLES = [method for method in MOVING if method not in ("modal", "alternating", "random")]
GUARANTEES = {
    "worst-case": {"horizon": HORIZON, "guarantee": "worst-case"},
    "worst-case, any length": {"guarantee": "worst-case"},
    "layer": {"horizon": HORIZON, "guarantee": "layer"},
    "layer, any length": {"guarantee": "layer"},
    "statistical": {"data": sequences(200)},
    "statistical, data-free": {"data": sequences(200), "metric": "h2"},
}

ROUNDING = 1e-12
"""Relative; what two ways to sum 48 squares differ by, with room."""


def response_gap(model: torch.nn.Module, reduced: torch.nn.Module) -> list[tuple[float, float]]:
    """Return error and norm of every layer's first HORIZON impulse-response samples."""
    pairs = zip(import_network(model).layers, import_network(reduced).layers, strict=True)
    rows = []
    for before, after in pairs:
        h = before.system.impulse_response(HORIZON)
        gap = h - after.system.impulse_response(HORIZON)
        rows.append((float(np.linalg.norm(gap)), float(np.linalg.norm(h))))
    return rows


@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("wish", GUARANTEES.values(), ids=GUARANTEES)
def test_every_method_makes_a_certificate_that_verifies(
    method: str, wish: dict, tmp_path: Path
) -> None:
    model = classifier(gated=False)
    result = ssmred.reduce(model, states=0.5, method=method, progress=False, **wish)
    kept, full = result.states
    assert 0 < kept <= 0.5 * full
    assert sum(m.states for m in result.model.modules() if isinstance(m, ReducedSSM)) == kept
    assert result.certificate.states == (kept, full)
    assert result.method == method
    assert (f"method {method}" in result.certificate.metric) == (method in MOVING)
    assert f"method      {method}" in result.summary()
    report = ssmred.verify(result.certificate, model, result.model, data=wish.get("data"))
    assert report.passed
    again = ssmred.load(result.save(tmp_path / "reduced"))
    assert again.method == method
    assert again.certificate == result.certificate
    assert ssmred.verify(again.certificate, again.original, again.model).passed
    x = sequences(5, seed=3)
    with torch.no_grad():
        assert torch.equal(again.model(x), result.model(x))


@pytest.mark.theorem("network-bound")
@pytest.mark.parametrize("method", MOVING)
def test_no_input_exceeds_the_worst_case_bound(method: str) -> None:
    """Zero slack, random inputs and gradient ascent from the worst of them."""
    model = copy.deepcopy(classifier(gated=False)).double()
    wish = {"states": 0.4, "horizon": HORIZON, "guarantee": "worst-case", "method": method}
    result = ssmred.reduce(model, progress=False, **wish)
    bound = result.certificate.bound * result.certificate.scale
    rng = np.random.default_rng(0)
    x = torch.from_numpy(ssmred.InputSet.box(-1, 1).sample(rng, 100, HORIZON, 2))
    x = torch.cat([x, torch.ones(1, HORIZON, 2, dtype=x.dtype), x.sign()])

    def errors(x: torch.Tensor) -> torch.Tensor:
        return (model(x) - result.model(x)).norm(dim=-1)

    with torch.no_grad():
        start = errors(x)
    worst = x[start.argsort(descending=True)[:8]]
    for _ in range(20):  # sign steps end in the corners of the box
        worst = worst.detach().requires_grad_()
        (slope,) = torch.autograd.grad(errors(worst).sum(), worst)
        worst = (worst + 0.2 * slope.sign()).clamp(-1, 1)
    with torch.no_grad():
        found = errors(worst)
    assert float(found.max()) > float(start.max()) > 0
    assert bool((found <= bound).all())
    assert bool((start <= bound).all())


@pytest.mark.theorem("layer-guarantee")
@pytest.mark.parametrize("method", MOVING)
@pytest.mark.parametrize("tol", [1e-2, 0.3])
def test_layer_tolerance_holds_by_direct_summation(method: str, tol: float) -> None:
    model = classifier()
    wish = {"horizon": HORIZON, "guarantee": "layer", "method": method}
    result = ssmred.reduce(model, tol=tol, progress=False, **wish)
    assert result.removed > 0
    for (gap, size), record in zip(
        response_gap(model, result.model), result.certificate.layers, strict=True
    ):
        assert gap <= tol * size
        assert record.error == pytest.approx(gap, rel=ROUNDING, abs=ROUNDING * size)


@pytest.mark.parametrize("method", MOVE_POLES)
def test_poles_move_and_stay_stable(method: str) -> None:
    model = classifier()
    result = ssmred.reduce(
        model, states=0.4, horizon=HORIZON, guarantee="layer", method=method, progress=False
    )
    pairs = zip(import_network(model).layers, import_network(result.model).layers, strict=True)
    for before, after in pairs:
        used = after.system.C[:, 0, :] != 0
        assert np.all(np.abs(after.system.poles) < 1)
        gaps = np.abs(after.system.poles[:, :, None] - before.system.poles[:, None, :])
        assert float(gaps.min(axis=-1)[used].max()) > 1e-6


def kept_modes(model: torch.nn.Module, reduced: torch.nn.Module) -> list[list[frozenset[int]]]:
    """Return where the kept poles are among the original's, for every channel of every layer."""
    pairs = zip(import_network(model).layers, import_network(reduced).layers, strict=True)
    found = []
    for before, after in pairs:
        at = after.system
        channels = zip(before.system.poles, at.poles, np.any(at.C != 0, axis=-2), strict=True)
        found.append(
            [
                frozenset(int(np.flatnonzero(full == pole)[0]) for pole in poles[used])
                for full, poles, used in channels
            ]
        )
    return found


@pytest.mark.parametrize(
    "wish",
    [
        {"horizon": HORIZON, "guarantee": "layer"},
        {"data": sequences(40), "guarantee": "layer"},
        {"data": sequences(40), "guarantee": "layer", "division": "measured"},
    ],
    ids=["data-free", "calibrated", "measured"],
)
def test_chance_keeps_poles_by_the_seed_and_by_the_layer(wish: dict) -> None:
    """In a network whose two layers are the same, and so would keep the same by their norms."""
    model = classifier(gated=False)
    model.layers[1].load_state_dict(model.layers[0].state_dict())
    full = import_network(model).layers[0].system.order

    def reduced(seed: int) -> list[list[frozenset[int]]]:
        result = ssmred.reduce(
            model, states=0.5, method="random", seed=seed, progress=False, **wish
        )
        kept = kept_modes(model, result.model)
        assert 2 * sum(len(modes) for layer in kept for modes in layer) == result.states[0]
        return kept

    one, again, other = reduced(1), reduced(1), reduced(2)
    assert one == again
    assert one != other
    pairs = [(a, b) for a, b in zip(*one, strict=True) if 0 < len(a) < full and 0 < len(b) < full]
    assert any(not (a <= b or b <= a) for a, b in pairs)  # no order of removals makes both


@pytest.mark.theorem("optimal-readout")
@pytest.mark.parametrize("method", MOVING)
def test_the_read_out_is_the_best_one_for_its_poles(method: str) -> None:
    """No least-squares fit of the modes' responses, made from their samples, is closer."""
    model = classifier()
    result = ssmred.reduce(
        model, states=0.3, horizon=HORIZON, guarantee="layer", method=method, progress=False
    )
    pairs = zip(import_network(model).layers, import_network(result.model).layers, strict=True)
    for before, after in pairs:
        h = before.system.impulse_response(HORIZON).reshape(-1, HORIZON)
        g = after.system.impulse_response(HORIZON).reshape(-1, HORIZON)
        for poles, C, wanted, made in zip(
            after.system.poles, after.system.C[:, 0], h, g, strict=True
        ):
            powers = poles[C != 0][:, None] ** np.arange(HORIZON)
            basis = np.concatenate([np.eye(1, HORIZON), powers.real, powers.imag]).T
            best = wanted - basis @ np.linalg.lstsq(basis, wanted, rcond=None)[0]
            size = np.linalg.norm(wanted)
            assert np.linalg.norm(wanted - made) <= np.linalg.norm(best) + 1e-10 * size


def test_balanced_states_reach_further_than_dominant_modes() -> None:
    model = classifier()
    bounds = {
        method: ssmred.reduce(
            model, states=0.3, horizon=HORIZON, guarantee="layer", method=method, progress=False
        ).certificate.bound
        for method in ("balanced", "modal")
    }
    assert bounds["balanced"] < bounds["modal"]


@pytest.mark.parametrize("method", MOVING)
def test_keeping_everything_keeps_every_pole(method: str) -> None:
    model = classifier()
    for wish in ({"horizon": HORIZON, "guarantee": "layer"}, {"data": sequences(200)}):
        result = ssmred.reduce(model, states=1.0, method=method, progress=False, **wish)
        assert result.states[0] == result.states[1]
        for gap, size in response_gap(model, result.model):
            assert gap <= ROUNDING * size


@pytest.mark.parametrize("method", MOVING)
def test_a_statistical_tolerance_is_met(method: str) -> None:
    model, data = classifier(), sequences(300)
    result = ssmred.reduce(model, tol=0.3, data=data, method=method, progress=False)
    assert result.certificate.bound == 0.3
    assert result.removed > 0
    assert ssmred.verify(result.certificate, model, result.model, data=data).passed


@pytest.mark.parametrize("method", MOVING)
def test_moved_weights_changed_after_certification_are_refused(method: str, tmp_path: Path) -> None:
    model = classifier()
    result = ssmred.reduce(
        model, states=0.4, horizon=HORIZON, guarantee="layer", method=method, progress=False
    )
    folder = result.save(tmp_path / "reduced")
    again = ssmred.load(folder)
    with torch.no_grad():
        layer = next(m for m in again.model.modules() if isinstance(m, ReducedSSM))
        layer.poles[0, 0] += 1e-9
    with pytest.raises(CertificateError, match="reduced weights"):
        ssmred.verify(again.certificate, again.original, again.model)
    forged = dataclasses.replace(result.certificate, bound=0.9 * result.certificate.bound)
    with pytest.raises(CertificateError, match="bound"):
        ssmred.verify(forged, model, result.model)


@pytest.mark.parametrize("method", MOVING)
def test_a_moved_layer_streams_as_it_filters(method: str) -> None:
    model = classifier()
    result = ssmred.reduce(
        model, states=0.4, horizon=HORIZON, guarantee="layer", method=method, progress=False
    )
    layer = next(m for m in result.model.modules() if isinstance(m, ReducedSSM))
    u = torch.from_numpy(np.random.default_rng(0).standard_normal((2, layer.channels, HORIZON)))
    state, steps = layer.initial_state(2), []
    with torch.no_grad():
        for t in range(HORIZON):
            y, state = layer.step(u[..., t], state)
            steps.append(y)
        whole = layer(u)
    assert float((torch.stack(steps, -1) - whole).abs().max()) <= 1e-10 * float(whole.abs().max())


@pytest.mark.parametrize("method", ["balanced", "hankel"])
def test_long_inputs_calibrate_moved_poles_too(method: str) -> None:
    """Beyond 1,024 steps the moments are those of the states, so of the moved modes."""
    model = classifier()
    data = torch.tanh(sequences(6).repeat(1, 24, 1)[:, :1100])
    wish = {"data": data, "guarantee": "layer", "metric": "calibrated", "progress": False}
    errors = []
    for share in (0.2, 0.6):
        result = ssmred.reduce(model, states=share, method=method, **wish)
        with torch.no_grad():
            errors.append(float((model(data) - result.model(data)).square().mean()))
    assert 0 < errors[1] < 0.1 * errors[0]


def test_the_picture_names_the_method() -> None:
    result = ssmred.reduce(
        classifier(), states=0.4, horizon=HORIZON, guarantee="layer", method="modal", progress=False
    )
    assert "method modal" in result.plot().get_suptitle()


def test_unknown_methods_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match="subset, alternating, balanced"):
        ssmred.reduce(classifier(), horizon=HORIZON, method="pca", progress=False)


def test_unstable_layers_only_where_the_method_takes_them() -> None:
    layer = ReducedSSM([3], poles=[1.01, 0.5, 0.3], residues=[1.0, 1.0, 1e-3], D=[0.0])
    model = torch.nn.Sequential(layer, torch.nn.GELU()).eval()
    wish = {"guarantee": "layer", "horizon": HORIZON, "tol": 1e-2, "progress": False}
    result = ssmred.reduce(model, method="balanced", **wish)
    assert result.removed > 0
    assert result.certificate.bound <= 1e-2
    for method in ("modal", "random", "residualised", "hankel"):
        with pytest.raises(UnstableSystemError):
            ssmred.reduce(model, method=method, **wish)


def test_results_that_name_no_method_are_of_the_first_one(tmp_path: Path) -> None:
    result = ssmred.reduce(
        classifier(), states=0.4, horizon=HORIZON, guarantee="layer", progress=False
    )
    path = result.save(tmp_path / "reduced") / "result.json"
    record = json.loads(path.read_text())
    assert record.pop("method") == "subset"
    path.write_text(json.dumps(record))
    assert ssmred.load(tmp_path / "reduced").method == "subset"
    path.write_text(json.dumps(record | {"method": "pca"}))
    with pytest.raises(CheckpointError, match="pca"):
        ssmred.load(tmp_path / "reduced")
