"""Everything that norms refuse: the class, the function, the problem and the cure, by table."""

from __future__ import annotations

import numpy as np
import pytest

from ssmred import norms
from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    ShapeError,
    ToleranceError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.systems import DenseSystem, DiagonalSystem

STABLE = DiagonalSystem([0.5], [1], [1])
UNSTABLE = DiagonalSystem([2.0], [1], [1])
CONTINUOUS = DiagonalSystem([-1.0], [1], [1], dt=0)
ON_CIRCLE = DiagonalSystem([0.6 + 0.8j], [1], [1], real_output=True)
ROUNDED = DenseSystem([[0.6, -0.8], [0.8, 0.6]], [[1], [1]], [[1, 1]])
ALMOST = ROUNDED.replace(A=(1 - 1e-15) * ROUNDED.A)
SLOW = DenseSystem([[1 - 1e-9]], [[1]], [[1]])
TWO_INPUTS = DiagonalSystem([0.5], np.ones((1, 2)), [1])
WITH_HORIZON = ("h2", "hankel", "l1")  # h2_norm and h2_error, l1_gain and l1_gain_error, ...


def named(kind: str) -> tuple[str, str]:
    """Return the names of the norm and of the error."""
    return ("l1_gain", "l1_gain_error") if kind == "l1" else (f"{kind}_norm", f"{kind}_error")


def pair(name: str, system) -> tuple:
    """Return the arguments of a norm, or of an error whose difference has the defect."""
    return (system,) if not name.endswith("error") else (system, system.replace(C=2 * system.C))


DIFFERENCES = (*(named(kind)[1] for kind in ("h2", "hankel", "hinf", "l1")), "l2_gain_error",
               "difference_response")  # fmt: skip
NORMS = (*(named(kind)[0] for kind in ("h2", "hankel", "hinf", "l1")), "linf_norm", "l2_norm",
         "l2_gain")  # fmt: skip


def two(name: str, other) -> tuple:
    """Return the arguments of a difference of a good system and another one."""
    return (STABLE, other, 4) if name == "difference_response" else (STABLE, other)


def needed(name: str) -> dict:
    """Return the options that a function cannot do without."""
    return {"horizon": 4} if name.startswith("l2_gain") else {}


# function, arguments, options, error, problem, cure (or what was expected)
CASES = [
    *[
        row
        for kind in WITH_HORIZON
        for name in named(kind)
        for row in (
            (name, pair(name, UNSTABLE), {}, UnstableSystemError, r"unstable", "horizon=T"),
            (name, pair(name, UNSTABLE.to_dense()), {}, UnstableSystemError, "unstable", "horizon"),
            (name, pair(name, STABLE), {"horizon": 0}, OrderError, "horizon is not", ">= 1"),
            (name, pair(name, STABLE), {"horizon": 1.5}, OrderError, "horizon is not", "integer"),
            (name, pair(name, STABLE), {"horizon": np.inf}, OrderError, "horizon is inf", "None"),
            (
                name,
                pair(name, CONTINUOUS),
                {"horizon": 3},
                UnsupportedOperationError,
                "a finite horizon counts samples",
                "Discretise",
            ),
            (name, pair(name, UNSTABLE), {"horizon": 5000}, AccuracyError, "overflow", "Shorten"),
            (
                name,
                pair(name, UNSTABLE.to_dense()),
                {"horizon": 5000},
                AccuracyError,
                "overflow",
                "Shorten",
            ),
        )
    ],
    *[
        row
        for name in ("hinf_norm", "hinf_error")
        for row in (
            (name, pair(name, UNSTABLE), {}, UnstableSystemError, "unstable", "linf_norm"),
            (
                name,
                pair(name, UNSTABLE.to_dense()),
                {},
                UnstableSystemError,
                "unstable",
                "linf_norm",
            ),
            (name, pair(name, STABLE), {"rtol": 0.0}, ToleranceError, "rtol is not usable", "> 0"),
            (
                name,
                pair(name, STABLE),
                {"rtol": np.nan},
                ToleranceError,
                "rtol is not usable",
                "> 0",
            ),
            (name, pair(name, STABLE), {"rtol": "1"}, ToleranceError, "rtol is not usable", "> 0"),
            (name, pair(name, ALMOST), {}, AccuracyError, "within rounding", "DiagonalSystem"),
        )
    ],
    (
        "hinf_norm",
        (DiagonalSystem([0.5], [1e200], [1e200]),),
        {},
        AccuracyError,
        "overflows",
        "Scale",
    ),
    (
        "linf_norm",
        (DiagonalSystem([1.0], [1], [1]),),
        {},
        UnstableSystemError,
        "boundary",
        "horizon",
    ),
    (
        "linf_norm",
        (DenseSystem([[0.0]], [[1]], [[1]], dt=0),),
        {},
        UnstableSystemError,
        "boundary",
        "",
    ),
    ("linf_norm", (ALMOST,), {}, AccuracyError, "within rounding", "DiagonalSystem"),
    ("l2_norm", (DiagonalSystem([1.0], [1], [1]),), {}, UnstableSystemError, "boundary", "h2_norm"),
    ("l2_norm", (ROUNDED,), {}, UnstableSystemError, "boundary", "DiagonalSystem"),
    ("l1_gain", (SLOW,), {}, AccuracyError, "not decayed", "DiagonalSystem"),
    ("l2_gain", (SLOW,), {"horizon": None}, AccuracyError, "not decayed", "DiagonalSystem"),
    ("l2_gain", (CONTINUOUS,), {"horizon": None}, UnsupportedOperationError, "continuous", "hinf"),
    (
        "l2_gain",
        (CONTINUOUS,),
        {"horizon": 4},
        UnsupportedOperationError,
        "continuous",
        "hinf_norm",
    ),
    ("l2_gain", (UNSTABLE,), {"horizon": None}, UnstableSystemError, "unstable", "horizon=T"),
    ("l2_gain", (UNSTABLE,), {"horizon": 5000}, AccuracyError, "overflows", "Shorten"),
    ("l2_gain", (STABLE,), {"horizon": 3, "oversampling": 0.5}, DataError, "too small", ">= 1"),
    ("l2_gain", (STABLE,), {"horizon": 3, "oversampling": "x"}, DataError, "not usable", "> 0"),
    *[
        (
            name,
            two(name, 3),
            needed(name),
            UnsupportedOperationError,
            "not a system",
            "from_control",
        )
        for name in DIFFERENCES
    ],
    *[
        (name, two(name, other), needed(name), ShapeError, f"differ in {what}", cure)
        for name in DIFFERENCES
        for other, what, cure in (
            (STABLE.replace(dt=0.5), "dt", "Discretise both alike"),
            (CONTINUOUS, "dt", "Discretise both alike"),
            (TWO_INPUTS, "inputs", "same inputs"),
            (DiagonalSystem([0.5], [1], np.ones((2, 1))), "outputs", "same outputs"),
            (DiagonalSystem([[0.5]], [[1]], [[1]]), "batch_shape", "same number of channels"),
        )
    ],
    *[
        (name, (3,), needed(name), UnsupportedOperationError, "not a system", "from_scipy")
        for name in NORMS
    ],
    (
        "difference_response",
        (CONTINUOUS, CONTINUOUS, 3),
        {},
        UnsupportedOperationError,
        "not a pair",
        "Discretise",
    ),
    (
        "difference_response",
        (STABLE.to_dense(), STABLE, 3),
        {},
        UnsupportedOperationError,
        "not a pair",
        "diagonalise",
    ),
    ("difference_response", (STABLE, STABLE, 0), {}, OrderError, "horizon is not usable", ">= 1"),
    ("impulse_l1_gain", ([],), {}, ShapeError, "no samples", "T"),
    ("impulse_l1_gain", ([1.0, np.nan],), {}, DataError, "nan or inf", "repair"),
    ("impulse_l1_gain", ([1.0],), {"radius": -1.0}, ShapeError, "radius does not fit", ">= 0"),
    ("impulse_l2_gain", (3.0,), {}, ShapeError, "no samples", "T"),
    ("impulse_l2_gain", ([1.0],), {"oversampling": 0}, DataError, "not usable", "> 0"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "problem", "cure"),
    CASES,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)],
)
def test_refusals(name, arguments, options, error, problem, cure):
    with pytest.raises(error, match=rf"^{name}: .*{problem}") as caught:
        getattr(norms, name)(*arguments, **options)
    assert cure in str(caught.value)


def test_poles_on_the_circle_within_rounding_are_decided_by_their_floats():
    """0.6 + 0.8j has a modulus just off 1; the side it is on is found exactly."""
    outside = DiagonalSystem([0.6 + 0.8j], [1], [1])
    inside = outside.replace(poles=outside.poles * (1 - 2.0**-52))
    answered = [norms.h2_norm(inside), norms.hinf_norm(inside).lower, norms.hankel_norm(inside)]
    assert all(np.isfinite(answered))
    assert min(answered) > 1e7
    with pytest.raises(UnstableSystemError):
        norms.h2_norm(outside)
