import copy
import json
import os

import pytest
import torch
from foreign_layers import (
    DiagonalMixer,
    ExampleNetwork,
    PooledNetwork,
    Positional,
    TokenNetwork,
    settle,
)
from safetensors.torch import load_file, save_file
from torch import nn

from ssmred.errors import CheckpointError
from ssmred.networks import (
    find_layers,
    import_network,
    load_network,
    load_weights_into,
    save_network,
    storage,
    weights_sha256,
)
from ssmred.networks.deep import DeepSSM

NETWORKS = {
    "example": (lambda: ExampleNetwork(), (2, 21, 3)),
    "pre-norm, ungated, buffers": (
        lambda: ExampleNetwork(prenorm=True, gated=False, frozen=("log_dt",)),
        (2, 21, 3),
    ),
    "own": (lambda: DeepSSM(3, 5, channels=6, states=8, layers=2, dropout=0.1), (2, 21, 3)),
    "pooled": (PooledNetwork, (2, 21)),
    "positional": (lambda: Positional(21), (2, 21, 2)),
    "tokens": (TokenNetwork, None),
}


def inputs_for(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    if shape is None:
        return torch.randint(0, 11, (2, 21), generator=generator)
    return torch.randn(shape, generator=generator, dtype=dtype)


def reduced_of(model, keep=3):
    imported = import_network(model)
    return imported.with_systems(
        {
            name: (
                system,
                [min(h % (keep + 1), system.poles.shape[1]) for h in range(len(system.poles))],
            )
            for name, system in imported.systems.items()
        }
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["original", "reduced"])
@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip_without_the_users_class(name, kind, dtype, tmp_path):
    build, shape = NETWORKS[name]
    model = settle(build(), dtype)
    stored = model if kind == "original" else reduced_of(model)
    x = inputs_for(shape, dtype)
    folder = save_network(stored, tmp_path / "deep" / "folder")
    loaded = load_network(folder)
    with torch.no_grad():
        assert torch.equal(loaded(x), stored(x))
    assert isinstance(loaded, torch.fx.GraphModule)
    assert not loaded.training
    assert set(loaded.state_dict()) == set(stored.state_dict())
    assert weights_sha256(loaded) == weights_sha256(stored)
    parameters = {name for name, _ in stored.named_parameters(remove_duplicate=False)}
    assert parameters <= {name for name, _ in loaded.named_parameters()}
    assert [f.name for f in find_layers(loaded)] == [f.name for f in find_layers(stored)]
    assert sorted(path.name for path in folder.iterdir()) == [
        "network.json",
        "weights.safetensors",
    ]
    into_class = load_network(folder, model=model)
    with torch.no_grad():
        assert torch.equal(into_class(x), stored(x))
    assert type(into_class) is type(model)


def test_a_loaded_network_is_a_network_like_any_other(tmp_path):
    model = settle(ExampleNetwork(), torch.float64)
    save_network(model, tmp_path)
    loaded = load_network(tmp_path)
    reduced = reduced_of(loaded)
    x = inputs_for((2, 21, 3), torch.float64)
    with torch.no_grad():
        assert torch.equal(reduced(x), reduced_of(model)(x))
    save_network(reduced, tmp_path)  # over the old one
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path)(x), reduced(x))


class Loop(nn.Module):
    """Cannot be traced: the number of rounds depends on a value."""

    def __init__(self):
        super().__init__()
        self.layer = DiagonalMixer(3, 4, transposed=False)

    def forward(self, x):
        for _ in range(int(x.abs().max() > 0) + 1):
            x = self.layer(x)[0]
        return x


def test_networks_that_cannot_be_declared_keep_their_weights(tmp_path):
    model = settle(Loop())
    reduced = reduced_of(model, keep=1)
    x = inputs_for((2, 21, 3))
    for stored in (model, reduced):
        save_network(stored, tmp_path)
        with pytest.raises(CheckpointError, match="model="):
            load_network(tmp_path)
        loaded = load_weights_into(model, tmp_path)
        with torch.no_grad():
            assert torch.equal(loaded(x), stored(x))
        assert weights_sha256(loaded) == weights_sha256(stored)
    assert not isinstance(model.layer, type(reduced.layer))


def test_weights_of_another_network_are_refused_by_key(tmp_path):
    save_network(reduced_of(settle(ExampleNetwork())), tmp_path)
    with pytest.raises(CheckpointError, match=r"decoder\.weight is torch.float32"):
        load_weights_into(settle(ExampleNetwork(classes=4)), tmp_path)
    with pytest.raises(CheckpointError, match=r"missing blocks\.2"):
        load_weights_into(settle(ExampleNetwork(depth=3)), tmp_path)
    with pytest.raises(CheckpointError, match=r"is torch\.float32"):
        load_weights_into(settle(ExampleNetwork(), torch.float64), tmp_path)


def test_unused_modules_and_tied_weights_survive(tmp_path):
    class Tied(ExampleNetwork):
        def __init__(self):
            super().__init__(features=5, classes=8)
            self.spare = nn.Linear(2, 2)
            self.register_buffer("counter", torch.tensor(3))
            self.decoder.weight = nn.Parameter(torch.randn(8, 8))
            self.twin = nn.Linear(8, 8)
            self.twin.weight = self.decoder.weight

        def forward(self, x):
            return self.twin(super().forward(x))

    model = settle(Tied())
    save_network(model, tmp_path)
    loaded = load_network(tmp_path)
    assert weights_sha256(loaded) == weights_sha256(model)
    assert int(loaded.counter) == 3
    with torch.no_grad():
        x = inputs_for((2, 21, 5))
        assert torch.equal(loaded(x), model(x))


def test_constants_made_in_forward_survive(tmp_path):
    class Constant(ExampleNetwork):
        def __init__(self):
            super().__init__()
            self.register_buffer("offset", torch.tensor([1.0, 2.0, 3.0]), persistent=False)

        def forward(self, x):
            return super().forward(x * torch.tensor([1.0, -1.0, 0.5]) + self.offset)

    model = settle(Constant())
    save_network(model, tmp_path)
    loaded = load_network(tmp_path)
    with torch.no_grad():
        x = inputs_for((2, 21, 3))
        assert torch.equal(loaded(x), model(x))
    assert weights_sha256(loaded) == weights_sha256(model)


# Damage ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return save_network(settle(ExampleNetwork()), tmp_path / "network")


def edit(folder, change):
    record = json.loads((folder / "network.json").read_text())
    change(record)
    (folder / "network.json").write_text(json.dumps(record))


def test_missing_and_truncated_files(folder):
    for name in ("network.json", "weights.safetensors"):
        data = (folder / name).read_bytes()
        for damaged in (data[: len(data) // 2], b"", b"\0" * 40):
            (folder / name).write_bytes(damaged)
            with pytest.raises(CheckpointError):
                load_network(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match="save_network"):
            load_network(folder)
        (folder / name).write_bytes(data)
    load_network(folder)


def test_foreign_and_newer_descriptions(folder):
    edit(folder, lambda r: r.update(schema=99))
    with pytest.raises(CheckpointError, match="schema"):
        load_network(folder)
    edit(folder, lambda r: r.update(format="something"))
    with pytest.raises(CheckpointError, match="no stored network"):
        load_network(folder)


@pytest.mark.parametrize(
    "target", ["builtins.eval", "os.system", "operator.methodcaller", "torch.load", "functional.x"]
)
def test_nothing_outside_the_tables_is_called(folder, target):
    def change(record):
        node = next(n for n in record["declared"]["nodes"] if n["op"] == "call_function")
        node["target"] = target

    edit(folder, change)
    with pytest.raises(CheckpointError, match="not allowed"):
        load_network(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["declared"]["nodes"][2].update(op="call_method", target="__reduce__"),
        lambda r: r["declared"]["nodes"][2].update(op="call_method", target="numpy"),
        lambda r: r["declared"]["nodes"].pop(1),
        lambda r: r["declared"]["nodes"][1].update(op="exec"),
        lambda r: r["declared"]["nodes"][-1].update(args={"import": "os"}),
        lambda r: r["declared"]["modules"]["encoder"].update(kind="RNN"),
        lambda r: r["declared"]["modules"]["encoder"]["settings"]["dict"].pop("bias"),
        lambda r: r["declared"]["modules"]["encoder"]["settings"]["dict"].update(out_features=9),
        lambda r: r["declared"]["modules"].pop("encoder"),
        lambda r: r.update(declared={"nodes": 3}),
    ],
)
def test_damaged_declarations_are_refused(folder, change):
    edit(folder, change)
    with pytest.raises(CheckpointError):
        load_network(folder)


def test_getattr_reaches_listed_attributes_only(folder):
    def change(record):
        node = next(n for n in record["declared"]["nodes"] if n["op"] == "call_function")
        node["target"] = "getattr"
        node["args"] = {"tuple": [node["args"]["tuple"][0], "__class__"]}

    edit(folder, change)
    with pytest.raises(CheckpointError, match="not allowed"):
        load_network(folder)


def test_exchanged_weights_are_noticed(folder):
    tensors = load_file(folder / "weights.safetensors")
    tensors["decoder.bias"] += 1.0
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(CheckpointError, match="not the file"):
        load_network(folder)


def test_an_interrupted_save_leaves_the_old_network(folder, monkeypatch):
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = settle(ExampleNetwork(width=4))

    def fail(*_args):
        raise KeyboardInterrupt

    for function in ("save_file",):
        monkeypatch.setattr(storage, function, fail)
        with pytest.raises(KeyboardInterrupt):
            save_network(model, folder)
        monkeypatch.undo()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_network(model, folder)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old


def test_broken_weights_are_not_saved(tmp_path):
    model = settle(ExampleNetwork())
    with torch.no_grad():
        model.encoder.bias[0] = float("inf")
    with pytest.raises(CheckpointError, match=r"encoder\.bias"):
        save_network(model, tmp_path)


# Hash -----------------------------------------------------------------------------------------


def test_hash_sees_every_change():
    model = settle(ExampleNetwork())
    first = weights_sha256(model)
    assert len(first) == 64
    assert weights_sha256(copy.deepcopy(model)) == first
    assert weights_sha256(copy.deepcopy(model).double()) != first
    changed = copy.deepcopy(model)
    with torch.no_grad():
        bits = changed.decoder.bias.view(torch.int32)
        bits[0] ^= 1
    assert weights_sha256(changed) != first
    swapped = copy.deepcopy(model)
    swapped.blocks[0], swapped.blocks[1] = swapped.blocks[1], swapped.blocks[0]
    with torch.no_grad():
        swapped.blocks[0].D.add_(1.0)
    assert weights_sha256(swapped) != first
    reshaped, flat = nn.Module(), nn.Module()
    reshaped.register_buffer("a", torch.zeros(2, 3))
    flat.register_buffer("a", torch.zeros(6))
    assert weights_sha256(reshaped) != weights_sha256(flat)
    half = nn.Module()
    half.register_buffer("a", torch.ones(3, dtype=torch.bfloat16))
    assert len(weights_sha256(half)) == 64
