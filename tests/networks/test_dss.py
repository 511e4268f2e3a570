"""The DSS layer of gated-state-spaces-pytorch, alone and inside its gated layer."""

import copy
import warnings

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from gated_state_spaces_pytorch.gss import DSS, GSS

from ssmred.errors import CheckpointError, OrderError
from ssmred.networks.adapters.dss import DSSAdapter, read_dss, recognises_tensors
from ssmred.networks.adapters.s4_names import recognises_tensors as is_s4
from ssmred.networks.adapters.s4d_reading import recognises_tensors as is_s4d
from ssmred.networks.cores import full_core
from ssmred.systems import DiagonalSystem

# rounding of a float64 evaluation, relative to the size of the terms
ROUNDING = 1e-13
# of a layer's outputs against its drop-in's, which are of size ten
FORWARD = {torch.float32: 2e-4, torch.float64: 1e-11}
ACCURACY = {torch.float32: 1e-6, torch.float64: 1e-12}


def layer(dtype=torch.float64, seed=0, **options):
    torch.manual_seed(seed)
    options = {"dim": 6, "kernel_N": 8} | options
    return DSS(**options).to(dtype).eval()


def kernels(module, length):
    """Return what the class computes in float64 on impulses, without its norm and D."""
    bare = copy.deepcopy(module).double()
    bare.norm = nn.Identity()
    impulse = torch.zeros(1, length, module.param_D.numel(), dtype=torch.float64)
    impulse[:, 0] = 1.0
    with torch.no_grad():
        bare.param_D.zero_()
        return bare(impulse)[0].T.numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("imag_exp", [True, False])
def test_hundred_instances(imag_exp, dtype):
    """Twenty layers of five channels each."""
    adapter = DSSAdapter()
    for seed in range(20):
        module = layer(dtype, seed, dim=5, dss_kernel_lambda_imag_exp=imag_exp)
        assert adapter.recognises(module)
        system = adapter.to_systems(module)["core"]
        got = system.replace(D=0 * system.D).impulse_response(120)[..., 0, 0]
        wanted = kernels(module, 120)
        scale = np.abs(wanted).max(axis=-1, keepdims=True)
        # angles up to 20 radians per step are rounded before they are multiplied by the step
        assert (np.abs(got - wanted) / scale).max() <= ACCURACY[torch.float64] * 10
        written = adapter.from_systems(module, {"core": system})
        assert (np.abs(kernels(written, 120) - got) / scale).max() <= ACCURACY[dtype]


def test_system_against_fifty_digits():
    module = layer(torch.float32)
    stored = {n: t.double().numpy() for n, t in module.state_dict().items()}
    got = read_dss(module.state_dict(), imag_exp=True)["core"].impulse_response(60)[..., 0, 0]
    with mpmath.workdps(50):
        for h in range(6):
            for k in (0, 1, 59):
                total, size = mpmath.mpf(0), mpmath.mpf(0)
                for i in range(8):
                    real, imag = (mpmath.exp(stored[f"Lambda_{p}"][i]) for p in ("real", "imag"))
                    A = mpmath.mpc(-real, imag)
                    C = mpmath.mpc(stored["C_real"][h, i], stored["C_imag"][h, i])
                    term = C * (mpmath.exp(A) - 1) / A
                    total += mpmath.re(term * mpmath.exp(A * k))
                    size += abs(term) * abs(A)
                total += stored["param_D"][h] if k == 0 else 0
                assert abs(got[h, k] - total) <= ROUNDING * (size + abs(stored["param_D"][h]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drop_in_alone_and_inside_the_gated_layer(dtype):
    module, adapter = layer(dtype), DSSAdapter()
    block = adapter.to_block(module, {"core": full_core(adapter.to_systems(module)["core"])})
    assert block.before is module.norm
    x = torch.randn(2, 40, 6, dtype=dtype)
    with torch.no_grad():
        assert (module(x) - block(x)).abs().max() <= FORWARD[dtype]
    torch.manual_seed(1)
    gated = GSS(dim=6, dss_kernel_N=8, dss_kernel_H=5, reverse_seq=True).to(dtype).eval()
    assert not adapter.recognises(gated)
    other = copy.deepcopy(gated)
    system = adapter.to_systems(gated.dss)["core"]
    other.dss = adapter.to_block(gated.dss, {"core": full_core(system)})
    with torch.no_grad():
        assert (gated(x) - other(x)).abs().max() <= FORWARD[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reduced_layer_is_written_back(dtype):
    """Channels keep different modes; the layer gets those that any of them has."""
    module, adapter = layer(dtype), DSSAdapter()
    system = adapter.to_systems(module)["core"]
    rows = np.array([[0, 1], [1, 2], [0, 2], [2, 1], [0, 1], [1, 0]])
    take = np.arange(6)[:, None]
    C = 1.5 * system.C[take, 0, rows]
    reduced = system.replace(
        poles=system.poles[take, rows], B=system.B[take, rows], C=C[:, None, :]
    )
    plain = adapter.from_systems(module, {"core": reduced}, states=8)
    assert plain.C_real.shape == (6, 4)
    wanted = reduced.replace(D=0 * reduced.D).impulse_response(80)[..., 0, 0]
    scale = np.abs(wanted).max(axis=-1, keepdims=True)
    assert (np.abs(kernels(plain, 80) - wanted) / scale).max() <= ACCURACY[dtype]
    fresh = layer(dtype, kernel_N=4)
    fresh.load_state_dict(plain.state_dict())
    for states in (3, 4):
        with pytest.raises(OrderError, match="an even number >= 6"):
            adapter.from_systems(module, {"core": reduced}, states=states)


@pytest.mark.parametrize("imag_exp", [True, False])
def test_poles_that_moved(imag_exp):
    module, adapter = layer(dss_kernel_lambda_imag_exp=imag_exp), DSSAdapter()
    rng = np.random.default_rng(0)
    poles = rng.uniform(0.3, 0.95, (6, 2)) * np.exp(1j * rng.uniform(-3, 3, (6, 2)))
    system = DiagonalSystem(
        poles, np.ones((6, 2)), rng.normal(size=(6, 2)) + 1j, np.ones(6),
        recurrence="post-update", real_output=True,
    )  # fmt: skip
    plain = adapter.from_systems(module, {"core": system})
    wanted = system.replace(D=0 * system.D).impulse_response(50)[..., 0, 0]
    np.testing.assert_allclose(kernels(plain, 50), wanted, atol=1e-12)
    for bad in (0.0, 1.0, 1.5j, *((0.5,) if imag_exp else ())):
        with pytest.raises(CheckpointError, match="a pole has no parameters"):
            adapter.from_systems(module, {"core": system.replace(poles=0 * poles + bad)})


def test_what_is_recognised():
    module = layer()
    shapes = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    assert recognises_tensors(shapes)
    assert not is_s4(shapes)
    assert not is_s4d(shapes)
    assert not DSSAdapter().recognises(nn.LayerNorm(4))
    other = copy.deepcopy(module)
    other.extra = nn.Linear(6, 6)
    assert not DSSAdapter().recognises(other)


def test_bad_input():
    module = layer()
    tensors = dict(module.state_dict())
    with pytest.raises(CheckpointError, match="do not tell whether Lambda_imag"):
        read_dss(tensors)
    for name in ("Lambda_real", "Lambda_imag", "C_real", "C_imag", "param_D"):
        if name != "Lambda_real":
            with pytest.raises(CheckpointError, match=f"{name} is missing"):
                read_dss({n: t for n, t in tensors.items() if n != name}, imag_exp=True)
        with pytest.raises(CheckpointError, match=f"{name} holds nan"):
            read_dss(tensors | {name: tensors[name] * float("nan")}, imag_exp=True)
        with pytest.raises(CheckpointError, match="has the wrong shape"):
            read_dss(tensors | {name: tensors[name][..., :-1]}, imag_exp=True)
    with pytest.raises(CheckpointError, match="out of range"):
        read_dss(tensors | {"Lambda_real": tensors["Lambda_real"] - 1e4}, imag_exp=True)


def test_another_forward_is_an_error():
    class Doubled(DSS):
        def forward(self, x):
            return 2 * super().forward(x)

    class Shortcut(DSS):
        def forward(self, x):
            return super().forward(x) if isinstance(self.norm, nn.Identity) else x

    module = Doubled(dim=4, kernel_N=4)
    with pytest.raises(CheckpointError, match="is not that of its weights"):
        DSSAdapter().to_systems(module)
    module = Shortcut(dim=4, kernel_N=4)
    system = DSSAdapter().to_systems(module)["core"]
    with pytest.raises(CheckpointError, match="computes otherwise"):
        DSSAdapter().to_block(module, {"core": full_core(system)})
