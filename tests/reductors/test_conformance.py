"""All reductors through the one battery; options of one method are tested in a file of its own."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import ReductorConformance, UnboundedConformance, entries
from hard_systems import (
    CASES,
    CONTINUOUS,
    DENSE,
    MULTIPLE_IO,
    UNSTABLE,
    UNSTABLE_DENSE,
    diagonal,
    unstable,
)

from ssmred.errors import OrderError
from ssmred.gramians import InputMoments
from ssmred.norms import h2_error
from ssmred.reductors import (
    BalancedReductor,
    FrequencyWeightedReductor,
    HankelReductor,
    ModalReductor,
    ResidualisedReductor,
    SplitReductor,
    SubsetReductor,
)
from ssmred.systems import DenseSystem, stability_margins

HORIZON = 12
SPLIT = 1e-12  # what splitting a dense system loses of the part outside


class TestSubset(ReductorConformance):
    refuses = DENSE
    untouched = False  # the read-out is fitted again, with all modes too
    test_forms_agree = None  # diagonal systems only
    test_a_form_that_does_not_exist = None
    test_defective_systems_do_not_become_diagonal = None

    def make(self, **options):
        return SubsetReductor(**options)


class TestSubsetWithInputsFitted(TestSubset):
    def make(self, **options):
        return SubsetReductor(refit="both", sweeps=3, **options)


class TestBalanced(ReductorConformance):
    def make(self, **options):
        return BalancedReductor(**options)


class TestBalancedOverAHorizon(ReductorConformance):
    """The claim is the error itself over the horizon; poles need not be stable before or after."""

    cases = CASES | {
        "unstable": lambda: unstable(diagonal(30)),
        "unstable half spectrum": lambda: unstable(diagonal(31, real_output=True)),
        "unstable batch": UNSTABLE["batch, unstable"],
        "dense, unstable": UNSTABLE["dense, unstable"],
    }
    refuses = CONTINUOUS
    needs_stability = False
    test_stays_stable = None

    def make(self, **options):
        return BalancedReductor(horizon=HORIZON, **options)


class TestBalancedOnInputs(UnboundedConformance):
    """Calibrated: half spectra with one input and one output, each with its inputs."""

    cases = CASES | {
        "half spectrum, batch": lambda: diagonal(32, batch=(6,), real_output=True),
        "half spectrum, unstable": lambda: unstable(diagonal(33, real_output=True)),
    }
    refuses = frozenset(CASES) - {
        "half spectrum",
        "half spectrum, post-update",
        "half spectrum, real data",
        "full spectrum of a real system",
    }
    needs_stability = False
    test_stays_stable = None  # over a finite horizon poles need not
    test_defective_systems_do_not_become_diagonal = None  # diagonal systems only

    def make(self, channels=1, **options):
        inputs = np.random.default_rng(0).standard_normal((20, 1, HORIZON))
        moments = InputMoments(channels, HORIZON)
        moments.update(np.repeat(inputs, channels, axis=1))
        return BalancedReductor(moments=moments, **options)

    def make_for(self, system, **options):
        return self.make(max(1, int(np.prod(system.batch_shape))), **options)

    def check_errors(self, full, reduction):
        """What unstable systems have is an error over the horizon."""
        error = h2_error(full, reduction.system, horizon=HORIZON)
        assert np.isfinite(error).all()


class TestResidualised(ReductorConformance):
    def make(self, **options):
        return ResidualisedReductor(**options)


class TestHankel(ReductorConformance):
    def make(self, **options):
        return HankelReductor(**options)


class TestHankelByGlover(ReductorConformance):
    def make(self, **options):
        return HankelReductor(method="glover", **options)


class TestHankelByConEigenvalues(ReductorConformance):
    refuses = MULTIPLE_IO | DENSE
    test_defective_systems_do_not_become_diagonal = None  # diagonal systems only

    def make(self, **options):
        return HankelReductor(method="con-eigenvalues", **options)


class TestModal(ReductorConformance):
    def make(self, **options):
        return ModalReductor(**options)


class TestModalMatchingDC(ReductorConformance):
    def make(self, **options):
        return ModalReductor(match_dc=True, measure="h2", **options)


class TestModalByChance(ReductorConformance):
    test_batch_equals_its_entries = None  # every channel has an order of its own

    def make(self, **options):
        return ModalReductor(measure="random", seed=3, **options)


class TestFrequencyWeighted(UnboundedConformance):
    """With one weight truncation keeps stability."""

    def make(self, **options):
        return FrequencyWeightedReductor(**options)

    def make_for(self, system, **options):
        return self.make(input_weight=_weight(system, system.inputs), **options)


class TestFrequencyWeightedOnBothSides(UnboundedConformance):
    test_stays_stable = None  # not with two weights

    def make(self, **options):
        return FrequencyWeightedReductor(residualised=True, **options)

    def make_for(self, system, **options):
        weights = (_weight(system, size) for size in (system.inputs, system.outputs))
        return self.make(
            **dict(zip(("input_weight", "output_weight"), weights, strict=True)), **options
        )

    def check_errors(self, full, reduction):
        """An unstable result has no H-infinity error: it is refused, not answered wrongly."""
        if np.all(stability_margins(reduction.system) > 0):
            super().check_errors(full, reduction)


def _weight(system, size):
    """Return a stable weight, real where the system is, with as many inputs and outputs."""
    rng = np.random.default_rng(size)
    A = 0.3 * rng.standard_normal((2, 2)) / np.sqrt(2)
    if not system.is_discrete:
        A -= 2 * np.eye(2)
    B, C = rng.standard_normal((2, size)), rng.standard_normal((size, 2))
    return DenseSystem(A, B, C, np.eye(size), system.dt)


class TestSplit(ReductorConformance):
    """Stable systems: nothing is outside, and it is the reductor alone."""

    needs_stability = False

    def make(self, **options):
        return SplitReductor(BalancedReductor(**options))

    def test_it_is_the_reductor_alone(self, system):
        whole, inner = self.reduce(system, order=2), BalancedReductor().reduce(system, order=2)
        np.testing.assert_allclose(whole.claim.value, inner.claim.value, rtol=1e-10)
        assert whole.claim.theorem == inner.claim.theorem
        assert whole.compared is None


class SplitConformance(ReductorConformance):
    """Systems with poles outside the boundary, which all stay."""

    cases = UNSTABLE
    needs_stability = False
    test_stays_stable = None  # what replaces it: the poles outside stay

    def least(self, system):
        margins = stability_margins(system)
        return int(np.sum(margins <= 0, axis=-1).max())

    def test_poles_outside_stay_and_the_others_stay_inside(self, system):
        for order in self.orders(system):
            reduced = self.reduce(system, order=order).system
            for one, other in zip(entries(system), entries(reduced), strict=True):
                before = one.poles[stability_margins(one) <= 0]
                after = other.poles[stability_margins(other) <= 0]
                assert before.size == after.size
                if isinstance(one, DenseSystem):
                    gaps = np.abs(np.sort_complex(before) - np.sort_complex(after))
                    assert np.all(gaps <= SPLIT * np.abs(before))
                else:
                    np.testing.assert_array_equal(np.sort(before), np.sort(after))

    def test_orders_that_would_lose_a_pole_outside(self, system):
        least = self.least(system)
        assert least >= 1
        path = self.make().path(system)
        for order in range(least):
            with pytest.raises(OrderError, match=f"outside the boundary.*order >= {least}"):
                self.reduce(system, order=order)
            assert np.isinf(path.errors[..., system.order - order]).any()
        assert np.isfinite(path.errors[..., : system.order - least + 1]).all()


class TestSplitBalanced(SplitConformance):
    def make(self, **options):
        return SplitReductor(BalancedReductor(**options))


class TestSplitHankel(SplitConformance):
    def make(self, **options):
        return SplitReductor(HankelReductor(**options))


class TestSplitSubset(SplitConformance):
    """An inner method whose claim is the error itself, in the h2 norm."""

    refuses = UNSTABLE_DENSE
    untouched = False
    test_forms_agree = None
    test_a_form_that_does_not_exist = None
    test_defective_systems_do_not_become_diagonal = None

    def make(self, **options):
        return SplitReductor(SubsetReductor(**options))
