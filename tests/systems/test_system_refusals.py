"""Everything that systems refuse: the class, the function, the problem and the cure, by table."""

from __future__ import annotations

import control
import numpy as np
import pytest
from scipy import signal

from ssmred import systems
from ssmred.errors import (
    AccuracyError,
    DataError,
    OrderError,
    ShapeError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.systems import DenseSystem, DiagonalSystem
from ssmred.systems.diagonalisation import diagonalised

EYE = np.eye(2)
ONE = DiagonalSystem([0.5], [1], [1])
CONTINUOUS = DiagonalSystem([-1.0], [1], [1], dt=0)
COMPLEX = DiagonalSystem([0.5j], [1], [1])
BATCH = DiagonalSystem([[0.5], [0.1]], [[1], [1]], [[1], [1]])
DEAF = DenseSystem(EYE / 2, np.zeros((2, 0)), np.ones((1, 2)))
ZERO = DiagonalSystem([0.0], [1], [1])


def with_direct_term(dt: float) -> DiagonalSystem:
    return CONTINUOUS.replace(D=[[1.0]], dt=dt)


# function, arguments, options, error, problem, cure (or what was expected)
CASES = [
    ("DiagonalSystem", (0.5, [1], [1]), {}, ShapeError, "poles is a scalar", "n)"),
    ("DiagonalSystem", ([0.5], [1, 2], [1]), {}, ShapeError, "B has the wrong shape", "(1, m)"),
    ("DiagonalSystem", ([0.5], [1], [1, 2]), {}, ShapeError, "C has the wrong shape", "(p, 1)"),
    ("DiagonalSystem", ([0.5], [1], [1], [[1, 2]]), {}, ShapeError, "D has the wrong", "(1, 1)"),
    ("DiagonalSystem", ([np.nan], [1], [1]), {}, DataError, "poles has 1 entries", "repair"),
    ("DiagonalSystem", ([0.5], [np.inf], [1]), {}, DataError, "B has 1 entries", "repair"),
    ("DiagonalSystem", ([0.5], [1], [None]), {}, ShapeError, "C does not hold", "Convert C"),
    ("DiagonalSystem", ([0.5], [1], [1]), {"dt": -1}, DataError, "dt is not usable", "guessed"),
    ("DiagonalSystem", ([0.5], [1], [1]), {"dt": None}, DataError, "dt is not usable", "guessed"),
    ("DiagonalSystem", ([0.5], [1], [1]), {"dt": np.nan}, DataError, "dt is not", "guessed"),
    ("DiagonalSystem", ([0.5], [1], [1]), {"dt": False}, DataError, "dt is not", "guessed"),
    (
        "DiagonalSystem",
        ([0.5], [1], [1]),
        {"recurrence": "late"},
        ShapeError,
        "recurrence is not known",
        "'post-update'",
    ),
    (
        "DiagonalSystem",
        ([0.5], [1], [1], 1j),
        {"real_output": True},
        ShapeError,
        "D is complex",
        "needs a real D",
    ),
    ("DiagonalSystem", ([0.5], [1], [1]), {"real_output": 1}, ShapeError, "not a bool", "True or"),
    (
        "DiagonalSystem",
        ([-0.5], [1], [1]),
        {"dt": 0, "recurrence": "post-update"},
        UnsupportedOperationError,
        "no post-update",
        "standard",
    ),
    ("DenseSystem", ([[1, 2]], [1], [1]), {}, ShapeError, "A is not square", "n, n"),
    ("DenseSystem", (0.5, [1], [1]), {}, ShapeError, "A is not square", "n, n"),
    ("DenseSystem", (EYE, np.ones((3, 1)), np.ones((1, 2))), {}, ShapeError, "B has", "(2, m)"),
    ("DenseSystem", (EYE, np.ones((2, 1)), np.ones((1, 3))), {}, ShapeError, "C has", "(p, 2)"),
    ("DenseSystem", (EYE * np.nan, [1, 1], [1, 1]), {}, DataError, "A has 4 entries", "repair"),
    ("cayley", (3,), {}, UnsupportedOperationError, "not a system", "from_control"),
    ("cayley", (DiagonalSystem([1.0], [1], [1], dt=0),), {}, DataError, "infinity", "beta"),
    ("cayley", (DiagonalSystem([-1.0], [1], [1]),), {}, DataError, "infinity", "alpha"),
    ("cayley", (DenseSystem([[1.0]], [1], [1], dt=0),), {}, AccuracyError, "singular", "change"),
    ("cayley", (ONE,), {"alpha": -1}, DataError, "alpha is not usable", "> 0"),
    ("cayley", (ONE,), {"beta": np.inf}, DataError, "beta is not usable", "> 0"),
    ("cayley", (CONTINUOUS,), {"dt": 0}, DataError, "dt is 0", "> 0"),
    ("discretise", (3, 0.1), {}, UnsupportedOperationError, "not a system", "from_scipy"),
    ("discretise", (ONE, 0.1), {}, UnsupportedOperationError, "discrete time already", "cayley"),
    ("discretise", (CONTINUOUS, 0), {}, DataError, "dt is 0", "> 0"),
    ("discretise", (CONTINUOUS, 0.1, "rk4"), {}, ShapeError, "method is not known", "'zoh'"),
    ("discretise", (CONTINUOUS, 0.1, "gbt"), {}, DataError, "alpha is not usable", "[0, 1]"),
    ("discretise", (CONTINUOUS, 0.1), {"alpha": 0.5}, DataError, "alpha belongs", "gbt"),
    (
        "discretise",
        (with_direct_term(0), 0.1, "impulse"),
        {},
        UnsupportedOperationError,
        "D is not 0",
        "zoh or bilinear",
    ),
    (
        "discretise",
        (DiagonalSystem([2.0], [1], [1], dt=0), 1.0, "bilinear"),
        {},
        DataError,
        "divides by zero",
        "another dt",
    ),
    (
        "discretise",
        (DenseSystem([[2.0]], [1], [1], dt=0), 1.0, "bilinear"),
        {},
        AccuracyError,
        "singular",
        "change its parameters",
    ),
    *[
        ("discretise", (one, 1.0), {}, DataError, "overflows", "smaller dt")
        for one in (
            DiagonalSystem([1e4], [1], [1], dt=0),
            DenseSystem([[1e4]], [1], [1], dt=0),
        )
    ],
    ("difference", (ONE, 3), {}, UnsupportedOperationError, "not a system", "from_control"),
    ("difference", (ONE, CONTINUOUS), {}, ShapeError, "differ in dt", "Discretise both"),
    ("check_stable", (ONE.replace(poles=[1.0]), "here"), {}, UnstableSystemError, "unstable", "T"),
    *[
        row
        for name in ("to_control", "to_scipy")
        for row in (
            (name, (3,), {}, UnsupportedOperationError, "not a system", "from_control"),
            (name, (COMPLEX,), {}, UnsupportedOperationError, "outputs are complex", "real_output"),
            (name, (COMPLEX.to_dense(),), {}, UnsupportedOperationError, "are complex", "Re"),
            (name, (BATCH,), {}, UnsupportedOperationError, "batch of shape", "one entry"),
        )
    ],
    ("to_control", (DEAF,), {}, UnsupportedOperationError, "without inputs", "at least one"),
    ("from_control", (ONE,), {}, UnsupportedOperationError, "no python-control", "Fit a model"),
    (
        "from_control",
        (control.frd([1.0, 0.5], [1.0, 2.0]),),
        {},
        UnsupportedOperationError,
        "no python-control",
        "Fit a model",
    ),
    *[
        ("from_control", (foreign,), {}, ShapeError, "dt is None", "0 for continuous time")
        for foreign in (control.ss(0.5, 1, 1, 0, None), control.tf([1], [1, 2], None))
    ],
    ("from_control", (control.tf([1, 0, 0], [1, 1], 0),), {}, ShapeError, "improper", "degree"),
    ("from_scipy", (ONE,), {}, UnsupportedOperationError, "no scipy.signal", ""),
    ("from_scipy", (signal.TransferFunction([1, 0, 0], [1, 1]),), {}, ShapeError, "improper", "<="),
    ("from_scipy", (signal.ZerosPolesGain([1, 2], [3], 1),), {}, ShapeError, "improper", "at most"),
    *[
        (
            "from_scipy",
            (signal.ZerosPolesGain([[1.0], [2.0]], [0.5, 0.6], gain, dt=0.1),),
            {},
            UnsupportedOperationError,
            "several outputs",
            "one output at a time",
        )
        for gain in (2.0, [2.0, 1.0])
    ],
]


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "problem", "cure"),
    CASES,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)],
)
def test_refusals(name, arguments, options, error, problem, cure):
    said = arguments[1] if name == "check_stable" else name
    with pytest.raises(error, match=rf"^{said}: .*{problem}") as caught:
        getattr(systems, name)(*arguments, **options)
    assert cure in str(caught.value)


@pytest.mark.parametrize(
    ("system", "name", "arguments", "error", "problem", "cure"),
    [
        (ONE, "simulate", (np.ones((4, 2)),), ShapeError, "u has the wrong shape", ", 1)"),
        (ONE, "simulate", (np.full((4, 1), np.nan),), DataError, "u has 4 entries", "repair"),
        (ONE, "simulate", (np.ones((4, 1)), np.ones(3)), ShapeError, "initial_state has", ", 1)"),
        (CONTINUOUS, "simulate", (np.ones((4, 1)),), UnsupportedOperationError, "dt = 0", "Disc"),
        (
            ONE.replace(real_output=True),
            "simulate",
            (1j * np.ones((4, 1)),),
            ShapeError,
            "u is complex",
            "full_spectrum",
        ),
        (BATCH, "simulate", (np.ones((3, 4, 1)),), ShapeError, "leading axes", "(2,)"),
        (ONE, "impulse_response", (0,), OrderError, "horizon is not usable", ">= 1"),
        (ONE, "impulse_response", (None,), ShapeError, "horizon is missing", "how many samples"),
        (CONTINUOUS, "impulse_response", (3,), UnsupportedOperationError, "dt = 0", "Discretise"),
        (ONE.replace(poles=[2.0]), "impulse_response", (5000,), AccuracyError, "over", "Shorten"),
        (ONE, "frequency_response", ([[1.0]],), ShapeError, "omega is not flat", "(W,)"),
        (ONE, "frequency_response", ([1j],), ShapeError, "omega is complex", "omega.real"),
        (ONE.replace(poles=[1.0]), "frequency_response", ([0.0],), DataError, "pole", "Leave"),
        (ONE.to_dense().replace(A=[[1.0]]), "frequency_response", ([0.0],), DataError, "pole", "L"),
        (ONE, "with_recurrence", ("late",), ShapeError, "recurrence is not known", "'standard'"),
        (CONTINUOUS, "with_recurrence", ("post-update",), UnsupportedOperationError, "dt = 0", ""),
        (ZERO, "with_recurrence", ("post-update",), UnsupportedOperationError, "pole is 0", "Rem"),
        (
            ZERO.to_dense(),
            "with_recurrence",
            ("post-update",),
            UnsupportedOperationError,
            "A is singular",
            "Remove",
        ),
        (COMPLEX, "realified", (), UnsupportedOperationError, "outputs are complex", "real_output"),
        (COMPLEX.to_dense(), "realified", (), UnsupportedOperationError, "complex", "real_output"),
    ],
)
def test_refusals_of_methods(system, name, arguments, error, problem, cure):
    with pytest.raises(error, match=rf"^{name}: .*{problem}") as caught:
        getattr(system, name)(*arguments)
    assert cure in str(caught.value)


@pytest.mark.parametrize("gap", [0.0, 1e-13])
def test_nearly_defective_matrices_are_not_diagonalised(gap):
    system = DenseSystem([[0.5, 1.0], [0.0, 0.5 + gap]], [1, 1], [1, 1])
    with pytest.raises(AccuracyError, match=r"^diagonalised: A is defective.*dense"):
        diagonalised(system)
    assert np.isfinite(diagonalised(system, limit=1e30).condition) or gap == 0.0
    with pytest.raises(UnsupportedOperationError, match=r"^diagonalised: .*half=False"):
        diagonalised(COMPLEX.to_dense(), half=True)


def test_complex_data_is_never_cast():
    """Complex systems keep their imaginary parts through every conversion that accepts them."""
    rng = np.random.default_rng(0)
    A, B, C, D = (
        rng.normal(size=k) + 1j * rng.normal(size=k) for k in ((3, 3), (3, 2), (1, 3), (1, 2))
    )
    back = systems.from_scipy(signal.StateSpace(A, B, C, D, dt=0.1))
    for name, matrix in zip("ABCD", (A, B, C, D), strict=True):
        np.testing.assert_array_equal(getattr(back, name), matrix)
    for convert in (systems.to_control, systems.to_scipy):
        for part in ("A", "B", "C", "D"):  # one imaginary part is enough
            real = DenseSystem(A.real, B.real, C.real, D.real, 0.1)
            with pytest.raises(UnsupportedOperationError, match="imaginary parts would be dropped"):
                convert(real.replace(**{part: getattr(back, part)}))
        convert(DenseSystem(A.real + 0j, B.real, C.real, D.real, 0.1))  # complex dtype, real data
