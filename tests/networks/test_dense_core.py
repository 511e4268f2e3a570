"""The core of dense channels: against the recurrence, many digits, and itself step by step."""

import mpmath
import numpy as np
import pytest
import torch

from ssmred.errors import CheckpointError, OrderError, ShapeError
from ssmred.networks import DenseSSM
from ssmred.systems import DenseSystem, DiagonalSystem

AGREEMENT = 1e-12  # float64, relative to the sizes of the terms that are summed


def dense(seed=0, *, H=3, n=4, late=False, orders=None):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((H, n, n))
    A /= rng.uniform(1.0, 2.0) * np.abs(np.linalg.eigvals(A)).max(axis=-1)[:, None, None]
    B, C, D = rng.standard_normal((H, n)), rng.standard_normal((H, n)), rng.standard_normal(H)
    if orders is not None:
        used = np.arange(n) < np.asarray(orders)[:, None]
        A, B, C = A * used[:, :, None] * used[:, None, :], B * used, C * used
    return DenseSSM(A, B, C, D, orders=orders, delayed=late)


def size_of(layer, T):
    """Return the sum of ``||C A^j|| ||A^k B||``, which rounding is relative to."""
    A, B, C = (t.detach().numpy() for t in (layer.A, layer.B, layer.C))
    growth = np.ones(len(A))
    power = np.eye(A.shape[1])
    for _ in range(T):
        growth = np.maximum(growth, np.linalg.norm(power, axis=(-2, -1)))
        power = power @ A
    return T * float(
        (growth**2 * np.linalg.norm(B, axis=1) * np.linalg.norm(C, axis=1)).max()
        + layer.D.detach().abs().max()
    )


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(100))
def test_convolution_and_steps_are_the_recurrence(seed, late):
    rng = np.random.default_rng(seed)
    H, n = int(rng.integers(1, 5)), int(rng.integers(1, 6))
    T = int(rng.choice([1, 2, 3, 50]))
    layer = dense(seed, H=H, n=n, late=late)
    u = rng.uniform(-1, 1, (2, H, T))
    wanted = layer.to_system().simulate(u[..., None])[..., 0]
    margin = AGREEMENT * size_of(layer, T)
    with torch.no_grad():
        x = torch.from_numpy(u)
        assert np.abs(layer(x).numpy() - wanted).max() <= margin
        state, outputs = layer.initial_state(2), []
        for k in range(T):
            y, state = layer.step(x[..., k], state)
            outputs.append(y)
        assert np.abs(torch.stack(outputs, -1).numpy() - wanted).max() <= margin
        response = layer.to_system().impulse_response(T)[..., 0, 0]
        assert np.abs(layer.kernel(T).numpy() - response).max() <= margin


def test_a_defective_channel_against_many_digits():
    """A Jordan block: no diagonal form holds it."""
    jordan = 0.9 * np.eye(4) + np.diag(np.ones(3), 1)
    layer = DenseSSM(jordan[None], np.ones((1, 4)), np.ones((1, 4)))
    kernel = layer.kernel(100).detach().numpy()[0]
    with mpmath.workdps(50):
        A = mpmath.matrix(jordan.tolist())
        x = mpmath.matrix([1, 1, 1, 1])
        for k in range(100):
            exact = sum(x)
            assert abs(kernel[k] - exact) <= AGREEMENT * abs(exact)
            x = A * x


def test_ragged_orders_and_padding():
    layer = dense(1, orders=[4, 0, 2])
    assert layer.states == 6
    again = DenseSSM.from_system(layer.to_system())
    assert again.orders.tolist() == [4, 0, 2]
    assert torch.equal(again.kernel(9), layer.kernel(9))
    cut = DenseSSM.from_system(layer.to_system(), orders=[1, 0, 2])
    assert (cut.states, tuple(cut.A.shape)) == (3, (3, 2, 2))
    other = dense(2)
    other.load_state_dict(cut.state_dict())
    assert torch.equal(other.kernel(9), cut.kernel(9))
    for wrong in ([5, 0, 0], [1, 1], [1.5, 0, 0]):
        with pytest.raises(OrderError, match="orders"):
            DenseSSM.from_system(layer.to_system(), orders=wrong)
    with pytest.raises(OrderError, match="zeros beyond"):
        DenseSSM(layer.A, layer.B, layer.C, orders=[1, 0, 2])
    stored = cut.state_dict() | {"orders": torch.tensor([1, 0, 1])}
    with pytest.raises(CheckpointError, match="orders does not fit"):
        dense(2).load_state_dict(stored)
    with pytest.raises(CheckpointError, match="B does not fit"):
        dense(2).load_state_dict(cut.state_dict() | {"B": cut.B[:2]})


def test_complex_systems_become_real_ones():
    rng = np.random.default_rng(0)
    poles = 0.9 * np.exp(1j * rng.uniform(-3, 3, (2, 3)))
    B, C = (rng.standard_normal((2, 3)) + 1j * rng.standard_normal((2, 3)) for _ in range(2))
    system = DiagonalSystem(poles, B, C, recurrence="post-update", real_output=True)
    layer = DenseSSM.from_system(system)
    assert layer.states == 12
    gap = layer.kernel(30).detach().numpy() - system.impulse_response(30)[..., 0, 0]
    assert np.abs(gap).max() <= AGREEMENT * np.abs(B * C).sum()
    assert not dense().to_system().real_output


def test_wrong_forms_are_refused():
    good = dense().to_system()
    for wrong in (
        good.replace(A=good.A[0], B=good.B[0], C=good.C[0], D=good.D[0]),
        DenseSystem(good.A, np.ones((3, 4, 2)), good.C),
        good.replace(B=1j * good.B),
        "no system",
    ):
        with pytest.raises(ShapeError, match="dense channels"):
            DenseSSM.from_system(wrong)
    with pytest.raises(ShapeError, match="dense channels"):
        DenseSSM.from_system(good, kept=np.ones((3, 4), bool))
    with pytest.raises(ShapeError, match="fit each other"):
        DenseSSM(good.A, good.B, good.C)
    layer = dense()
    with pytest.raises(ShapeError, match=r"DenseSSM\.step"):
        layer.step(torch.ones(1, 2), layer.initial_state())
    with pytest.raises(ShapeError, match="input does not fit"):
        layer(torch.ones(1, 2, 5))


def test_gradients_and_precision():
    layer = dense(3, H=2, n=2)
    u = torch.randn(1, 2, 5, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]

    def output(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (u,))

    values = tuple(p.detach().clone().requires_grad_() for p in layer.parameters())
    assert torch.autograd.gradcheck(output, values)
    assert layer.half().A.dtype == torch.float64
    assert layer(u.float()).dtype == torch.float32
