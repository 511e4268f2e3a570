"""What a trace cannot express is refused; nothing is translated into another network."""

import numpy as np
import pytest
import torch
from foreign_layers import DiagonalMixer, ExampleNetwork, TokenNetwork, settle
from torch import nn
from torch.nn import functional as F

from ssmred.certify.evaluate import can_evaluate, evaluate
from ssmred.certify.graph import NetworkGraph, Node
from ssmred.certify.inputs import InputSet
from ssmred.errors import CheckpointError, ShapeError, UnsupportedOperationError
from ssmred.networks import (
    ReducedSSM,
    import_network,
    load_network,
    save_network,
    trace,
    translation,
)

# float64 evaluation of a few hundred operations on numbers of size 1 to 100
ROUNDING = 1e-10


class Network(nn.Module):
    """One layer, a given function before it, and a mean."""

    def __init__(self, before, **modules):
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.layer = DiagonalMixer(3, 4, transposed=False)
        self.before = before
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.layer(self.before(self, self.encoder(x)))[0].mean(1)


def statement(method, *args, **kwargs):
    def before(_net, x):
        getattr(x, method)(*args, **kwargs)
        return x

    return before


def alias(_net, x):
    skip = x
    x += 1.0
    return x + skip


def of_a_view(_net, x):
    part = x[:, :, :2]
    part.mul_(30.0)
    return x


def of_an_attribute(_net, x):
    view = x.mT
    view += 30.0
    return x


def of_data(_net, x):
    x.data.mul_(30.0)
    return x


def data_assigned(_net, x):
    x.data = 30.0 * x
    return x


def out(_net, x):
    torch.mul(x, 30.0, out=x)
    return x


def functional_relu(_net, x):
    F.relu(x, True)
    return x


def underscore(_net, x):
    torch.relu_(x)
    return x


def module(net, x):
    net.act(x)
    return x


def through_dropout(net, x):
    return x + net.act(net.drop(x))  # in eval mode dropout hands on its argument itself


def weight(net, x):
    net.encoder.weight.data.mul_(2.0)
    return x


def constant_written(_net, x):
    other = torch.zeros(3, 13, 3)
    other[:, 0] = x[:, 0]
    return x + other


def copied(_net, x):
    other = torch.zeros(3, 13, 3)
    other.copy_(x)
    return other + x


IN_PLACE = {
    "statement": statement("mul_", 30.0),
    "statement add": statement("add_", 30.0),
    "clamp": statement("clamp_", min=0.0),
    "alias": alias,
    "view": of_a_view,
    "attribute": of_an_attribute,
    "data": of_data,
    "out": out,
    "functional": functional_relu,
    "underscore": underscore,
    "module": module,
    "dropout": through_dropout,
    "weight": weight,
    "constant": constant_written,
    "copy": copied,
}


@pytest.mark.parametrize("name", list(IN_PLACE))
def test_changes_in_place_are_refused_with_line_and_cure(name):
    model = settle(Network(IN_PLACE[name], act=nn.ReLU(inplace=True), drop=nn.Dropout(0.5)))
    with pytest.raises(UnsupportedOperationError, match="changed in place") as caught:
        trace(model, example_shape=(13, 3))
    assert "test_agreement.py line" in str(caught.value)
    assert "Write x = x + y" in str(caught.value)


def test_assignment_to_the_data_of_a_tensor_is_refused():
    with pytest.raises(UnsupportedOperationError, match="attribute data"):
        trace(settle(Network(data_assigned)))


def own_memory(_net, x):
    x = x * 2.0
    x += 1.0
    x -= 0.5
    x *= 0.5
    x /= 3.0
    return x.mul_(2.0).add_(1.0)


def sizes(_net, x):
    B, T, H = x.shape
    H += 0
    return x.reshape(B, T, H).reshape(B, T, -1)


HARMLESS = {
    "own memory": own_memory,
    "sizes": sizes,
    "modules": lambda net, x: net.drop(net.act(x)),
    "functional": lambda _net, x: F.relu(F.dropout(x, 0.5, False, True), inplace=True),
    "view of its own": lambda _net, x: (2.0 * x).reshape(x.shape[0], -1, 3).relu_(),
    "after a residual": lambda net, x: net.act(x + net.act(net.norm(x))),
}


@pytest.mark.parametrize("name", list(HARMLESS))
def test_changes_that_nothing_else_sees_are_translated(name, tmp_path):
    modules = {"act": nn.ReLU(inplace=True), "drop": nn.Dropout(0.5, inplace=True)}
    modules["norm"] = nn.LayerNorm(3)
    model = settle(Network(HARMLESS[name], **modules), torch.float64)
    graph = trace(model, example_shape=(13, 3))
    x = torch.randn(2, 21, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = model(x)
        loaded = load_network(save_network(model, tmp_path))
        assert torch.equal(loaded(x.clone()), wanted)
    for sample, answer in zip(x.numpy(), wanted.numpy(), strict=True):
        assert np.abs(evaluate(graph, sample) - answer).max() <= ROUNDING * np.abs(answer).max()


def test_a_network_that_overwrites_its_input():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = DiagonalMixer(3, 4, transposed=False)

        def forward(self, x):
            return self.layer(x.mul_(2.0))[0].mean(1)

    model = settle(Overwriting(), torch.float64)
    graph = trace(model)
    x = torch.ones(1, 9, 3, dtype=torch.float64)
    answer = evaluate(graph, x[0].numpy().copy())
    with torch.no_grad():
        assert np.abs(model(x)[0].numpy() - answer).max() <= ROUNDING


@pytest.mark.parametrize("name", ["statement", "alias"])
def test_a_declaration_never_drops_a_change_in_place(name, tmp_path):
    save_network(settle(Network(IN_PLACE[name])), tmp_path)
    with pytest.raises(CheckpointError, match="weights alone"):
        load_network(tmp_path)


# Hooks ----------------------------------------------------------------------------------------


def double_output(_module, _args, answer):
    return 2.0 * answer


def double_input(_module, args):
    return (2.0 * args[0],)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("place", ["encoder", "layer", "layer.kernel", "layer.activation", ""])
def test_hooks_are_refused_by_module_with_the_cure(place, before, tmp_path):
    model = settle(Network(lambda _net, x: x))
    hooked = model.get_submodule(place)
    handle = (
        hooked.register_forward_pre_hook(double_input)
        if before
        else hooked.register_forward_hook(double_output)
    )
    with pytest.raises(UnsupportedOperationError, match=r"forward hooks.*Remove the hook") as error:
        trace(model)
    assert f"the module {place or 'model'} (" in str(error.value)
    save_network(model, tmp_path)
    with pytest.raises(CheckpointError, match=r"forward hooks.*Pass model="):
        load_network(tmp_path)
    handle.remove()
    trace(model)


def test_a_hook_on_a_layer_is_not_lost_by_importing_it():
    model = settle(Network(lambda _net, x: x))
    model.layer.kernel.register_forward_hook(double_output)
    with pytest.raises(UnsupportedOperationError, match=r"layer layer.*kernel.*forward hooks"):
        import_network(model)


def test_a_hook_on_a_reduced_layer_is_refused():
    model = import_network(settle(Network(lambda _net, x: x))).model
    core = next(m for m in model.modules() if isinstance(m, ReducedSSM))
    core.register_forward_hook(double_output)
    with pytest.raises(UnsupportedOperationError, match=r"layer.core \(ReducedSSM\)"):
        trace(model)


# Casts ----------------------------------------------------------------------------------------

CASTS = {
    "to int": lambda x: x.to(torch.int32).to(x.dtype),
    "long": lambda x: x.long().float(),
    "half": lambda x: x.half().float(),
    "bfloat16": lambda x: x.to(torch.bfloat16).float(),
    "keyword": lambda x: x.to(dtype=torch.float16).float(),
    "type": lambda x: x.type(torch.int64).float(),
    "type_as": lambda x: x.type_as(torch.zeros(1, dtype=torch.int64)).float(),
    "view": lambda x: x.view(torch.int32).float(),
    "mean": lambda x: x * x.mean(2, keepdim=True, dtype=torch.bfloat16).float(),
    "bool": lambda x: x * x.bool(),
}


@pytest.mark.parametrize("name", list(CASTS))
def test_casts_that_change_numbers_are_refused(name):
    model = settle(Network(lambda _net, x: CASTS[name](x)))
    with pytest.raises(UnsupportedOperationError, match=r"casts torch\.float32 to torch") as caught:
        trace(model)
    assert "test_agreement.py line" in str(caught.value)


def test_floating_casts_and_moves_are_identities():
    def before(net, x):
        return x.to("cpu").double().to(net.encoder.weight.dtype).to(x).type_as(x)

    graph = trace(settle(Network(before)))
    assert {node.op for node in graph if node.name.startswith(("to", "double"))} == {"identity"}
    trace(settle(Network(lambda _net, x: x.float())))  # runs in its own dtype only


# The comparison itself ------------------------------------------------------------------------


def stateful(net, x):
    net.count = getattr(net, "count", 1) + 1
    return x * float(net.count)


def constant_overwritten(_net, x):
    other = torch.ones(3)
    x = x + other
    other *= 5.0
    return x * other


@pytest.mark.parametrize("before", [stateful, constant_overwritten])
def test_state_that_no_trace_sees_is_refused(before):
    with pytest.raises(UnsupportedOperationError, match="does not compute what its operations say"):
        trace(settle(Network(before)))


def test_a_forward_replaced_on_an_instance_is_refused():
    model = settle(Network(lambda net, x: net.act(x), act=nn.Tanh()))
    model.act.forward = torch.sin
    with pytest.raises(UnsupportedOperationError, match="difference of"):
        trace(model)


def test_a_wrong_translation_is_noticed(monkeypatch):
    def tanh_as_sigmoid(t, value, x):
        return t.emit("sigmoid", [x], value, x.axes)

    monkeypatch.setitem(translation.HANDLERS, torch.tanh, tanh_as_sigmoid)
    with pytest.raises(UnsupportedOperationError, match="difference of"):
        trace(settle(Network(lambda _net, x: torch.tanh(x))))


def test_the_comparison_reads_several_tokens(monkeypatch):
    def first_token_everywhere(t, value, module, tokens):
        weight = translation.to_array(module.weight)
        axes = (*tokens.axes, "feature")
        return t.emit("embedding", [tokens], value, axes, weight=np.zeros_like(weight) + weight[0])

    model = settle(TokenNetwork())
    trace(model)
    monkeypatch.setitem(translation.HANDLERS, nn.Embedding, first_token_everywhere)
    monkeypatch.setitem(translation.HANDLERS, F.embedding, first_token_everywhere)
    with pytest.raises(UnsupportedOperationError):
        trace(model)


def test_a_captured_network_is_compared_before_it_is_stored(tmp_path):
    save_network(settle(Network(stateful)), tmp_path)
    with pytest.raises(CheckpointError, match="does not compute what the network does"):
        load_network(tmp_path)


def test_a_sum_over_time_is_compared_at_full_length():
    class Summed(Network):
        def forward(self, x):
            return self.layer(self.encoder(x))[0].sum(1)

    model = settle(Summed(None))
    graph = trace(model, horizon=200, inputs=InputSet.box(-1.0, 1.0))
    assert [node.params["scale"] for node in graph if node.op == "affine"] == [200.0]


def test_float32_and_reduced_networks_agree():
    for prenorm in (True, False):
        trace(settle(ExampleNetwork(prenorm=prenorm)))


def test_evaluation_by_hand_and_refusals():
    x = Node("x", "input", (), {"shape": (1, 2)}, ("time", "feature"))
    glu = Node("g", "glu", ("x",), {"axis": -1}, ("time", "feature"))
    graph = NetworkGraph((x, glu), "g")
    assert evaluate(graph, np.array([[4.0, 0.0]])).tolist() == [[2.0]]
    wrong = NetworkGraph((x, Node("m", "mean", ("x",), {"axis": 0}, ("time", "feature"))), "m")
    with pytest.raises(ShapeError, match="does not have its axes"):
        evaluate(wrong, np.zeros((3, 2)))
    unknown = NetworkGraph((x, Node("u", "mine", ("x",), {}, ("time", "feature"))), "u")
    assert can_evaluate(graph)
    assert not can_evaluate(unknown)
    with pytest.raises(UnsupportedOperationError, match="'mine'"):
        evaluate(unknown, np.zeros((3, 2)))
