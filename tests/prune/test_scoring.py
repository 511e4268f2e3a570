"""evaluate: scores by hand for every kind of task, and the network stays as it was."""

import pytest
import torch
from torch import nn
from toys import Shown, same, state, wave_network, waves

from ssmred.errors import OrderError, ShapeError
from ssmred.networks.deep import DeepSSM
from ssmred.prune import evaluate
from ssmred.prune.scoring import outputs_of
from ssmred.tasks import Sample, Task, TwoStream

ROUNDING = 1e-5
"""Of outputs near 1 in float32, from batches of other sizes."""


def showing(outputs, labels, **options):
    """A sample whose outputs under `Shown` are the given ones, and a task for it."""
    outputs, labels = torch.tensor(outputs), torch.tensor(labels)
    sample = Sample(outputs.unsqueeze(1), labels)
    other = Sample(outputs.unsqueeze(1) + 100.0, labels)
    return sample, Task("shown", other, sample, outputs.shape[1], dict, **options)


@pytest.mark.parametrize("batch", [1, 3, 256])
def test_share_of_right_classes(batch):
    sample, task = showing([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [5.0, 4.0]], [0, 1, 1, 0])
    assert evaluate(Shown(), sample, task, batch=batch) == 75.0


def test_macro_f1_of_several_labels():
    """Class 0: one found, one missed, F1 2/3; class 1: one found, one too many, F1 2/3."""
    sample, task = showing(
        [[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]],
        [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]],
        kind="multi-label",
        metric="macro-f1",
    )
    assert evaluate(Shown(), sample, task) == pytest.approx(200.0 / 3.0, abs=ROUNDING)


def test_pairs_of_sequences():
    """The head answers 1 where the sequences differ: their last features do."""

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.scale * x[:, -1, :]

    model = TwoStream(Last(), 1, 2, hidden=2)
    with torch.no_grad():  # hidden: relu(u - v), relu(v - u); outputs: 1/2 and their sum
        model.head[0].weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, -1.0]]))
        model.head[0].bias.zero_()
        model.head[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        model.head[2].bias.copy_(torch.tensor([0.5, 0.0]))
    pairs = torch.tensor([[3.0, 3.0], [1.0, 4.0], [4.0, 1.0], [2.0, 2.0]])
    inputs = torch.stack([torch.zeros(4, 2), pairs], dim=-1).unsqueeze(-1)
    sample = Sample(inputs, torch.tensor([0, 1, 1, 1]))
    task = Task("pairs", Sample(inputs + 9.0, sample.labels), sample, 2, dict, kind="two-stream")
    assert evaluate(model, sample, task) == 75.0


def test_the_network_stays_as_it_was():
    """Modes of single modules, running means, and the caller's ability to train on."""
    task, model = waves(), wave_network(norm="batch", dropout=0.5)
    model.train()
    model.norms.eval()
    before = state(model)
    first = evaluate(model, task.val, task)
    assert same(state(model), before)
    assert model.training
    assert not model.norms[0].training
    assert model.layers[0].training
    assert evaluate(model, task.val, task) == first  # dropout was off
    model(task.val.inputs).sum().backward()


def test_outputs_do_not_depend_on_the_batch():
    task, model = waves(), wave_network()
    one, two = (outputs_of(model, task.val.inputs, batch=batch) for batch in (7, 256))
    assert one.shape == (60, 3)
    assert not one.requires_grad
    assert float((one - two).abs().max()) < ROUNDING


def test_what_a_layer_keeps_can_be_differentiated_later():
    """A tensor made under torch's inference mode could not be."""

    class Keeping(nn.Linear):
        def forward(self, x):
            self.kept = getattr(self, "kept", 2.0 * x[0])
            return super().forward(x * self.kept)

    model = Keeping(3, 2)
    outputs_of(model, torch.ones(4, 3))
    model.eval()
    x = torch.ones(1, 3, requires_grad=True)
    model(x).sum().backward()
    assert torch.equal(x.grad[0], 2.0 * model.weight.sum(0))


def test_outputs_that_do_not_fit():
    task = waves()
    with pytest.raises(ShapeError, match=r"expected \(60, 3\), got \(60, 2\)"):
        evaluate(DeepSSM(1, 2, channels=4, states=4, layers=1), task.val, task)
    with pytest.raises(OrderError, match="batch is not usable"):
        evaluate(wave_network(), task.val, task, batch=0)
