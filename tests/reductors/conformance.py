"""What every reductor has to pass, whatever its method.

A test file makes a subclass of :class:`ReductorConformance`, named ``Test...``, and says how its
reductor is made and which systems it refuses; methods without a bound on their error use
:class:`UnboundedConformance`. A test that a method cannot be put to is set to None in the subclass,
with the reason.
"""

from __future__ import annotations

import numpy as np
import pytest
from hard_systems import CASES, DENSE, Case
from independent_errors import check_bound, sampled_gain, written_out

from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.reductors import Reductor
from ssmred.systems import DenseSystem, DiagonalSystem

EXACT = 1e-11  # full order: rounding of a change of recurrence or of a diagonalisation
SAME = 1e-7  # a batch and its entries: other summation orders, in iterations that stop near 1e-8
FORMS = 1e-8  # of a system and of its diagonalisation


def entries(system):
    """Return the entries of a batch as single systems."""
    names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
    for index in np.ndindex(system.batch_shape):
        yield system.replace(**{name: getattr(system, name)[index] for name in names})


def part(system, count):
    """Return a system with the first modes or states alone."""
    names = {"poles": system.poles[..., :count]} if isinstance(system, DiagonalSystem) else {}
    names = names or {"A": system.A[..., :count, :count]}
    return system.replace(B=system.B[..., :count, :], C=system.C[..., :count], **names)


def states(system):
    """Return the real states (or complex ones) that the modes of a result stand for."""
    if not (isinstance(system, DiagonalSystem) and system.real_output):
        return system.order
    used = np.any(system.B != 0, axis=-1)
    return int(np.sum(used * np.where(system.poles.imag != 0, 2, 1)))


def nothing(system):
    return system.replace(C=0 * system.C, D=0 * system.D)


class ReductorConformance:
    """The battery; subclasses set what differs between methods."""

    cases: dict[str, Case] = CASES
    refuses: frozenset[str] = frozenset()
    """Names of the cases that the method refuses with UnsupportedOperationError."""
    needs_stability = True
    untouched = True
    """Whether order n returns the system without any change."""

    def make(self, **options) -> Reductor:
        """Return the reductor under test."""
        raise NotImplementedError

    def make_for(self, system, **options) -> Reductor:
        """Return the reductor for a system; for methods whose options must fit it."""
        del system
        return self.make(**options)

    def reduce(self, system, **wish):
        return self.make_for(system).reduce(system, **wish)

    def least(self, system) -> int:
        """Return the smallest order there is."""
        del system
        return 0

    def orders(self, system):
        return range(self.least(system), system.order + 1)

    def check(self, full, reduction):
        """Assert that the bound of every channel holds without slack."""
        bound = reduction.bound
        assert bound.value.shape == bound.reference.shape == full.batch_shape
        assert np.all(bound.value >= 0)
        for one, other, value in zip(
            entries(full), entries(reduction.system), np.ravel(bound.value), strict=True
        ):
            check_bound(one, other, bound, value)

    def check_zero(self, reduction):
        """Assert that no error is claimed."""
        assert np.all(reduction.bound.value == 0)

    def pytest_generate_tests(self, metafunc):
        """Run tests of a ``system`` on every case that the method accepts."""
        if "system" in metafunc.fixturenames:
            names = [name for name in self.cases if name not in self.refuses]
            metafunc.parametrize("system", names, indirect=True)
        if "refused" in metafunc.fixturenames:
            metafunc.parametrize("refused", sorted(self.refuses) or [None])

    @pytest.fixture
    def system(self, request):
        return self.cases[request.param]()

    def accepted(self, fits):
        """Return the first case that the method accepts and that fits; None if there is none."""
        systems = (make() for name, make in self.cases.items() if name not in self.refuses)
        return next((system for system in systems if fits(system)), None)

    def single(self):
        system = self.accepted(lambda s: not s.batch_shape)
        assert system.order == 5
        return system

    def batched(self):
        return self.accepted(lambda s: s.batch_shape)

    def test_is_a_reductor(self):
        assert isinstance(self.make(), Reductor)

    def test_other_cases_are_refused(self, refused):
        for name in self.refuses if refused is None else [refused]:
            with pytest.raises(UnsupportedOperationError):
                self.make().reduce(self.cases[name](), order=1)
            with pytest.raises(UnsupportedOperationError):
                self.make().check_accepts(self.cases[name]())
        assert len(self.refuses) < len(self.cases)

    def test_input_is_untouched(self, system):
        names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
        before = {name: getattr(system, name).copy() for name in names}
        self.make_for(system).check_accepts(system)
        self.reduce(system, order=max(2, self.least(system)))
        for name, array in before.items():
            np.testing.assert_array_equal(getattr(system, name), array)

    def test_order_and_kind_are_kept(self, system):
        path = self.make_for(system).path(system)
        assert path.errors.shape == (*system.batch_shape, system.order + 1)
        assert np.all(path.errors[..., 1:] >= path.errors[..., :-1])
        for order in self.orders(system):
            reduction = self.reduce(system, order=order)
            reduced = reduction.system
            assert reduced.order <= order
            assert reduction.orders.shape == system.batch_shape
            assert reduced.order == reduction.orders.max()
            assert type(reduced) is type(system)
            for name in ("dt", "recurrence", "real_output", "batch_shape", "inputs", "outputs"):
                assert getattr(reduced, name) == getattr(system, name), name
            assert reduction.full is system
            for name in ("A", "B", "C", "D"):
                if isinstance(system, DenseSystem):
                    assert getattr(reduced, name).dtype == getattr(system, name).dtype

    def test_real_systems_stay_real(self, system):
        real = system.is_real or np.allclose(np.sum(written_out(system).poles.imag), 0, atol=1e-12)
        if not real:
            assert written_out(self.reduce(system, order=system.order).system).order
            return
        for order in self.orders(system):
            reduced = written_out(self.reduce(system, order=order).system)
            for one in entries(reduced):
                if isinstance(one, DenseSystem):
                    assert one.is_real
                    continue
                poles = one.poles[np.any(one.B != 0, axis=-1)]
                np.testing.assert_array_equal(np.sort(poles), np.sort(poles.conj()))
                omega = np.linspace(0.01, 3, 7) if system.is_discrete else np.linspace(0.01, 30, 7)
                H = one.frequency_response(omega)
                size = np.abs(H).max(initial=1e-300)
                # modes of nearly equal poles cancel: what is rounded are the terms, not the sum
                margins = np.abs(1 - np.abs(one.poles) if one.is_discrete else one.poles.real)
                driven = np.abs(one.B) / np.where(margins > 0, margins, np.inf)[:, None]
                terms = np.sum(np.abs(one.C) @ driven)
                rounding = EXACT * size + 16 * np.finfo(float).eps * terms
                assert np.max(np.abs(one.frequency_response(-omega) - H.conj())) <= rounding

    def test_stays_stable(self, system):
        for order in self.orders(system):
            poles = self.reduce(system, order=order).system.poles
            assert np.all(np.abs(poles) < 1 if system.is_discrete else poles.real < 0)

    def test_bounds_hold_without_slack(self, system):
        for order in self.orders(system):
            self.check(system, self.reduce(system, order=order))

    def test_full_order_has_no_error(self, system):
        reduction = self.reduce(system, order=system.order)
        if self.untouched:
            self.check_zero(reduction)
            assert np.all(reduction.hinf_error.upper == 0)
            assert np.all(reduction.h2_error == 0)
        for one, other in zip(entries(system), entries(reduction.system), strict=True):
            assert sampled_gain(one, other) <= EXACT * sampled_gain(one, nothing(one))

    def test_tolerance_is_met(self, system):
        for tol in (0.5, 1e-2):
            reduction = self.reduce(system, tol=tol)
            assert np.all(reduction.bound.value <= tol * reduction.bound.reference)
            self.check(system, reduction)

    def test_tiny_tolerance_is_met_or_refused(self):
        system = self.single()
        try:
            reduction = self.reduce(system, tol=1e-300)
        except ToleranceError as error:
            assert error.best is not None  # noqa: PT017 - both ends are right
            assert error.best > 1e-300  # noqa: PT017
        else:
            assert np.all(reduction.bound.value <= 1e-300 * reduction.bound.reference)

    def test_batch_equals_its_entries(self):
        system = self.batched()
        for order in {max(1, self.least(system)), 3, 4}:
            together = self.reduce(system, order=order)
            pieces = zip(entries(system), entries(together.system), strict=True)
            for index, (one, other) in enumerate(pieces):
                alone = self.reduce(one, order=order)
                self.check_same(together, alone, index)
                gap = sampled_gain(alone.system, other)
                # poles of a flat optimum are known to the root of the precision of its value
                assert gap <= np.sqrt(SAME) * sampled_gain(one, nothing(one))

    def check_same(self, together, alone, index):
        """Assert that the same is said of a channel in a batch and alone."""
        assert np.ravel(together.orders)[index] == alone.orders
        for name in ("claim", "bound"):
            value = np.ravel(getattr(together, name).value)[index]
            np.testing.assert_allclose(getattr(alone, name).value, value, rtol=SAME)

    def test_ragged_orders(self):
        system = self.batched()
        count = int(np.prod(system.batch_shape))
        kept = np.linspace(self.least(system), system.order, count).round().astype(int)
        kept = kept[::-1].reshape(system.batch_shape)
        assert np.ptp(kept) >= 2
        reduction = self.make_for(system).path(system).reduction(kept)
        assert np.all(reduction.orders <= kept)
        assert reduction.system.order == reduction.orders.max()
        self.check(system, reduction)
        for other, keep in zip(entries(reduction.system), kept.ravel(), strict=True):
            assert np.sum(np.any(other.B != 0, axis=-1)) <= keep

    def test_one_mode(self):
        system = self.single()
        one = part(system, 1)
        if isinstance(system, DenseSystem):
            one = one.replace(A=[[0.5 if system.is_discrete else -0.5]])
        for order in (0, 1):
            reduction = self.reduce(one, order=order)
            assert reduction.system.order == order
            self.check(one, reduction)

    def test_no_modes_and_empty_batches(self):
        system = self.single()
        none = part(system, 0)
        reduction = self.reduce(none, order=0)
        assert reduction.system.order == 0
        self.check_zero(reduction)
        np.testing.assert_array_equal(reduction.system.D, none.D)
        names = ("poles" if isinstance(system, DiagonalSystem) else "A", "B", "C", "D")
        empty = system.replace(
            **{name: np.zeros((0, *getattr(system, name).shape)) for name in names}
        )
        reduction = self.reduce(empty, order=2)
        assert reduction.system.batch_shape == (0,)
        assert reduction.orders.shape == (0,)
        self.check(empty, reduction)

    def test_nothing_to_approximate(self):
        zero = self.single()
        zero = zero.replace(B=0 * zero.B)
        reduction = self.reduce(zero, order=2)
        self.check_zero(reduction)
        assert np.isfinite(np.asarray(reduction.system.frequency_response(np.array([0.3])))).all()

    @pytest.mark.parametrize("order", [-1, 6, 2.5, "2", None, True])
    def test_bad_orders(self, order):
        with pytest.raises(OrderError):
            self.reduce(self.single(), order=order)

    def test_order_and_tolerance_together(self):
        with pytest.raises(OrderError, match="exactly one"):
            self.reduce(self.single(), order=1, tol=0.1)

    @pytest.mark.parametrize("tol", [0, -1e-3, np.nan, np.inf, "small"])
    def test_bad_tolerances(self, tol):
        with pytest.raises(ToleranceError):
            self.reduce(self.single(), tol=tol)

    def test_nan_never_becomes_a_system(self):
        with pytest.raises(DataError):
            self.make().reduce(DiagonalSystem([0.5], [np.nan], [1.0]), order=1)

    @pytest.mark.parametrize("thing", [None, np.eye(3), "a system"])
    def test_not_a_system(self, thing):
        for wish in ({"order": 1}, {"tol": 0.1}):
            with pytest.raises(UnsupportedOperationError):
                self.make().reduce(thing, **wish)
        with pytest.raises(UnsupportedOperationError):
            self.make().check_accepts(thing)

    def test_unstable_systems(self):
        system = self.single()
        if isinstance(system, DenseSystem):
            unstable = system.replace(A=1.2 * np.eye(system.order))
        else:
            unstable = system.replace(poles=np.append(system.poles[:-1], 1.0))
        if self.needs_stability:
            for refuses in (
                lambda: self.reduce(unstable, order=1),
                lambda: self.make_for(unstable).check_accepts(unstable),
            ):
                with pytest.raises(UnstableSystemError, match="pole"):
                    refuses()
        else:
            order = max(1, self.least(unstable))
            assert self.reduce(unstable, order=order).system.order <= order

    def test_float32_is_read_as_it_is(self):
        system = self.single()
        arrays = [system.poles, system.B, system.C, system.D]
        if isinstance(system, DenseSystem):
            arrays[0] = system.A
        kinds = [np.complex64 if np.iscomplexobj(x) else np.float32 for x in arrays]
        small = [x.astype(kind) for x, kind in zip(arrays, kinds, strict=True)]
        wide = [x.astype(complex if np.iscomplexobj(x) else float) for x in small]
        names = ("A" if isinstance(system, DenseSystem) else "poles", "B", "C", "D")
        order = max(2, self.least(system))
        one, two = (
            self.reduce(system.replace(**dict(zip(names, data, strict=True))), order=order).system
            for data in (small, wide)
        )
        for name in names:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
            assert getattr(one, name).dtype in (np.complex128, np.float64)

    @pytest.mark.parametrize("form", ["dense", "diagonal"])
    def test_forms_agree(self, system, form):
        order = max(2, self.least(system))
        reduction = self.make_for(system, form=form).reduce(system, order=order)
        kind = DenseSystem if form == "dense" else DiagonalSystem
        assert isinstance(reduction.system, kind)
        assert reduction.system.recurrence == system.recurrence
        if form == "diagonal" and reduction.condition is not None:
            assert np.all(reduction.condition >= 1)
        plain = self.reduce(system, order=order)
        pieces = zip(entries(system), entries(plain.system), entries(reduction.system), strict=True)
        for full, one, two in pieces:
            if states(one) != states(two):
                continue  # a pair that became two real modes takes two places when stored as modes
            gap = sampled_gain(written_out(one).to_dense(), written_out(two).to_dense())
            assert gap <= FORMS * sampled_gain(full, nothing(full))

    def test_a_form_that_does_not_exist(self):
        with pytest.raises(ValueError, match="form"):
            self.make(form="modal")

    def test_defective_systems_do_not_become_diagonal(self):
        A = 0.5 * np.eye(3) + np.diag([1.0, 1.0], 1)
        system = DenseSystem(A, [0.0, 0.3, 1.0], [1.0, 0.2, 0.0])
        with pytest.raises(AccuracyError, match="dense"):
            self.make_for(system, form="diagonal").reduce(system, order=3)


class UnboundedConformance(ReductorConformance):
    """The battery for methods without a bound: none is claimed, and tol is refused."""

    test_bad_tolerances = None  # any tol is refused
    test_tolerance_is_met = None
    test_tiny_tolerance_is_met_or_refused = None

    def check(self, full, reduction):
        """Assert that no bound is claimed, and that every error is finite and the right one."""
        assert reduction.claim is None
        assert reduction.bound is None
        for one, other in zip(entries(full), entries(reduction.system), strict=True):
            assert np.isfinite(sampled_gain(one, other))

    def check_zero(self, reduction):
        assert reduction.bound is None

    def check_same(self, together, alone, index):
        assert np.ravel(together.orders)[index] == alone.orders

    def test_bounds_hold_without_slack(self, system):
        for order in self.orders(system):
            reduction = self.reduce(system, order=order)
            self.check(system, reduction)
            self.check_errors(system, reduction)

    def check_errors(self, full, reduction):
        """Assert that the computed errors enclose an independent lower bound."""
        upper = np.ravel(reduction.hinf_error.upper)
        for one, other, value in zip(entries(full), entries(reduction.system), upper, strict=True):
            assert sampled_gain(one, other) <= value

    @pytest.mark.parametrize("tol", [0.1, 0, np.nan, "small"])
    def test_tolerances_are_refused(self, tol):
        with pytest.raises((UnsupportedOperationError, ToleranceError)):
            self.reduce(self.single(), tol=tol)

    def test_a_path_has_no_tolerance_either(self):
        system = self.single()
        with pytest.raises(UnsupportedOperationError, match="tol"):
            self.make_for(system).path(system).reduction_to(0.5)


__all__ = ["DENSE", "ReductorConformance", "UnboundedConformance", "entries", "part"]
