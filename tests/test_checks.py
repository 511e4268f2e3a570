"""Arguments are checked in one place; messages say where, what, and the cure."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred import checks, errors


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n.endswith("Error")])
def test_every_error_is_an_ssmred_error_and_a_builtin_one(name):
    kind = getattr(errors, name)
    assert issubclass(kind, errors.SsmredError)
    builtins = (ValueError, TypeError, ArithmeticError, ImportError)
    assert name == "SsmredError" or issubclass(kind, builtins)


def test_tolerance_error_carries_the_best_value():
    assert errors.ToleranceError("x", best=0.25).best == 0.25
    assert errors.ToleranceError("x").best is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, complex(0, np.nan)])
def test_nan_and_inf_never_pass(bad):
    with pytest.raises(errors.DataError, match=r"f: x has 1 entries that are nan or inf.*\(1,\)"):
        checks.check_array([1.0, bad], "x", "f")


def test_arrays_become_float64_or_complex128_copies():
    source = np.arange(3, dtype=np.float32)
    clean = checks.check_array(source, "x", "f")
    assert clean.dtype == np.float64
    assert not np.shares_memory(clean, source)
    assert checks.check_array(np.complex64(1j), "x", "f").dtype == np.complex128
    assert checks.check_array([True, False], "x", "f").dtype == np.float64


@pytest.mark.parametrize("bad", [["a"], [[1, 2], [3]], None, [object()]])
def test_what_is_no_array_of_numbers_is_refused(bad):
    with pytest.raises(errors.ShapeError, match="f: x"):
        checks.check_array(bad, "x", "f")


def test_complex_data_is_never_cast_to_real():
    with pytest.raises(errors.ShapeError, match="complex"):
        checks.check_real_array([1.0 + 0j], "x", "f")


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "3", float("inf"), np.nan])
def test_horizon(bad):
    with pytest.raises(errors.OrderError, match="f: horizon"):
        checks.check_horizon(bad, "f")
    assert checks.check_horizon(None, "f") is None
    assert checks.check_horizon(np.int32(4), "f") == 4


@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.inf, "1", None, True])
def test_tolerance(bad):
    with pytest.raises(errors.ToleranceError, match="f: tol"):
        checks.check_tolerance(bad, "f")
    assert checks.check_tolerance(np.float32(0.5), "f") == 0.5
    assert checks.check_tolerance(np.array(0.5), "f") == 0.5


@pytest.mark.parametrize("bad", [0, 1, -0.1, np.nan, "0.5"])
def test_fraction(bad):
    with pytest.raises(errors.DataError, match=r"\(0, 1\)"):
        checks.check_fraction(bad, "coverage", "f")


def test_positive():
    assert checks.check_positive(0, "x", "f", allow_zero=True) == 0
    assert checks.check_positive(np.inf, "x", "f", allow_inf=True) == np.inf
    for bad in (0, -1, np.inf, np.nan):
        with pytest.raises(errors.DataError, match="f: x"):
            checks.check_positive(bad, "x", "f")


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf, None, False, "1"])
def test_time_step(bad):
    with pytest.raises(errors.DataError, match="dt"):
        checks.check_time_step(bad, "f")
    assert checks.check_time_step(True, "f") == 1.0
    assert checks.check_time_step(0, "f") == 0.0


def test_order_and_choice():
    assert checks.check_order(3, "f", high=3) == 3
    with pytest.raises(errors.OrderError, match="<= 3"):
        checks.check_order(4, "f", high=3)
    with pytest.raises(errors.ShapeError, match="'a', 'b'"):
        checks.check_choice("c", ("a", "b"), "kind", "f")


def test_shape():
    checks.check_shape(np.zeros((5, 2, 3)), (None, 3), "x", "f")
    for shape in ((3,), (2, 4)):
        with pytest.raises(errors.ShapeError, match="f: x has the wrong shape"):
            checks.check_shape(np.zeros(shape), (None, 3), "x", "f")
