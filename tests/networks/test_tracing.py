import numpy as np
import pytest
import torch
from foreign_layers import (
    DiagonalMixer,
    ExampleNetwork,
    PooledNetwork,
    Positional,
    TokenNetwork,
    settle,
)
from torch import nn
from torch.nn import functional as F

from ssmred.certify.evaluate import evaluate
from ssmred.certify.graph import operation_name
from ssmred.certify.rules_table import RULES, rule
from ssmred.errors import UnsupportedOperationError
from ssmred.networks import ReducedSSM, import_network, trace
from ssmred.networks.deep import DeepSSM

# float64 evaluation of a few hundred operations on numbers of size 1 to 100
ROUNDING = 1e-10


def random_inputs(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_graph_computes(model, inputs, **options):
    graph = trace(model, **options)
    with torch.no_grad():
        wanted = model(inputs)
    wanted = (wanted[0] if isinstance(wanted, tuple) else wanted).numpy()
    for sample, answer in zip(inputs.numpy(), wanted, strict=True):
        got = evaluate(graph, sample)
        scale = np.abs(answer).max()
        assert got.shape == answer.shape
        assert np.abs(got - answer).max() <= ROUNDING * scale
    return graph


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("gated", [True, False])
def test_example_network(prenorm, gated):
    model = settle(ExampleNetwork(prenorm=prenorm, gated=gated), torch.float64)
    graph = assert_graph_computes(model, random_inputs((2, 29, 3)))
    assert [node.name for node in graph.ssm_nodes] == ["blocks.0", "blocks.1"]
    assert graph.input.axes == ("time", "feature")
    assert graph.input.params["shape"] == (1, 3)
    assert graph[graph.output].axes == ("feature",)


def test_own_network_with_batch_norm():
    torch.manual_seed(0)
    model = settle(DeepSSM(1, 10, channels=6, states=8, layers=3, dropout=0.1), torch.float64)
    graph = assert_graph_computes(model, random_inputs((2, 21, 1)))
    assert [node.name for node in graph.ssm_nodes] == ["layers.0", "layers.1", "layers.2"]


def test_tokens_functional_calls_and_chunks():
    model = settle(TokenNetwork(), torch.float64)
    tokens = torch.randint(0, 11, (3, 17), generator=torch.Generator().manual_seed(1))
    graph = assert_graph_computes(model, tokens)
    assert graph.input.params["tokens"] is True
    assert graph.input.axes == ("time",)


def test_univariate_pooling_and_reshapes():
    model = settle(PooledNetwork(), torch.float64)
    graph = assert_graph_computes(model, random_inputs((3, 18)), example_shape=(18,))
    assert graph.input.axes == ("time",)
    assert_graph_computes(model, random_inputs((3, 18)))  # the shape is found without help


def test_position_per_step_needs_its_length():
    model = settle(Positional(19), torch.float64)
    graph = assert_graph_computes(model, random_inputs((2, 19, 2)), horizon=19)
    (constant,) = [node for node in graph if node.op == "constant"]
    assert constant.axes == ("time", "feature")
    assert constant.params["value"].shape == (19, 4)
    with pytest.raises(UnsupportedOperationError, match="example"):
        trace(model)


def test_imported_and_original_give_the_same_graph():
    model = settle(ExampleNetwork(), torch.float64)
    one, two = trace(model), trace(import_network(model).model)
    assert [(n.name, n.op, n.inputs, n.axes) for n in one] == [
        (n.name, n.op, n.inputs, n.axes) for n in two
    ]


def test_tracing_changes_nothing():
    model = settle(ExampleNetwork(), torch.float32).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trace(model)
    assert model.training
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


class Wiring(nn.Module):
    """A layer between two free functions."""

    def __init__(self, before, after, width=4):
        super().__init__()
        self.encoder = nn.Linear(3, width)
        self.layer = DiagonalMixer(width, 8)
        self.before, self.after = before, after

    def forward(self, x):
        x = self.before(self.encoder(x))
        y, _ = self.layer(x.transpose(1, 2))
        return self.after(y)


PLAIN = {
    "swapaxes and max": (lambda x: x, lambda y: y.swapaxes(1, 2).max(dim=1).values),
    "max with index": (lambda x: x, lambda y: torch.max(y, dim=2)[0]),
    "mT": (lambda x: x.mT.mT, lambda y: y.mean((1, 2))),
    "keepdim": (lambda x: x, lambda y: (y * y.mean(2, keepdim=True)).mean(2)),
    "first step": (lambda x: x, lambda y: y[:, :, 0]),
    "third step": (lambda x: x, lambda y: y.select(2, 3)),
    "last step kept": (lambda x: x, lambda y: y[..., -1:].flatten(1)),
    "last by length": (lambda x: x, lambda y: y[..., y.size(-1) - 1]),
    "sum over features": (lambda x: x, lambda y: y.sum(1).mean(1)),
    "constants": (
        lambda x: 2 - x / 4 + 1,
        lambda y: (y * torch.tensor([1.0, 2, 3, 4])[:, None])[..., -1],
    ),
    "movedim": (lambda x: x.movedim(1, 2).movedim(2, 1), lambda y: y.mean(-1)),
    "time first": (
        lambda x: x.transpose(0, 1).transpose(0, 1),
        lambda y: y.permute(2, 0, 1).mean(0),
    ),
    "none index": (lambda x: x[:, :, None, :].squeeze(2), lambda y: y[:, :, -1]),
    "sequence out": (F.silu, lambda y: y.transpose(1, 2)),
    "tanh gelu": (lambda x: F.gelu(x, approximate="tanh"), lambda y: y.mean(-1)),
    "identities": (lambda x: x.contiguous().clone(), lambda y: F.dropout(y, 0.3, False).mean(-1)),
    "unbind": (lambda x: x, lambda y: (y.unbind(1)[0] - y.unbind(1)[2]).mean(-1)),
    "split": (lambda x: torch.cat(x.split([1, 3], dim=-1), -1), lambda y: y.mean(-1)),
    "rsub": (lambda x: torch.rsub(x, 1.0), lambda y: y.mean(-1)),
    "matmul left": (lambda x: x, lambda y: (torch.ones(2, 4, dtype=y.dtype) @ y).mean(-1)),
    "feature slice": (lambda x: x, lambda y: y[:, 1:3].mean(-1)),
    "reshape heads": (
        lambda x: x.reshape(x.shape[0], x.shape[1], 2, 2).flatten(2),
        lambda y: y.mean(-1),
    ),
}


@pytest.mark.parametrize("name", list(PLAIN))
def test_wiring(name):
    model = settle(Wiring(*PLAIN[name]), torch.float64)
    assert_graph_computes(model, random_inputs((2, 15, 3)))


def test_sum_over_time_and_whole_sequence_need_a_horizon():
    for after in (lambda y: y.sum(-1), lambda y: y.flatten(1), lambda y: y.sum(-1) / y.size(-1)):
        model = settle(Wiring(lambda x: x, after), torch.float64)
        assert_graph_computes(model, random_inputs((2, 15, 3)), horizon=15)
        with pytest.raises(UnsupportedOperationError, match=r"(?i)horizon"):
            trace(model)


REFUSED = {
    "softmax": lambda y: y.softmax(1)[..., -1],
    "batch": lambda y: y - y.mean(0, keepdim=True),
    "size of the batch": lambda y: y.mean(-1) / y.size(0),
    "time": lambda y: F.glu(F.pad(y, (0, y.shape[-1] % 2)), -1).mean(-1),
    "division": lambda y: (y / y).mean(-1),
    "dropout": lambda y: F.dropout(y, 0.5).mean(-1),
    "tensor or a list": lambda y: y[:, [0, 2]].mean(-1),
    "two signals": lambda y: y @ y.mT,
    "maximum": lambda y: y - y.max(),
    "second output": lambda y: torch.max(y, dim=2)[1],
    "2 tensors": lambda y: (y, y.mean(-1)),
    "from the end": lambda y: y[..., -2],
}


@pytest.mark.parametrize("name", [name for name in REFUSED if name != "2 tensors"])
def test_refusals_name_the_line(name):
    model = settle(Wiring(lambda x: x, REFUSED[name]))
    with pytest.raises(UnsupportedOperationError) as caught:
        trace(model)
    assert "test_tracing.py" in str(caught.value)


def test_two_outputs_are_refused():
    model = settle(Wiring(lambda x: x, REFUSED["2 tensors"]))
    with pytest.raises(UnsupportedOperationError, match="returns 2 tensors"):
        trace(model)


def test_softmax_is_refused_by_name_with_the_cure():
    model = settle(Wiring(lambda x: x, REFUSED["softmax"]))
    with pytest.raises(
        UnsupportedOperationError, match=r"softmax has no rule.*ssmred.certify.rule"
    ):
        trace(model)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = DiagonalMixer(3, 4, transposed=False)

    def forward(self, x):
        y = self.layer(x)[0].mean(1)
        return y if y.sum() > 0 else -y


def test_control_flow_is_refused_with_line_and_cure():
    with pytest.raises(
        UnsupportedOperationError, match=r"test_tracing.py line \d+ .*y.sum\(\) > 0"
    ):
        trace(Branching())


def test_wide_convolution_and_batch_statistics_are_refused():
    class Net(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.layer, self.module = DiagonalMixer(3, 4), module

        def forward(self, x):
            return self.module(self.layer(x.transpose(1, 2))[0]).mean(-1)

    with pytest.raises(UnsupportedOperationError, match="kernel_size=1"):
        trace(Net(nn.Conv1d(3, 3, 3, padding=1)), example_shape=(9, 3))
    with pytest.raises(UnsupportedOperationError, match="statistics of the batch"):
        trace(Net(nn.BatchNorm1d(3, track_running_stats=False)), example_shape=(9, 3))


class Quirk(nn.Module):
    """A user's own module; its forward branches on values, so it must stay whole."""

    def __init__(self):
        super().__init__()
        self.power = 2
        self.weight = nn.Parameter(torch.tensor([0.5, 0.25, 0.125]))

    def forward(self, x):
        return x * self.weight if x.abs().max() < 1e9 else x


def test_a_module_with_a_rule_stays_whole():
    model = settle(nn.Sequential(Quirk(), Pick(DiagonalMixer(3, 4, transposed=False))))
    with pytest.raises(UnsupportedOperationError):
        trace(model, example_shape=(9, 3))

    @rule(Quirk)
    def quirk(node, x):
        return x

    try:
        graph = trace(model, example_shape=(9, 3))
    finally:
        name = operation_name(Quirk)
        del RULES[name]
    (node,) = [node for node in graph if node.op == name]
    assert node.axes == ("time", "feature")
    assert node.params["power"] == 2
    assert node.params["weight"].tolist() == [0.5, 0.25, 0.125]


class Pick(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


def test_parametrised_layers_and_rules_for_torch_modules():
    model = settle(
        nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
            nn.LeakyReLU(0.25),
            Pick(DiagonalMixer(3, 4, transposed=False)),
        ),
        torch.float64,
    )
    with pytest.raises(UnsupportedOperationError, match="LeakyReLU"):
        trace(model)
    rule(nn.LeakyReLU)(lambda node, x: x)
    try:
        graph = trace(model)
    finally:
        del RULES[operation_name(nn.LeakyReLU)]
    assert [node.op for node in graph][1] == "linear"
    assert graph["network_1"].params["negative_slope"] == 0.25


def test_a_layer_used_twice_is_refused_by_name():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = DiagonalMixer(3, 4, transposed=False)

        def forward(self, x):
            return self.layer(self.layer(x)[0])[0].mean(1)

    with pytest.raises(UnsupportedOperationError, match=r"the layer layer is used twice.*its own"):
        trace(settle(Twice(), torch.float64))


def test_a_bare_layer_and_a_bare_core():
    layer = settle(DiagonalMixer(4, 8, transposed=False), torch.float64)
    graph = assert_graph_computes(layer, random_inputs((2, 9, 4)))
    assert [node.name for node in graph.ssm_nodes] == ["model"]

    class Core(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter = ReducedSSM([1, 0], [0.5j], [1.0], [0.0, 2.0])

        def forward(self, x):
            return self.filter(x.transpose(1, 2)).mean(-1)

    graph = assert_graph_computes(Core(), random_inputs((2, 9, 2)))
    assert [node.name for node in graph.ssm_nodes] == ["filter"]
