"""Every usual mistake of an adapter is injected and named; a right adapter passes."""

import numpy as np
import pytest
import torch
from foreign_layers import BilinearBank, DiagonalMixer
from own_layers import Resonators, ResonatorsAdapter, Ring, RingAdapter
from torch import nn

from ssmred.errors import CheckpointError, UnsupportedOperationError
from ssmred.networks import ReducedSSM, adapter_for, check_adapter

NAMED = {
    "imaginary": "imaginary part of A",
    "real": "real part of A",
    "negative": "A has the wrong sign",
    "B": "B is conjugated",
    "C": "C is conjugated",
    "missing 2": "factor 2 of a half spectrum is missing",
    "doubled 2": "none (or it is there twice)",
    "delay": "one step later",
    "no D": "D is missing: the layer adds skip * u",
    "sign of d": "D is wrong",
    "step": "step size is wrong: the layer's is 0.4 times",
    "steps": "step size is wrong",
    "odd": "off by a factor: the layer's is 1.42857",
}


@pytest.mark.parametrize("hold", ["zoh", "bilinear"])
@pytest.mark.parametrize("mistake", NAMED)
def test_mistakes_are_named(mistake, hold):
    layer = Resonators(hold=hold, first=mistake != "delay")
    assert check_adapter(ResonatorsAdapter(), layer).passed
    late = Resonators(hold=hold, first=False)
    report = check_adapter(ResonatorsAdapter(mistake), layer if mistake != "delay" else late)
    assert not report.passed
    assert NAMED[mistake] in str(report)
    # as names of one mistake only: nothing else is claimed to be the matter
    assert all(" and " not in line for line in report.mistakes)
    assert report.response_error > 1e-3


def test_an_output_that_comes_too_early():
    report = check_adapter(ResonatorsAdapter("delay"), Resonators())
    assert "one step earlier" in str(report)


def test_two_mistakes_at_once():
    report = check_adapter(ResonatorsAdapter("no D, missing 2"), Resonators())
    assert "factor 2" in report.mistakes[0]
    assert "D is missing: the layer adds skip * u" in report.mistakes[0]


@pytest.mark.parametrize("mistake", ["imaginary", "C", "missing 2", "delay", "no D"])
def test_where_the_activation_is_no_module(mistake):
    class Functional(Resonators):
        def __init__(self, **options):
            super().__init__(act=nn.Identity(), **options)

        def forward(self, u):
            return torch.tanh(super().forward(u))

    class Adapter(ResonatorsAdapter):
        def parts(self, module):
            return {"activation": nn.Tanh()}

    layer = Functional(first=mistake != "delay")
    assert check_adapter(Adapter(), layer).passed
    report = check_adapter(Adapter(mistake), layer)
    assert not report.passed
    assert np.isnan(report.response_error)
    named = NAMED | {"delay": "one step later"}
    assert named[mistake] in str(report)


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        ("B", "B is conjugated"),
        ("imaginary", "imaginary part of A"),
        ("twice", "factor 2 of a half spectrum is in C"),
        ("transposed", "B and C are transposed"),
        ("D", "D is missing: the layer adds direct * u"),
        ("swapped", "changed places"),
        ("backward delay", "backward filter is one step off: give delayed="),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mistakes_in_a_layer_with_one_state(mistake, named, dtype):
    both = mistake != "transposed"
    for delayed in (False, True) if both else (False,):
        layer = Ring(both=both, delayed=delayed)
        layer = layer.double() if dtype == torch.float64 else layer
        assert check_adapter(RingAdapter(), layer).passed
        report = check_adapter(RingAdapter(mistake), layer)
        assert not report.passed
        assert named in str(report)


def test_layouts():
    class Wrong(Ring):
        transposed = True  # says (batch, width, T) and takes the other

    report = check_adapter(RingAdapter(), Wrong(both=False))
    assert "transposed layout" in str(report)
    assert "(batch, T, features)" in str(report)


def test_what_is_around_the_filter():
    class Adapter(ResonatorsAdapter):
        def parts(self, module):
            return {"activation": module.act, "output_linear": nn.Conv1d(4, 4, 1)}

    report = check_adapter(Adapter(), Resonators())
    assert not report.passed
    assert "the filter is right" in str(report)


def test_a_family_that_compares_by_itself():
    adapter = adapter_for(DiagonalMixer(4, 8))
    assert check_adapter(adapter, DiagonalMixer(4, 8)).passed
    report = check_adapter(adapter, DiagonalMixer(4, 8, bank=BilinearBank))
    assert "to_systems() refuses the layer" in str(report)
    assert "no such layer" in str(check_adapter(adapter, nn.Linear(2, 2)))


def test_what_no_usual_mistake_explains():
    class Adapter(ResonatorsAdapter):
        def to_systems(self, module):
            (system,) = super().to_systems(module).values()
            C = system.C.copy()
            C[1] *= 1.7
            C[1, 0, 0] *= 0.3
            return {"core": system.replace(C=C)}

    report = check_adapter(Adapter(), Resonators())
    assert "no usual mistake" in str(report)
    assert "outputs that differ: [1] of 4" in str(report)


def test_the_base_class_checks_what_it_builds():
    layer = Resonators()
    core = {"core": ReducedSSM([0] * 4)}
    assert ResonatorsAdapter().to_block(layer, core).core is core["core"]
    with pytest.raises(CheckpointError, match=r"does not compute.*check_adapter"):
        ResonatorsAdapter("C").to_block(layer, core)
    with pytest.raises(UnsupportedOperationError, match="cannot write a Resonators back"):
        ResonatorsAdapter().from_systems(layer, {})
