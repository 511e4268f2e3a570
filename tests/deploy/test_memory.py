"""Counted bytes against sums made by hand."""

from __future__ import annotations

import torch
from torch import nn

from ssmred.deploy.memory import parameter_bytes, peak_bytes, peak_forward_bytes


def test_parameters_and_buffers_are_counted_at_their_own_width():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    # 6 + 2 float32, then weight, bias, mean, variance of 2 float32 and one int64 counter.
    assert parameter_bytes(model) == 4 * 8 + 4 * 8 + 8
    assert parameter_bytes(nn.Linear(3, 2).double()) == 8 * 8


def test_a_shared_weight_is_counted_once():
    first, second = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
    second.weight = first.weight
    assert parameter_bytes(nn.Sequential(first, second)) == 4 * 25


def test_the_peak_is_the_largest_sum_of_live_blocks():
    def call() -> torch.Tensor:
        first = torch.zeros(1000)  # 4000 B live
        second = torch.zeros(500)  # 6000 B live
        del first  # 2000 B live
        third = torch.zeros(2000)  # 10000 B live: the peak
        del second
        return third

    assert peak_bytes(call) == 10_000


def test_what_was_allocated_before_is_not_counted():
    before = torch.zeros(10_000)
    assert peak_bytes(lambda: before.add_(1.0)) < 100


def test_a_temporary_inside_an_operation_is_counted():
    x = torch.zeros(4096)
    # One number comes out, but the exponentials are written down on the way.
    assert peak_bytes(lambda: torch.logsumexp(x, 0)) >= 4 * 4096


def test_the_first_pass_makes_the_cache_that_later_passes_find():
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = None

        def train(self, mode: bool = True) -> Cached:
            self.kept = None
            return super().train(mode)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.kept is None:
                self.kept = torch.ones(1000)
            return x + 1.0

    first, later = peak_forward_bytes(Cached().eval(), torch.zeros(10))
    assert first - later == 4000


def test_the_profiler_keeps_quiet(capfd):
    peak_bytes(lambda: torch.zeros(3))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
