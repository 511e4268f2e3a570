"""One thread for small systems: more only wait for each other, and long on a busy machine."""

import numba
import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    with threadpool_limits(1, user_api="blas"):
        yield
    numba.set_num_threads(before)
