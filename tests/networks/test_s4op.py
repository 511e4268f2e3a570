"""S4oP checkpoints in both forms, against a recurrence written out here."""

import math

import numpy as np
import pytest
import torch
from foreign_s4 import BlockV4
from torch.nn import functional as F

from ssmred.errors import CheckpointError, UnsupportedOperationError
from ssmred.networks import ReducedSSM
from ssmred.networks.adapters.s4op import read_s4op, recognises_checkpoint
from ssmred.networks.adapters.s4op_network import network_from_s4op
from ssmred.networks.dense_core import DenseSSM

H, MODES, DEPTH, CLASSES, VOCABULARY = 6, 3, 3, 4, 11
# float64 outputs of size one after three layers; the reference runs step by step
AGREEMENT = 1e-11


def tensors_of_layer(family, index, generator):
    """Return a full layer, all rows."""
    prefix = f"{family}_layers.{index}."

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if family == "s4":
        block = BlockV4(H, states=2 * MODES, mode="dplr", seed=index)
        if index:  # the first was never called
            block.layer.kernel.make_for(20 + index)
        own = {n: t.detach().clone().double() for n, t in block.state_dict().items()}
        own["layer.kernel.l_kernel"] = block.layer.kernel.l_kernel.clone()
        own["output_linear.0.weight"] = draw(2 * H, H) / math.sqrt(H)
        own["output_linear.0.bias"] = draw(2 * H)
    else:
        own = {
            "D": draw(H),
            "kernel.C": draw(H, MODES, 2),
            "kernel.log_dt": -4.0 + 2.0 * torch.rand(H, generator=generator, dtype=torch.float64),
            "kernel.log_A_real": -0.7 + 0.2 * draw(H, MODES),
            "kernel.A_imag": 3.0 * draw(H, MODES),
            "output_linear.0.weight": draw(2 * H, H, 1) / math.sqrt(H),
            "output_linear.0.bias": draw(2 * H),
        }
    return {f"{prefix}{name}": tensor for name, tensor in own.items()}


def full_state(family, norm="LN", embedding="tokens", head="fc"):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    state = {}
    if embedding == "tokens":
        state["embedding.weight"] = draw(VOCABULARY, H)
    else:
        state |= {"embedding.weight": draw(H, 2), "embedding.bias": draw(H)}
    for i in range(DEPTH):
        state |= tensors_of_layer(family, i, g)
        state |= {f"norms.{i}.weight": 1 + 0.3 * draw(H), f"norms.{i}.bias": draw(H)}
        if norm == "BN":
            state |= {
                f"norms.{i}.running_mean": draw(H),
                f"norms.{i}.running_var": 0.5 + draw(H).abs(),
                f"norms.{i}.num_batches_tracked": torch.tensor(7),
            }
    if head == "fc":
        state |= {"fc.weight": draw(CLASSES, H), "fc.bias": draw(CLASSES)}
    else:
        state |= {"match.0.weight": draw(H, 4 * H) / H, "match.0.bias": draw(H)}
        state |= {"match.2.weight": draw(2, H), "match.2.bias": draw(2)}
    return state


ACTIVE = [[0, 1, 2, 3, 4, 5], [4, 0, 3], []]
"""Not sorted, as the search leaves them; the last layer is bypassed altogether."""
ROWS = {
    "s4d": {"D": 0, "kernel.C": 0, "kernel.log_dt": 0, "kernel.log_A_real": 0, "kernel.A_imag": 0},
    "s4": {
        "layer.D": 1, "layer.kernel.C": 1, "layer.kernel.B": 1, "layer.kernel.P": 1,
        "layer.kernel.inv_dt": 0, "layer.kernel.A_real": 0, "layer.kernel.A_imag": 0,
    },
}  # fmt: skip


def new_form(state, family, active=ACTIVE, *, buffers=True):
    """Keep the rows of active channels, in their order."""
    pruned = dict(state)
    for i, indices in enumerate(active):
        index = torch.tensor(indices, dtype=torch.long)
        for name, axis in ROWS[family].items():
            key = f"{family}_layers.{i}.{name}"
            pruned[key] = state[key].index_select(axis, index)
        if buffers:
            place = "layer." if family == "s4" else ""
            pruned[f"{family}_layers.{i}.{place}active_idx"] = index
    return {"model_state_dict": pruned, "active_idx_layers": active}


def old_form(state, family, active=ACTIVE):
    """Keep all rows, and say by a mask which are used."""
    masked = dict(state)
    for i, indices in enumerate(active):
        mask = torch.zeros(H, dtype=torch.bool)
        mask[torch.tensor(indices, dtype=torch.long)] = True
        place = "layer." if family == "s4" else ""
        masked[f"{family}_layers.{i}.{place}pruning_mask"] = mask
    return masked


# --- an independent network: step by step, channel by channel -----------------------------------


def filtered(state, family, i, channel, u):
    """Return the outputs of one channel by its recurrence, in complex arithmetic."""
    key = f"{family}_layers.{i}."
    if family == "s4d":
        A = (
            -torch.exp(state[f"{key}kernel.log_A_real"][channel])
            + 1j * state[f"{key}kernel.A_imag"][channel]
        )
        dt = torch.exp(state[f"{key}kernel.log_dt"][channel])
        C = torch.view_as_complex(state[f"{key}kernel.C"][channel])
        step, enter = torch.exp(dt * A), (torch.exp(dt * A) - 1) / A
        x, D, outputs = torch.zeros_like(A), state[f"{key}D"][channel], []
        for value in u:
            x = step * x + enter * value
            outputs.append(2 * (C * x).sum().real + D * value)
        return torch.stack(outputs)
    kernel = {n: state[f"{key}layer.kernel.{n}"] for n in ("A_real", "A_imag", "B", "C", "P")}
    A = -torch.exp(kernel["A_real"][channel]) - 1j * kernel["A_imag"][channel]
    dt = torch.exp(state[f"{key}layer.kernel.inv_dt"][channel, 0])
    B, C, P = (torch.view_as_complex(kernel[n])[0, channel] for n in ("B", "C", "P"))
    A, B, C, P = (torch.cat([x, x.conj()]) for x in (A, B, C, P))
    full = torch.diag(A) - torch.outer(P, P.conj())
    identity = torch.eye(2 * MODES, dtype=full.dtype)
    discrete = torch.linalg.solve(identity - dt / 2 * full, identity + dt / 2 * full)
    enter = torch.linalg.solve(identity - dt / 2 * full, dt * B)
    length = int(state[f"{key}layer.kernel.l_kernel"])
    if length:
        C = torch.linalg.solve((identity - torch.matrix_power(discrete, length)).T, C)
    x, D, outputs = torch.zeros_like(B), state[f"{key}layer.D"][0, channel], []
    for value in u:
        x = discrete @ x + enter * value
        outputs.append((C @ x).real + D * value)
    return torch.stack(outputs)


def normed(state, i, x):
    weight, bias = state[f"norms.{i}.weight"], state[f"norms.{i}.bias"]
    if f"norms.{i}.running_mean" in state:
        mean, var = state[f"norms.{i}.running_mean"], state[f"norms.{i}.running_var"]
    else:
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias


def encoded(state, family, active, x, prenorm):
    """Return the mean over time of one sequence, (T,) tokens or (T, features)."""
    weight = state["embedding.weight"]
    x = weight[x] if x.dtype == torch.long else x @ weight.T + state["embedding.bias"]  # (T, H)
    for i in range(DEPTH):
        z = normed(state, i, x) if prenorm else x
        y = z.clone()
        for channel in active[i]:
            y[:, channel] = filtered(state, family, i, channel, z[:, channel])
        weight = state[f"{family}_layers.{i}.output_linear.0.weight"].reshape(2 * H, H)
        y = F.gelu(y) @ weight.T + state[f"{family}_layers.{i}.output_linear.0.bias"]
        value, gate = y.chunk(2, dim=-1)
        x = x + value * torch.sigmoid(gate)
        x = x if prenorm else normed(state, i, x)
    return x.mean(0)


@pytest.mark.parametrize("form", ["new", "new without buffers", "old", "full"])
@pytest.mark.parametrize("family", ["s4d", "s4"])
@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize(("norm", "embedding"), [("LN", "tokens"), ("BN", "linear")])
def test_network_against_the_recurrence(form, family, prenorm, norm, embedding):
    state = full_state(family, norm, embedding)
    active = [list(range(H))] * DEPTH if form == "full" else ACTIVE
    checkpoint = {
        "new": lambda: new_form(state, family),
        "new without buffers": lambda: new_form(state, family, buffers=False),
        "old": lambda: old_form(state, family),
        "full": lambda: {f"module.{name}": tensor for name, tensor in state.items()},
    }[form]()
    assert recognises_checkpoint(checkpoint)
    found = read_s4op(checkpoint)
    assert (found.family, found.form, found.width) == (family, form.split()[0], H)
    assert found.bypassed == sum(H - len(indices) for indices in active)
    assert found.norm_kind == ("LayerNorm" if norm == "LN" else "BatchNorm1d")
    network = network_from_s4op(checkpoint, prenorm=prenorm)
    if embedding == "tokens":
        x = torch.randint(VOCABULARY, (2, 17), generator=torch.Generator().manual_seed(1))
    else:
        x = torch.randn(2, 17, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        got = network(x)
        wanted = torch.stack([encoded(state, family, active, row, prenorm) for row in x])
        wanted = wanted @ state["fc.weight"].T + state["fc.bias"]
    assert got.shape == (2, CLASSES)
    assert (got - wanted).abs().max() <= AGREEMENT


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_two_streams(family):
    state = full_state(family, head="match")
    network = network_from_s4op(new_form(state, family), prenorm=True)
    x = torch.randint(VOCABULARY, (2, 2, 13), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        got = network(x)
        rows = []
        for pair in x:
            a, b = (encoded(state, family, ACTIVE, row, True) for row in pair)
            both = torch.cat([a, b, (a - b).abs(), a * b])
            hidden = F.gelu(state["match.0.weight"] @ both + state["match.0.bias"])
            rows.append(state["match.2.weight"] @ hidden + state["match.2.bias"])
    assert (got - torch.stack(rows)).abs().max() <= AGREEMENT


def test_bypassed_channels_pass_their_input_and_cost_no_state():
    network = network_from_s4op(new_form(full_state("s4d"), "s4d"), prenorm=True)
    for layer, indices in zip(network.layers, ACTIVE, strict=True):
        assert isinstance(layer.core, ReducedSSM)
        orders = np.zeros(H, int)
        orders[indices] = MODES
        assert layer.core.orders.tolist() == orders.tolist()
        system = layer.core.to_system()
        bypassed = [h for h in range(H) if h not in indices]
        assert (system.D[bypassed, 0, 0] == 1.0).all()
        response = system.impulse_response(5)[bypassed, :, 0, 0]
        assert (response == [1.0, 0.0, 0.0, 0.0, 0.0]).all()
    dense = network_from_s4op(new_form(full_state("s4"), "s4"), prenorm=True)
    assert isinstance(dense.layers[0].core, DenseSSM)
    assert dense.layers[1].core.states == 2 * MODES * len(ACTIVE[1])


def test_float32_networks_stay_float32():
    state = {n: t.float() if t.is_floating_point() else t for n, t in full_state("s4d").items()}
    network = network_from_s4op(old_form(state, "s4d"), prenorm=False)
    x = torch.randint(VOCABULARY, (1, 9))
    with torch.no_grad():
        assert network(x).dtype == torch.float32
    assert network.layers[0].core.poles.dtype == torch.float64


# --- bad input -----------------------------------------------------------------------------------


def test_the_place_of_the_norms_is_asked_for():
    with pytest.raises(CheckpointError, match="prenorm=True or prenorm=False"):
        network_from_s4op(new_form(full_state("s4d"), "s4d"))


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_indices_must_fit_the_rows(family):
    state = full_state(family)
    good = new_form(state, family, buffers=False)
    stored = good["model_state_dict"]
    for wrong in ([[0, 1]], [ACTIVE[0], [4, 0], []], [ACTIVE[0], [4, 0, 0], []],
                  [ACTIVE[0], [4, 0, 6], []], [ACTIVE[0], [4, 0, -1], []]):  # fmt: skip
        with pytest.raises(
            CheckpointError, match=r"active_idx_layers does not fit|do not fit the rows"
        ):
            read_s4op({"model_state_dict": stored, "active_idx_layers": wrong})
    with pytest.raises(CheckpointError, match=f"{family}_layers.1 has 3 rows of 6 channels"):
        read_s4op(stored)
    both = new_form(state, family)
    both["active_idx_layers"] = [ACTIVE[0], [0, 3, 4], []]
    with pytest.raises(CheckpointError, match="active_idx contradicts"):
        read_s4op(both)
    masked = old_form(state, family)
    key = next(
        name
        for name in masked
        if name.endswith("1.layer.pruning_mask") or name.endswith("1.pruning_mask")
    )
    for wrong in (masked[key].float(), masked[key][:3]):
        with pytest.raises(CheckpointError, match="pruning_mask does not fit"):
            read_s4op(masked | {key: wrong})


@pytest.mark.parametrize("family", ["s4d", "s4"])
def test_tensors_are_named(family):
    state = full_state(family)
    kernel = f"{family}_layers.1.{'layer.' if family == 's4' else ''}kernel."
    for key in (f"{kernel}C", f"{kernel}A_imag", "norms.2.weight", "embedding.weight",
                f"{family}_layers.0.output_linear.0.weight"):  # fmt: skip
        rest = {n: t for n, t in state.items() if n != key}
        with pytest.raises(CheckpointError, match=rf"{key.split('.')[-1]}.* is missing|S4D layer"):
            network_from_s4op(rest, prenorm=True)
        with pytest.raises(CheckpointError, match=f"{key} holds nan or inf"):
            read_s4op(state | {key: state[key] * float("nan")})
    for key in ("fc.weight", "fc.bias", f"{family}_layers.0.output_linear.0.bias", "norms.0.bias"):
        rest = {n: t for n, t in state.items() if n != key}
        with pytest.raises(CheckpointError, match=r"fc|output_linear|layers\.0"):
            network_from_s4op(rest, prenorm=True)
    with pytest.raises(CheckpointError, match=r"decoder\.weight is unknown"):
        read_s4op(state | {"decoder.weight": torch.zeros(2)})
    extra = kernel.replace("layers.1", "layers.0") + "E"
    with pytest.raises(CheckpointError, match=rf"{family}_layers\.0.*E is unknown"):
        read_s4op(state | {extra: torch.zeros(2)})
    with pytest.raises(CheckpointError, match="no tensor"):
        read_s4op(state | {"fc.note": "text"})
    with pytest.raises(CheckpointError, match="not those of an S4oP network"):
        read_s4op({n: t for n, t in state.items() if "layers.0." not in n})


def test_what_is_recognised():
    assert not recognises_checkpoint({"fc.weight": torch.zeros(2, 2)})
    assert not recognises_checkpoint([1, 2])
    assert not recognises_checkpoint({"model_state_dict": 3})
    with pytest.raises(CheckpointError, match="not those of an S4oP network"):
        read_s4op({"fc.weight": torch.zeros(2, 2)})
    mamba = {f"mamba_layers.0.{name}": torch.zeros(2) for name in ("A_log", "x_proj.weight", "D")}
    with pytest.raises(UnsupportedOperationError, match="selective layer"):
        read_s4op({"model_state_dict": mamba, "active_idx_layers": [[0]]})


def test_shared_parameters_of_a_pruned_layer_are_refused():
    state = full_state("s4")
    for i in range(DEPTH):
        for name, axis in (("A_real", 0), ("A_imag", 0), ("B", 1), ("P", 1)):
            key = f"s4_layers.{i}.layer.kernel.{name}"
            state[key] = state[key].narrow(axis, 0, 2)
    with pytest.raises(CheckpointError, match="shared between heads"):
        read_s4op(state)
