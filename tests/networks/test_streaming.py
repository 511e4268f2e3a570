import pytest
import torch
from foreign_layers import ExampleNetwork, PooledNetwork, Positional, TokenNetwork, settle
from test_tracing import PLAIN, Wiring
from torch import nn
from torch.nn import functional as F

from ssmred.certify.graph import operation_name
from ssmred.certify.rules_table import RULES, rule
from ssmred.errors import ShapeError, UnsupportedOperationError
from ssmred.networks import StreamingNetwork, import_network
from ssmred.networks.deep import DeepSSM

# float64: the recurrence against FFT convolutions through a few layers
STREAM_ROUNDING = 1e-10


def assert_streams(model, x, **options):
    """The answer after k steps is that of the first k steps."""
    stream = StreamingNetwork(model, **options)
    with torch.no_grad():
        for k in range(x.shape[1]):
            answer = stream.step(x[:, k])
            if k in (4, x.shape[1] - 1):
                whole = model(x[:, : k + 1])
                assert answer.shape == whole.shape
                assert (answer - whole).abs().max() <= STREAM_ROUNDING * whole.abs().max()
                assert answer.dtype == whole.dtype
    assert stream.steps == x.shape[1]
    return stream


def inputs(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("prenorm", [True, False])
def test_example_network(prenorm):
    model = settle(ExampleNetwork(prenorm=prenorm), torch.float64)
    assert_streams(model, inputs(2, 30, 3))
    imported = import_network(model)
    reduced = imported.with_systems(
        {name: (system, range(8)) for name, system in imported.systems.items()}
        | {"blocks.0": (imported.systems["blocks.0"], [0] * 8)}
    )
    assert_streams(reduced, inputs(2, 30, 3))


def test_own_network_tokens_and_pooling():
    torch.manual_seed(0)
    own = DeepSSM(1, 10, channels=6, states=8, layers=2, dropout=0.1)
    assert_streams(settle(own, torch.float64), inputs(3, 20, 1))
    tokens = torch.randint(0, 11, (3, 17), generator=torch.Generator().manual_seed(1))
    assert_streams(settle(TokenNetwork(), torch.float64), tokens)
    assert_streams(settle(PooledNetwork(), torch.float64), inputs(3, 20), example_shape=(20,))


@pytest.mark.parametrize("name", [n for n in PLAIN if n not in ("sequence out", "keepdim")])
def test_wiring(name):
    model = settle(Wiring(*PLAIN[name]), torch.float64)
    assert_streams(model, inputs(2, 12, 3))


def test_sums_and_operations_without_a_rule():
    for after in (lambda y: y.sum(-1), lambda y: F.log_softmax(y.mean(-1), dim=-1)):
        assert_streams(settle(Wiring(F.elu, after), torch.float64), inputs(2, 12, 3))


def test_sequences_come_out_step_by_step():
    model = settle(Wiring(*PLAIN["sequence out"]), torch.float64)
    stream, x = StreamingNetwork(model), inputs(2, 12, 3)
    answers = torch.stack([stream.step(x[:, k]) for k in range(12)], dim=1)
    with torch.no_grad():
        assert (answers - model(x)).abs().max() <= STREAM_ROUNDING


def test_float32_stays_float32():
    model = settle(ExampleNetwork())
    x = inputs(2, 30, 3).float()
    stream = StreamingNetwork(model)
    for k in range(30):
        answer = stream.step(x[:, k])
    with torch.no_grad():
        whole = model(x)
    assert answer.dtype == torch.float32
    assert (answer - whole).abs().max() <= 1e-4  # float32 phases in the original's kernel


def test_reset_and_batch():
    model = settle(ExampleNetwork(), torch.float64)
    stream, x = StreamingNetwork(model), inputs(2, 5, 3)
    first = stream.step(x[:, 0])
    stream.step(x[:, 1])
    with pytest.raises(ShapeError, match="reset"):
        stream.step(x[:1, 0])
    stream.reset(1)
    assert (stream.step(x[:1, 0]) - first[:1]).abs().max() <= STREAM_ROUNDING
    with pytest.raises(ShapeError):
        stream.step(x[:1])


def test_the_model_may_change_afterwards():
    model = settle(ExampleNetwork(), torch.float64)
    stream, x = StreamingNetwork(model), inputs(1, 3, 3)
    first = stream.step(x[:, 0])
    with torch.no_grad():
        model.encoder.weight.zero_()
    stream.reset()
    assert torch.equal(stream.step(x[:, 0]), first)


def test_what_looks_ahead_is_refused():
    for after in (
        lambda y: y[..., 1:].mean(-1),
        lambda y: y.flatten(1),
        lambda y: y.mean(-1) / y.size(-1),
        lambda y: F.avg_pool1d(y, 2).mean(-1),
    ):
        with pytest.raises(UnsupportedOperationError):
            StreamingNetwork(settle(Wiring(lambda x: x, after)))
    with pytest.raises(UnsupportedOperationError):
        StreamingNetwork(settle(Positional(9)))


def test_a_module_that_looks_along_time_is_noticed():
    class Smooth(nn.Module):
        def forward(self, x):
            return x.cumsum(1) if x.shape[0] else x

    def identity(node, x):
        return x

    rule(Smooth)(identity)
    try:
        with pytest.raises(UnsupportedOperationError, match="along time"):
            StreamingNetwork(settle(nn.Sequential(nn.Linear(3, 3), Smooth(), ExampleNetwork())))
    finally:
        del RULES[operation_name(Smooth)]


def test_a_feature_that_needs_the_running_mean_is_causal():
    """The mean enters every step, so the whole-sequence answer is no function of a prefix state."""

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = ExampleNetwork()

        def forward(self, x):
            return self.inner(x - x.mean(1, keepdim=True))

    with pytest.raises(UnsupportedOperationError, match="whole sequence"):
        StreamingNetwork(settle(Centred()))
