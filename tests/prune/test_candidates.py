"""run_all: the order of the jobs, their threads and errors, here, in processes and on a cluster."""

import os
import sys
from functools import partial

import joblib
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from toys import Bias, numbered, same, state

from ssmred.errors import DivergenceError, MissingDependencyError, OrderError, RequestError
from ssmred.prune import Training, run_all, train


def where(k):
    return k, os.getpid(), torch.get_num_threads()


def fail(k):
    if k == 1:
        raise DivergenceError("too fast")
    return k


def trained(seed):
    model = Bias()
    train(model, numbered(), Training(epochs=2, rate=0.1, keep_start=False), seed=seed)
    return state(model)


def jobs(function, count=3):
    return [partial(function, k) for k in range(count)]


def test_one_after_another_here():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run_all(jobs(where)) == [(k, os.getpid(), 1) for k in range(3)]
        assert torch.get_num_threads() == 2
        assert run_all(jobs(where), threads=3)[0][2] == 3
    finally:
        torch.set_num_threads(threads)
    assert run_all([]) == []


def test_progress(capsys):
    told = []
    run_all(jobs(where), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    run_all(jobs(where), progress=True)
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(("names", "note"), [(None, ""), (list("abc"), r" \(b\)")])
def test_errors_name_their_candidate(names, note):
    with pytest.raises(DivergenceError, match=rf"too fast\ncandidate 2 of 3{note}$"):
        run_all(jobs(fail), names=names)


def test_two_processes():
    """Two workers: closures too, results as here, errors with their names."""
    try:
        places = run_all([lambda k=k: where(k) for k in range(4)], workers=2)
        assert [k for k, _, _ in places] == [0, 1, 2, 3]
        assert os.getpid() not in {pid for _, pid, _ in places}
        assert {threads for _, _, threads in places} == {1}
        for one, two in zip(run_all(jobs(trained)), run_all(jobs(trained), workers=2), strict=True):
            assert same(one, two)
        with pytest.raises(DivergenceError, match=r"too fast\ncandidate 2 of 3$"):
            run_all(jobs(fail), workers=2)
    finally:
        get_reusable_executor().shutdown(wait=True)


@pytest.mark.parametrize(
    "processes", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["thread", "process"]
)
def test_a_cluster_of_one_place(processes, monkeypatch, tmp_path):
    """joblib alone would run the jobs here, in the main thread, and never ask the cluster."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)  # dask's scratch files
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=processes, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        addresses = run_all([_worker] * 2)
        assert set(addresses) == set(cluster.scheduler_info["workers"])
        for one, two in zip(run_all(jobs(trained)), map(trained, range(3)), strict=True):
            assert same(one, two)
        with pytest.raises(DivergenceError, match="too fast"):
            run_all(jobs(fail))


def _worker():
    from distributed import get_worker

    return get_worker().address


def test_refusals(monkeypatch):
    with pytest.raises(OrderError, match="workers is not usable"):
        run_all(jobs(where), workers=0)
    with pytest.raises(RequestError, match="expected 3 names, got 2"):
        run_all(jobs(where), names=["a", "b"])
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ssmred\[prune\]'"):
        run_all(jobs(where), workers=2)
    assert [k for k, _, _ in run_all(jobs(where))] == [0, 1, 2]
