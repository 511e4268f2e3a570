"""Published norms of systems with quadratic outputs."""

import numpy as np
import pytest
from published import CASES, parts

from ssmred.gramians import controllability_gramian, observability_gramian
from ssmred.norms import h2_error, h2_inner, h2_norm
from ssmred.systems import QuadraticOutputSystem


def test_lqo_no_linear_output():
    data, expected, tolerance = parts(CASES["lqo_no_linear_output"])
    rtol = tolerance["rtol"]
    A, B, C, M = (np.array(data[name]) for name in "ABCM")
    full = QuadraticOutputSystem(A, B, C, M, dt=0)
    r = data["truncation_order"]
    reduced = QuadraticOutputSystem(A[:r, :r], B[:r], C[:, :r], M[:, :r, :r], dt=0)
    assert h2_norm(full) ** 2 == pytest.approx(expected["h2norm_squared"], rel=rtol)
    inner = expected["h2inner_with_leading_1x1_truncation"]
    assert h2_inner(full, reduced) == pytest.approx(inner, rel=rtol)
    assert h2_error(full, reduced) ** 2 == pytest.approx(
        expected["derived_error_squared"], rel=rtol
    )
    for function, name in ((controllability_gramian, "P"), (observability_gramian, "Q")):
        np.testing.assert_allclose(function(full), expected[name], rtol=rtol)
