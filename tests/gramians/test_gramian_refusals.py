"""Everything that gramians refuse: the class, the function, the problem and the cure, by table."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from ssmred import gramians
from ssmred.errors import (
    AccuracyError,
    DataError,
    MissingDependencyError,
    OrderError,
    ShapeError,
    UnstableSystemError,
    UnsupportedOperationError,
)
from ssmred.gramians.spectral_split import spectral_split
from ssmred.systems import DenseSystem, DiagonalSystem

EYE = np.eye(2)
STABLE = DiagonalSystem([0.5], [1], [1])
UNSTABLE = DiagonalSystem([2.0], [1], [1])
CONTINUOUS = DiagonalSystem([-1.0], [1], [1], dt=0)
FACTORS = ("stein_factor", "lyapunov_factor")
EQUATIONS = ("stein", "lyapunov")
SYLVESTER = ("sylvester", "discrete_sylvester")
OF_SYSTEMS = (
    "controllability_gramian",
    "observability_gramian",
    "pseudo_gramian",
    "controllability_factor",
    "observability_factor",
    "hankel_singular_values",
)

# function, arguments, options, error, problem, cure (or what was expected)
CASES = [
    *[
        row
        for name in EQUATIONS
        for row in (
            (name, (np.ones((2, 3)), EYE), {}, ShapeError, "A is not square", "n, n"),
            (name, (0.5, 1.0), {}, ShapeError, "A is not square", "n, n"),
            (name, (EYE, np.eye(3)), {}, ShapeError, "W has the wrong shape", "2, 2"),
            (name, (EYE, EYE), {"E": np.eye(3)}, ShapeError, "E has the wrong shape", "2, 2"),
            (name, ([[0.5]], [[np.nan]]), {}, DataError, "W has 1 entries", "repair"),
            (name, ([[np.inf]], [[1.0]]), {}, DataError, "A has 1 entries", "repair"),
            (name, ([["a"]], [[1.0]]), {}, ShapeError, "not hold numbers", "Convert A"),
            (name, ([[1], [1, 2]], EYE), {}, ShapeError, "rectangular", ""),
            (name, ([[0.5]], [[1]]), {"backend": "matlab"}, ShapeError, "backend", "'scipy'"),
            (
                name,
                (np.zeros((2, 1, 1)), np.zeros((3, 1, 1))),
                {},
                ShapeError,
                "batch",
                "broadcast",
            ),
            (name, ([[0.5]], [[1.0]]), {"E": [[0.0]]}, AccuracyError, "E is singular", "Eliminate"),
            (
                name,
                (EYE / 2, EYE),
                {"E": [[1, 2], [2, 4]]},
                AccuracyError,
                "E is singular",
                "Eliminate",
            ),
            (
                name,
                ([[0.5j]], [[1.0]]),
                {"backend": "slycot"},
                UnsupportedOperationError,
                "takes real data",
                "default backend",
            ),
            (
                name,
                (EYE / 2, [[1, 1], [0, 1]]),
                {"backend": "slycot"},
                UnsupportedOperationError,
                "not symmetric",
                "default backend",
            ),
        )
    ],
    *[
        row
        for name in SYLVESTER
        for row in (
            (name, (np.ones((2, 3)), EYE, EYE), {}, ShapeError, "A is not square", "n, n"),
            (name, (EYE, np.ones((2, 3)), EYE), {}, ShapeError, "B is not square", "n, n"),
            (name, (EYE, np.eye(3), EYE), {}, ShapeError, "W has the wrong shape", "2, 3"),
            (name, (EYE, EYE, np.full((2, 2), np.nan)), {}, DataError, "W has 4", "repair"),
            (
                name,
                (EYE * 1j, EYE, EYE),
                {"backend": "slycot"},
                UnsupportedOperationError,
                "takes real data",
                "default backend",
            ),
        )
    ],
    *[
        row
        for name in FACTORS
        for row in (
            (name, (EYE / 2, np.ones(2)), {}, ShapeError, "B has the wrong shape", "2, "),
            (name, (EYE / 2, np.ones((3, 1))), {}, ShapeError, "B has the wrong shape", "2, "),
            (name, (2 * EYE, EYE), {}, UnstableSystemError, "not stable", "Use "),
            (name, (EYE / 2, EYE), {"E": np.zeros((2, 2))}, AccuracyError, "E is", "Eliminate"),
        )
    ],
    *[
        ("stein", (np.diag([2.0, 0.5]), EYE), {"backend": b}, AccuracyError, "singular", "Diagonal")
        for b in ("ssmred", "scipy", "slycot")
    ],
    *[
        ("lyapunov", (np.diag([1.0, -1]), EYE), {"backend": b}, AccuracyError, "singular", "apart")
        for b in ("ssmred", "scipy", "slycot")
    ],
    *[
        ("sylvester", (EYE, -EYE, EYE), {"backend": b}, AccuracyError, "singular", "apart")
        for b in ("ssmred", "scipy", "slycot")
    ],
    *[
        (
            "discrete_sylvester",
            (4 * EYE, EYE / 4, EYE),
            {"backend": b},
            AccuracyError,
            "singular",
            "apart",
        )
        for b in ("ssmred", "scipy", "slycot")
    ],
    ("stein", ([[0.9999]], [[1e308]]), {}, AccuracyError, "overflows", "Scale W"),
    *[
        row
        for name in OF_SYSTEMS
        for row in (
            (name, (np.eye(2),), {}, UnsupportedOperationError, "not a system", "from_control"),
            (name, (UNSTABLE,), {}, UnstableSystemError, r"1 poles .* unstable", "horizon=T"),
            (name, (STABLE,), {"horizon": 0}, OrderError, "horizon is not usable", ">= 1"),
            (name, (STABLE,), {"horizon": -3}, OrderError, "horizon is not usable", ">= 1"),
            (name, (STABLE,), {"horizon": 2.5}, OrderError, "horizon is not usable", "integer"),
            (name, (STABLE,), {"horizon": np.inf}, OrderError, "horizon is inf", "None"),
            (
                name,
                (CONTINUOUS,),
                {"horizon": 4},
                UnsupportedOperationError,
                "a finite horizon counts samples",
                "Discretise",
            ),
        )
    ],
    *[
        (name, (UNSTABLE,), {"horizon": 5000}, AccuracyError, "overflows", "Shorten the horizon")
        for name in OF_SYSTEMS[:5]
    ],
    *[
        (name, (UNSTABLE.to_dense(),), {"horizon": 5000}, AccuracyError, "overflow", "Shorten")
        for name in (*OF_SYSTEMS[:2], *OF_SYSTEMS[3:])
    ],
    *[
        (name, (STABLE.to_dense(),), {"backend": "x"}, ShapeError, "backend is not known", "scipy")
        for name in OF_SYSTEMS[:2]
    ],
    ("pseudo_gramian", (STABLE.to_dense(),), {}, UnsupportedOperationError, "dense", "realified"),
    ("pseudo_gramian", (STABLE,), {"of": "x"}, ShapeError, "of is not known", "observability"),
    ("cauchy_ldl", (UNSTABLE,), {}, UnstableSystemError, "unstable", "horizon"),
    ("realified_gramian", (EYE, np.eye(3)), {}, ShapeError, "pseudo has the wrong", "2, 2"),
    ("realified_gramian", (np.ones(3), EYE), {}, ShapeError, "gramian has the wrong", "3, 3"),
    ("realified_gramian", (EYE * np.nan, EYE), {}, DataError, "gramian has 4", "repair"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "problem", "cure"),
    CASES,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)],
)
def test_refusals(name, arguments, options, error, problem, cure):
    with pytest.raises(error, match=rf"^{name}: .*{problem}") as caught:
        getattr(gramians, name)(*arguments, **options)
    assert cure in str(caught.value)


@pytest.mark.parametrize("name", [*EQUATIONS, *SYLVESTER])
def test_a_missing_slycot_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "slycot", None)
    arguments = (EYE / 2, EYE) if name in EQUATIONS else (EYE / 2, EYE / 2, EYE)
    with pytest.raises(MissingDependencyError, match=rf"^{name}: slycot is not installed.*default"):
        getattr(gramians, name)(*arguments, backend="slycot")
    system = DenseSystem(EYE / 2, np.ones((2, 1)), np.ones((1, 2)))
    for function in (gramians.controllability_gramian, gramians.observability_gramian):
        with pytest.raises(MissingDependencyError, match="slycot is not installed"):
            function(system, backend="slycot")
        function(system, backend="scipy")  # the others need nothing


def test_split_refusals():
    close = DenseSystem([[0.9, 1e12], [0.0, 1.1]], [[1], [1]], [[1, 1]])
    for arguments, options, error, problem, cure in (
        ((EYE,), {}, UnsupportedOperationError, "not a system", "from_control"),
        ((STABLE, 0.0), {}, DataError, "boundary is not usable", "> 0"),
        ((STABLE, np.nan), {}, DataError, "boundary is not usable", "> 0"),
        ((CONTINUOUS, 1j), {}, DataError, "boundary is not usable", "real number"),
        ((STABLE,), {"limit": -1}, DataError, "limit is not usable", "> 0"),
        ((close,), {}, AccuracyError, "too close", "another boundary"),
        ((DenseSystem([[1.0]], [[1]], [[1]]),), {}, AccuracyError, "on the boundary", "another"),
    ):
        with pytest.raises(error, match=f"^spectral_split: .*{problem}") as caught:
            spectral_split(*arguments, **options)
        assert cure in str(caught.value)


def test_nothing_is_written_to_the_arguments():
    """In place work inside would show on arrays that are passed on as they are."""
    rng = np.random.default_rng(0)
    A, W, B = rng.normal(size=(3, 3)) / 4, np.eye(3), rng.normal(size=(3, 2))
    kept = [M.copy() for M in (A, W, B)]
    for backend in ("ssmred", "scipy", "slycot"):
        gramians.stein(A, W, backend=backend)
        gramians.lyapunov(A - 2 * W, W, backend=backend)
        gramians.sylvester(A, A + 3 * W, W, backend=backend)
        gramians.discrete_sylvester(A, A, W, backend=backend)
    gramians.stein_factor(A, B)
    gramians.lyapunov_factor(A - 2 * W, B)
    for M, copy in zip((A, W, B), kept, strict=True):
        np.testing.assert_array_equal(M, copy)
