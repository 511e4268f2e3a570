"""The limit on BLAS threads is lifted by the last one inside, whatever the order of leaving."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ssmred.kernels.blas import SMALL, blas_threads, with_blas_threads


def threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_small_orders_use_one_thread_and_large_ones_what_there_was():
    with threadpool_limits(2, user_api="blas"):
        with blas_threads(SMALL - 1):
            assert threads() == {1}
        with blas_threads(SMALL):
            assert threads() == {2}
        assert threads() == {2}


def test_the_last_to_leave_lifts_the_limit():
    with threadpool_limits(2, user_api="blas"):
        first, second = blas_threads(3), blas_threads(4)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_errors_lift_it_too():
    @with_blas_threads
    def fails(A):
        assert threads() == {1}
        raise ValueError(A.shape)

    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ValueError, match="2, 2"):
            fails(np.eye(2))
        assert threads() == {2}
