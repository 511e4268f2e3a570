"""S5 and LRU tensors from files: published answers, every layout, what is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shared_layers import KINDS, MODES, impulses

from ssmred.errors import CheckpointError, UnsupportedOperationError
from ssmred.networks.adapters import lru, s5
from ssmred.networks.adapters.lru import read_lru
from ssmred.networks.adapters.s4_names import recognises_tensors as is_s4
from ssmred.networks.adapters.s5 import read_s5
from ssmred.networks.adapters.shared_checks import respond


def tree(seed: int = 0, *, two_ways: bool = False, apart: bool = False) -> dict[str, np.ndarray]:
    """Return the original's parameters: 5 poles, 3 features."""
    rng = np.random.default_rng(seed)
    values = {
        "Lambda_re": -rng.uniform(0.1, 1.0, 5),
        "Lambda_im": rng.normal(size=5),
        "B": rng.normal(size=(5, 3, 2)),
        "D": rng.normal(size=3),
        "log_step": rng.uniform(-4, -1, (5, 1)),
    }
    if apart:
        return values | {"C1": rng.normal(size=(3, 5, 2)), "C2": rng.normal(size=(3, 5, 2))}
    return values | {"C": rng.normal(size=(3, 10 if two_ways else 5, 2))}


def unit(seed: int = 0) -> dict[str, np.ndarray]:
    """Return the parameters of a minimal LRU: 5 poles, 3 features."""
    rng = np.random.default_rng(seed)
    values = {name: rng.uniform(-2.0, 0.5, 5) for name in ("nu_log", "theta_log", "gamma_log")}
    values |= {name: rng.normal(size=(5, 3)) for name in ("B_re", "B_im")}
    values |= {name: rng.normal(size=(3, 5)) for name in ("C_re", "C_im")}
    return values | {"D": rng.normal(size=3)}


def pairs(values: np.ndarray) -> np.ndarray:
    return values[..., 0] + 1j * values[..., 1]


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
@pytest.mark.parametrize("conj_sym", [True, False])
def test_the_originals_tree_says_what_its_formulas_say(rule, conj_sym):
    p = tree()
    system = read_s5(p, discretisation=rule, conj_sym=conj_sym)["core"]
    rate, step = p["Lambda_re"] + 1j * p["Lambda_im"], np.exp(p["log_step"][:, 0])
    if rule == "zoh":
        pole = np.exp(rate * step)
        B = ((pole - 1) / rate)[:, None] * pairs(p["B"])
    else:
        pole = (1 + rate * step / 2) / (1 - rate * step / 2)
        B = (step / (1 - rate * step / 2))[:, None] * pairs(p["B"])
    C = (2 if conj_sym else 1) * pairs(p["C"])
    response = system.impulse_response(6)
    for k in range(6):
        wanted = (C @ np.diag(pole**k) @ B).real + (np.diag(p["D"]) if k == 0 else 0)
        np.testing.assert_allclose(response[0, k], wanted, atol=1e-13)


@pytest.mark.parametrize("apart", [True, False])
def test_both_ways_in_either_layout(apart):
    p = tree(two_ways=True, apart=apart)
    systems = read_s5(p)
    assert set(systems) == {"core", "backward"}
    second = p["C2"] if apart else p["C"][:, 5:]
    np.testing.assert_allclose(systems["backward"].C[0], 2 * pairs(second))
    assert not systems["backward"].D.any()


@pytest.mark.parametrize("separator", [".", "/"])
def test_files_with_prefixes_and_other_keys(tmp_path, separator):
    nested = {f"encoder{separator}layers_0{separator}{k}": v for k, v in tree().items()}
    np.savez(tmp_path / "x.npz", **nested, other=np.ones(3))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        found = read_s5(dict(file))["core"]
    np.testing.assert_array_equal(found.poles, read_s5(tree())["core"].poles)
    save_file({k: torch.from_numpy(v) for k, v in nested.items()}, tmp_path / "x.safetensors")
    stored = load_file(tmp_path / "x.safetensors")
    assert s5.recognises_tensors({k: tuple(v.shape) for k, v in stored.items()})
    np.testing.assert_array_equal(found.B, read_s5(stored)["core"].B)


def test_minimal_lru_says_what_its_formulas_say():
    p = unit()
    response = read_lru({f"params/seq/{k}": v for k, v in p.items()})["core"].impulse_response(6)
    pole = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
    B = np.exp(p["gamma_log"])[:, None] * (p["B_re"] + 1j * p["B_im"])
    C = p["C_re"] + 1j * p["C_im"]
    late = read_lru(p, delayed=True)["core"].impulse_response(6)
    for k in range(6):
        direct = np.diag(p["D"]) if k == 0 else 0
        wanted = (C @ np.diag(pole**k) @ B).real
        np.testing.assert_allclose(response[0, k], wanted + direct, atol=1e-13)
        before = (C @ np.diag(pole ** (k - 1)) @ B).real if k else 0
        np.testing.assert_allclose(late[0, k], before + direct, atol=1e-13)


@pytest.mark.parametrize("name", KINDS)
def test_tensors_alone_say_what_the_adapter_says(name):
    kind = KINDS[name]
    torch.manual_seed(0)
    module = kind.make(MODES).eval()
    settings = kind.adapter._agreement(module).candidate.settings
    tensors = {f"net.blocks.1.{k}": v for k, v in module.state_dict().items()}
    if "LRU" in type(kind.adapter).__name__:
        got = read_lru(tensors, delayed=settings.delayed, doubled=settings.doubled)
    else:
        got = read_s5(
            tensors,
            discretisation=settings.discretisation,
            conj_sym=settings.conj_sym,
            clip_eigs=settings.clip_eigs,
        )
    u = np.zeros((3, 20, 3))
    u[np.arange(3), 3, np.arange(3)] = 1.0
    wanted = impulses(kind, module, 3, 20)
    assert np.linalg.norm(respond(got, u) - wanted) <= 1e-12 * np.linalg.norm(wanted)


def test_families_do_not_take_each_other_for_themselves():
    shapes = {k: v.shape for k, v in tree().items()}
    units = {k: v.shape for k, v in unit().items()}
    assert s5.recognises_tensors(shapes)
    assert lru.recognises_tensors(units)
    assert not s5.recognises_tensors(units)
    assert not lru.recognises_tensors(shapes)
    assert not is_s4(shapes)
    assert not is_s4(units)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"D": np.ones(4)}, "D has the wrong shape"),
        ({"B": np.ones((5, 3))}, "B has the wrong shape"),
        ({"C": np.ones((3, 7, 2))}, "C has the wrong shape"),
        ({"Lambda_im": np.full(5, np.nan)}, "Lambda_im holds nan or inf"),
        ({"log_step": np.ones((4, 1))}, "log_step has the wrong shape"),
        ({"D": np.ones(3, dtype=np.int64)}, "D does not hold floating-point numbers"),
        ({"mystery": np.ones(3)}, "mystery is not of this layer"),
    ],
)
def test_bad_s5_tensors_are_named(change, problem):
    with pytest.raises(CheckpointError, match=problem):
        read_s5({f"layer.{k}": v for k, v in (tree() | change).items()})


@pytest.mark.parametrize("missing", ["Lambda_re", "B", "C", "D", "log_step"])
def test_missing_s5_tensors_are_named(missing):
    values = tree()
    del values[missing]
    with pytest.raises(CheckpointError, match=f"layer/{missing} is missing"):
        read_s5({f"layer/{k}": v for k, v in values.items()})


@pytest.mark.parametrize("missing", ["nu_log", "theta_log", "B_im", "C_re", "D"])
def test_missing_lru_tensors_are_named(missing):
    values = unit()
    del values[missing]
    with pytest.raises(CheckpointError, match=f"layer.{missing} is missing"):
        read_lru({f"layer.{k}": v for k, v in values.items()})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"D": np.ones((3, 4))}, "D has the wrong shape"),
        ({"C_re": np.ones((3, 4))}, "C_re has the wrong shape"),
        ({"gamma_log": np.full(5, np.inf)}, "gamma_log holds nan or inf"),
        ({"nu_log": np.full(5, -50.0)}, "nu_log is out of range"),
        ({"theta_log": np.full(5, 800.0)}, "theta_log is out of range"),
        ({"B_im": np.ones((5, 3)) * 1j}, "B_im is complex"),
    ],
)
def test_bad_lru_tensors_are_named(change, problem):
    with pytest.raises(CheckpointError, match=problem):
        read_lru(unit() | change)


def test_an_angle_of_zero_is_read():
    values = unit()
    values["theta_log"][2] = -np.inf
    assert read_lru(values)["core"].poles[0, 2].imag == 0.0


@pytest.mark.parametrize("read", [read_s5, read_lru])
def test_selective_layers_and_two_layers_are_refused(read):
    with pytest.raises(CheckpointError, match=r"no (S5|LRU) layer"):
        read({})
    mamba = {f"mixer.{n}": np.ones((4, 4)) for n in ("A_log", "x_proj.weight", "dt_proj.weight")}
    with pytest.raises(UnsupportedOperationError, match="selective"):
        read(mamba | {"mixer.conv1d.weight": np.ones((4, 1, 4)), "mixer.D": np.ones(4)})
    one = tree() if read is read_s5 else unit()
    with pytest.raises(CheckpointError, match="more than one"):
        read({f"{k}.{n}": v for k in "ab" for n, v in one.items()})
