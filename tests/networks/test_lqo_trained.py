"""The trained networks with quadratic outputs in `benchmarks/networks` do what records say."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ssmred
from ssmred.networks import export_plain
from ssmred.networks.deep import DeepLQO
from ssmred.networks.layers import LQOLayer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from lqo_tasks import products  # noqa: E402

NETWORKS = BENCHMARKS / "networks"
NAMES = sorted(path.stem for path in NETWORKS.glob("*-lqo-*.json"))
SMALL = [name for name in NAMES if "-legs-" in name]
"""Small from the start, trained half as long; the two classes are as likely as each other."""


def trained(name):
    record = json.loads((NETWORKS / f"{name}.json").read_text(encoding="utf-8"))
    model = DeepLQO(**record["recipe"])
    model.load_state_dict(load_file(NETWORKS / f"{name}.safetensors"))
    return model.eval(), record


@torch.no_grad()
def accuracy(model, inputs, labels):
    return 100 * float((model(inputs).argmax(-1) == labels).double().mean())


@pytest.mark.parametrize("name", NAMES)
def test_records_describe_the_weights(name):
    model, record = trained(name)
    assert sum(p.numel() for p in model.parameters()) == record["parameters"]
    assert len(model.layers) == record["recipe"]["layers"]
    assert record["test_accuracy"] > (60 if name in SMALL else 75)


def test_three_seeds_each():
    for task in ("imdb", "products"):
        full = [name for name in NAMES if name.startswith(task) and name not in SMALL]
        assert full == [f"{task}-lqo-{seed}" for seed in range(3)]


@pytest.mark.parametrize("seed", range(3))
def test_most_of_a_trained_network_goes_without_retraining(seed):
    model, record = trained(f"products-lqo-{seed}")
    inputs, labels = products(400).test()
    inputs, labels = inputs[:1_000], labels[:1_000]
    before = accuracy(model, inputs, labels)
    assert before >= record["test_accuracy"] - 1.0
    data = products(400).train[0]
    result = ssmred.reduce(model, states=0.3, data=data, progress=False)
    assert result.removed >= 0.69
    assert accuracy(result.model, inputs, labels) >= before - 1.0
    assert result.certificate.bound < 1.0  # statistical, and says something
    plain = export_plain(model, result.model)
    assert all(isinstance(layer, LQOLayer) for layer in plain.layers)
    assert accuracy(plain, inputs, labels) >= before - 1.0


def test_squares_are_what_it_needs():
    """Without its squares the trained network guesses."""
    model, _ = trained("products-lqo-0")
    inputs, labels = products(400).test()
    with torch.no_grad():
        for layer in model.layers:
            layer.U_re.zero_(), layer.U_im.zero_()
    assert accuracy(model, inputs[:1_000], labels[:1_000]) < 65
