"""Convolution by real transforms against sums, and its gradients against automatic ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssmred.networks.convolution import convolve


def inputs(T, size, *batch, seed=0):
    torch.manual_seed(seed)
    signal = torch.randn(*batch, 3, T, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, T, dtype=torch.float64, requires_grad=True)
    return signal, kernel, torch.fft.rfft(kernel, n=size)


SIZES = [(1, 1), (1, 2), (5, 9), (5, 10), (16, 31), (16, 40)]


@pytest.mark.parametrize(("T", "size"), SIZES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 4)])
def test_against_sums(T, size, batch):
    signal, kernel, spectrum = inputs(T, size, *batch)
    flat = signal.detach().numpy().reshape(-1, 3, T)
    sums = [[np.convolve(u, h)[:T] for u, h in zip(row, kernel.tolist(), strict=True)]
            for row in flat]  # fmt: skip
    expected = np.reshape(sums, (*batch, 3, T))
    for found in (convolve(signal, spectrum, size), convolve(signal.detach(), spectrum, size)):
        np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-13)
    with torch.no_grad():
        assert not convolve(signal, spectrum, size).requires_grad


@pytest.mark.parametrize(("T", "size"), SIZES)
def test_gradients_are_those_of_the_transforms(T, size):
    signal, kernel, spectrum = inputs(T, size, 2)
    weights = torch.randn(2, 3, T, dtype=torch.float64)
    plain = torch.fft.irfft(torch.fft.rfft(signal, n=size) * spectrum, n=size)[..., :T]
    expected = torch.autograd.grad((weights * plain).sum(), (signal, kernel), retain_graph=True)
    found = torch.autograd.grad((weights * convolve(signal, spectrum, size)).sum(),
                                (signal, kernel))  # fmt: skip
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_gradients_against_differences_and_twice():
    signal, kernel, _ = inputs(4, 7, 2)

    def filtered(u, h):
        return convolve(u, torch.fft.rfft(h, n=7), 7)

    assert torch.autograd.gradcheck(filtered, (signal, kernel))
    assert torch.autograd.gradgradcheck(filtered, (signal, kernel))
    assert torch.autograd.gradcheck(lambda h: filtered(signal.detach(), h), (kernel,))
    assert torch.autograd.gradcheck(lambda u: filtered(u, kernel.detach()), (signal,))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_gradients_of_every_sequence():
    signal, _, spectrum = inputs(6, 12, 4)

    def loss(u):
        return convolve(u, spectrum.detach(), 12).square().sum()

    each = torch.vmap(torch.func.grad(loss))(signal.detach())
    whole = torch.autograd.grad(loss(signal), signal)[0]
    torch.testing.assert_close(each, whole, rtol=1e-12, atol=1e-12)
