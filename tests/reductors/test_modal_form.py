"""Dense channels by way of their modes: HiPPO systems, defective ones, refusals."""

import numpy as np
import pytest
import scipy.signal
import torch

from ssmred.errors import AccuracyError, UnstableSystemError, UnsupportedOperationError
from ssmred.networks import export
from ssmred.networks.layers import S4
from ssmred.norms import h2_norm
from ssmred.reductors import modal_form
from ssmred.reductors.modal_form import closest
from ssmred.systems import DenseSystem
from ssmred.systems.diagonalisation import diagonalised

pytestmark = pytest.mark.theorem("modal-form")

CHANNELS, STATES, LENGTH = 6, 32, 128
HIPPO_ERROR = 1e-6
"""What `modal_form` promises."""


def legs(states: int) -> DenseSystem:
    """Return HiPPO-LegS as published, one channel per step, by SciPy's bilinear map."""
    n = np.arange(states)
    size = np.sqrt(2.0 * n + 1.0)
    A = -np.tril(np.outer(size, size), -1) - np.diag(n + 1.0)
    rng = np.random.default_rng(0)
    C = rng.standard_normal((1, states))
    found = [
        scipy.signal.cont2discrete((A, size[:, None], C, np.zeros((1, 1))), dt, "bilinear")
        for dt in (1e-3, 1e-2, 1e-1)
    ]
    A, B, C, D = (np.stack([channel[k] for channel in found]) for k in range(4))
    return DenseSystem(A, B, C, D)


def random_system(seed: int, *, order: int = 7, recurrence: str = "post-update") -> DenseSystem:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((5, order, order))
    A *= 0.95 / np.abs(np.linalg.eigvals(A)).max(axis=-1)[:, None, None]
    B, C = rng.standard_normal((5, order, 1)), rng.standard_normal((5, 1, order))
    return DenseSystem(A, B, C, rng.standard_normal((5, 1, 1)), recurrence=recurrence)


def distance(one, other, length: int) -> np.ndarray:
    """Return how far two responses are apart, relative to the first, by their samples alone."""
    a, b = one.impulse_response(length)[..., 0, 0], other.impulse_response(length)[..., 0, 0]
    return np.linalg.norm(a - b, axis=-1) / np.linalg.norm(a, axis=-1)


@pytest.mark.parametrize("horizon", [None, LENGTH])
@pytest.mark.parametrize("states", [8, 32, 64])
def test_published_hippo_matrices_keep_their_response(states, horizon):
    system = legs(states)
    form = modal_form(system, horizon=horizon)
    assert form.system.real_output
    assert (form.error <= HIPPO_ERROR).all()
    assert (distance(system, form.system, LENGTH) <= 10 * HIPPO_ERROR).all()


@pytest.mark.parametrize("horizon", [None, LENGTH])
def test_s4_layers_keep_their_response(horizon):
    torch.manual_seed(0)
    system = export(S4(CHANNELS, states=STATES, length=LENGTH))
    form = modal_form(system, horizon=horizon)
    assert (form.error <= HIPPO_ERROR).all()
    assert (distance(system, form.system, LENGTH) <= 10 * HIPPO_ERROR).all()


def test_eigenvectors_and_exact_poles_do_not_serve():
    torch.manual_seed(0)
    layer = export(S4(16, states=64, length=LENGTH))
    eigenvectors = diagonalised(layer, half=True, limit=np.inf).system
    assert distance(layer, eigenvectors, LENGTH).max() > 1e-3
    published = legs(32)
    exact, errors = closest(published, 0.0, h2_norm(published), None)
    assert (errors > 0.1).all()
    assert (distance(published, exact, LENGTH) > 0.1).all()


@pytest.mark.parametrize("recurrence", ["standard", "post-update"])
@pytest.mark.parametrize("seed", range(5))
def test_well_conditioned_systems_keep_every_digit(seed, recurrence):
    system = random_system(seed, recurrence=recurrence)
    form = modal_form(system)
    assert (distance(system, form.system, LENGTH) < 1e-12).all()
    poles = np.linalg.eigvals(system.A)
    for channel, wanted in zip(form.system.poles, poles, strict=True):
        assert all(np.abs(channel - pole).min() < 1e-12 for pole in wanted if pole.imag >= 0)


def test_the_stated_error_is_the_error():
    system = legs(32)
    form = modal_form(system, horizon=LENGTH)
    response = system.impulse_response(LENGTH)[..., 0, 0]
    # large coefficients cancel, so two evaluations of the response are that far apart
    rounding = np.finfo(float).eps * np.abs(form.system.C).sum(axis=(-2, -1)) * LENGTH**0.5
    rounding /= np.linalg.norm(response, axis=-1)
    difference = np.abs(form.error - distance(system, form.system, LENGTH))
    assert (difference <= 1e-6 * form.error + rounding).all()


def test_unstable_systems_need_a_horizon():
    system = random_system(3)
    system = system.replace(A=1.2 * system.A)
    with pytest.raises(UnstableSystemError):
        modal_form(system)
    assert (distance(system, modal_form(system, horizon=40).system, 40) < 1e-9).all()


def test_a_defective_matrix_is_refused():
    A = np.diag(np.full(3, 0.9)) + np.diag(np.ones(2), 1)
    system = DenseSystem(A[None], np.ones((1, 3, 1)), np.ones((1, 1, 3)))
    with pytest.raises(AccuracyError, match="channel 0 do not span"):
        modal_form(system, limit=1e-12)


@pytest.mark.parametrize(
    "system",
    [
        DenseSystem(np.eye(2) / 2, np.ones((2, 1)), np.ones((1, 2))),
        DenseSystem(np.eye(2)[None] / 2, np.ones((1, 2, 2)), np.ones((1, 1, 2))),
        DenseSystem(0.5j * np.eye(2)[None], np.ones((1, 2, 1)), np.ones((1, 1, 2))),
        DenseSystem(-np.eye(2)[None], np.ones((1, 2, 1)), np.ones((1, 1, 2)), dt=0),
    ],
    ids=["no channels", "two inputs", "complex", "continuous"],
)
def test_other_systems_are_refused(system):
    with pytest.raises(UnsupportedOperationError, match="no modal form"):
        modal_form(system)


def test_a_channel_that_is_silent_stays_silent():
    system = random_system(1)
    C = system.C.copy()
    C[2] = 0.0
    D = system.D.copy()
    D[2] = 0.0
    form = modal_form(system.replace(C=C, D=D))
    assert form.error[2] == 0.0
    assert not form.system.C[2].any()
