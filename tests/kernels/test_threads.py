"""Kernels that share their channels among threads give the same numbers with any number of them."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib
import numpy as np
import numba
from ssmred.gramians import controllability_gramian, hankel_singular_values, stein
from ssmred.norms import h2_norm, hinf_norm
from ssmred.reductors import BalancedReductor, SubsetReductor, single_removal_errors
from ssmred.systems import DiagonalSystem

rng = np.random.default_rng(0)
poles = np.sqrt(rng.uniform(0.1, 0.9, (40, 6))) * np.exp(1j * rng.uniform(0.1, 3, (40, 6)))
B, C = rng.normal(size=(40, 6)), rng.normal(size=(40, 6)) + 1j * rng.normal(size=(40, 6))
system = DiagonalSystem(poles, B, C, recurrence="post-update", real_output=True)
A = rng.normal(size=(40, 6, 6)) / 6
reduced = BalancedReductor(form="dense").reduce(system, order=3).system
results = [
    controllability_gramian(system), hankel_singular_values(system), h2_norm(system),
    hinf_norm(system).upper, SubsetReductor(horizon=50).path(system).errors,
    single_removal_errors(system), reduced.A, stein(A, np.stack([np.eye(6)] * 40)).X,
]
digest = hashlib.sha256(b"".join(np.ascontiguousarray(r).tobytes() for r in results))
print(numba.get_num_threads(), digest.hexdigest())
"""


def answers(threads):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    count, digest = found.stdout.split()
    assert int(count) == threads
    return digest


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    assert answers(threads) == answers(1)
