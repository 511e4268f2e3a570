"""Training: every value is checked, JSON keeps it, and the rate follows its formula."""

import json
import math
from dataclasses import asdict

import pytest

from ssmred.errors import SsmredError
from ssmred.prune import History, Training
from ssmred.prune.recipe import rate_factor

ROUNDING = 1e-12
"""A cosine and a division in float64."""


@pytest.mark.parametrize(("steps", "warm_up", "rising"), [(40, 0.1, 4), (7, 0.5, 4), (10, 0.0, 0)])
def test_rates_follow_the_formula(steps, warm_up, rising):
    for k in range(steps):
        if k < rising:
            wanted = 0.01 + 0.99 * k / rising
        else:
            wanted = math.cos(math.pi * (k - rising) / (steps - rising) / 2) ** 2
        assert abs(rate_factor(k, steps, warm_up) - wanted) < ROUNDING


def test_a_warm_up_without_an_end_never_reaches_the_rate():
    factors = [rate_factor(k, 4, 1.0) for k in range(4)]
    assert factors == pytest.approx([0.01, 0.2575, 0.505, 0.7525], abs=ROUNDING)


def test_recipes_survive_json():
    recipe = Training(epochs=7, rate=2e-3, samples=500, clip=None, patience=None, distillation=0.5)
    assert Training(**json.loads(json.dumps(asdict(recipe)))) == recipe


def test_histories_survive_json():
    history = History((0.5, 0.25), (10.0, 60.0, 50.0), (), 1, 8, 40, 1.5, False)
    again = json.loads(json.dumps(asdict(history)))
    assert again["scores"] == [10.0, 60.0, 50.0]
    assert history.best_score == 60.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", -1),
        ("epochs", 1.5),
        ("rate", 0.0),
        ("rate", math.nan),
        ("rate", math.inf),
        ("batch", 0),
        ("weight_decay", -0.1),
        ("warm_up", 1.1),
        ("warm_up", math.nan),
        ("clip", 0.0),
        ("patience", 0),
        ("samples", 0),
        ("smoothing", -0.1),
        ("smoothing", True),
        ("distillation", "half"),
        ("temperature", 0.0),
        ("accelerator", "tpu"),
        ("devices", 0),
        ("strategy", "fsdp"),
        ("precision", "bf16-true"),
        ("judge", "jury"),
    ],
)
def test_values_that_cannot_be(option, value):
    with pytest.raises(SsmredError, match=f"Training.*{option}"):
        Training(**{option: value})


@pytest.mark.parametrize("option", ["batch", "samples"])
def test_every_process_gets_a_sequence(option):
    with pytest.raises(SsmredError, match=f"{option} is not usable; expected an integer >= 4"):
        Training(devices=4, **{option: 3})
