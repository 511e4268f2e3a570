"""Progressive pruning end to end, on small networks and noise that has a class."""

from __future__ import annotations

import json

import pytest
import torch

from ssmred.errors import RequestError
from ssmred.networks.deep import DeepSSM
from ssmred.prune import S4OP, Family, Sample, Task, Training, progressive

STEPS, CHANNELS, LAYERS = 24, 6, 2


def noise(count: int, seed: int) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    inputs = torch.randn(count, STEPS, 1, generator=generator) + labels.reshape(-1, 1, 1)
    return Sample(inputs, labels)


def small_task(opened: list[int] | None = None) -> Task:
    def test() -> Sample:
        if opened is not None:
            opened.append(1)
        return noise(30, 2)

    return Task("noise", noise(60, 0), noise(160, 1), 2, test, split={"seed": 0})


def small_network(family: str = "s4d") -> DeepSSM:
    torch.manual_seed(0)
    options = {"length": STEPS} if family == "s4" else {}
    return DeepSSM(
        1, 2, layer=family, channels=CHANNELS, states=8, layers=LAYERS, layer_options=options
    ).eval()


def pruned(tmp_path, family="s4d", **options) -> Family:
    defaults = {
        "rates": (0.3, 0.6),
        "training": Training(epochs=1, batch=20, rate=1e-3),
        "calibration": 20,
        "repeats": 1,
        "progress": False,
        "folder": tmp_path / "run",
    }
    return progressive(small_network(family), small_task(), **(defaults | options))


@pytest.mark.parametrize("family", ["s4d", "s4"])
@pytest.mark.parametrize("method", ["ours", "s4op"])
def test_a_family_has_one_network_per_rate_and_nothing_comes_back(tmp_path, family, method):
    options = S4OP | {"seeds": (0, 1)} if method == "s4op" else {}
    found = pruned(tmp_path, family, **options)
    total = CHANNELS * LAYERS
    assert [m.removed for m in found.members] == [round(0.3 * total), round(0.6 * total)]
    kept = found.parent.kept
    for member in found.members:
        assert all(set(member.kept[name]) <= set(kept[name]) for name in kept)
        kept = member.kept
        assert member.scores["test_after"] is not None
        assert len(member.scores["candidates"]) == (2 if method == "s4op" else 1)
        network = found.model(member.rate)
        assert network(torch.zeros(1, STEPS, 1)).shape == (1, 2)
        assert sum(p.numel() for p in network.parameters()) == member.parameters
    assert found.members[1].parameters < found.members[0].parameters < found.parent.parameters


def test_s4op_drops_to_the_identity(tmp_path):
    found = pruned(tmp_path, **(S4OP | {"seeds": (3,), "training": Training(epochs=0)}))
    network = found.model(found.members[0].rate)
    for name, live in found.members[0].kept.items():
        D = network.get_submodule(f"{name}.core").D
        gone = [channel for channel in range(CHANNELS) if channel not in live]
        assert gone == [] or D[gone].tolist() == [1.0] * len(gone)


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "h2"},
        {"selection": "gradient"},
        {"selection": "random", "replacement": "zero"},
        {"replacement": "low_order", "order": 2},
        {"allocation": "uniform", "repair": False},
        {"allocation": "latency"},
        {"targets": {"bytes": (0.9, 0.8)}},
    ],
    ids=str,
)
def test_every_way_of_pruning_makes_a_family(tmp_path, options):
    found = pruned(tmp_path, training=Training(epochs=0), **options)
    assert len(found.members) == 2
    if "targets" in options:
        for member, share in zip(found.members, (0.9, 0.8), strict=True):
            assert member.bytes <= share * found.parent.bytes


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    from ssmred.prune import candidate

    whole = pruned(tmp_path / "a")
    real, calls = candidate.train, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(candidate, "train", once)
    with pytest.raises(KeyboardInterrupt):
        pruned(tmp_path / "b")
    monkeypatch.setattr(candidate, "train", real)
    resumed = pruned(tmp_path / "b")
    first = [m.scores["val_after"] for m in whole.members]
    assert [m.scores["val_after"] for m in resumed.members] == first
    assert [m.kept for m in resumed.members] == [m.kept for m in whole.members]


def test_the_test_part_is_opened_once_and_last(tmp_path):
    opened: list[int] = []
    task = small_task(opened)
    options = {"rates": (0.3,), "training": Training(epochs=0), "repeats": 1, "progress": False}
    progressive(small_network(), task, folder=tmp_path / "run", **options)
    assert opened == [1]
    with pytest.raises(RequestError, match="opened before"):
        task.open_test()
    progressive(small_network(), small_task(opened), folder=tmp_path / "run", **options)
    assert opened == [1], "a finished run is read, not tested again"


def test_another_run_in_the_folder_is_refused(tmp_path):
    pruned(tmp_path, training=Training(epochs=0), rates=(0.3,))
    with pytest.raises(RequestError, match="holds another run"):
        pruned(tmp_path, training=Training(epochs=0), rates=(0.4,))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="not empty"):
        pruned(tmp_path, folder=tmp_path / "foreign")


@pytest.mark.parametrize(
    "options",
    [
        {"rates": (0.5, 0.3)},
        {"rates": (0.0,)},
        {"rates": (1.0,)},
        {"rates": ()},
        {"seeds": ()},
        {"seeds": (1, 1)},
        {"targets": {"latency": (0.5, 0.8)}},
        {"targets": {"watts": (0.5,)}},
        {"targets": {"bytes": (0.01,)}},
        {"replacement": "low_order", "order": 3},
        {"rates": (0.95,), "allocation": "exponential"},
    ],
    ids=str,
)
def test_wrong_options_are_refused(tmp_path, options):
    with pytest.raises((RequestError, ValueError)):
        pruned(tmp_path, training=Training(epochs=0), **options)


def test_what_is_certified_holds_on_the_inputs_it_was_measured_on(tmp_path):
    found = pruned(tmp_path, training=Training(epochs=0))
    for member in found.members:
        assert member.error["guarantee"] == "statistical"
        assert member.error["bound"] <= member.error["largest"]  # an order statistic
        assert json.dumps(member.error)
