"""Small tasks and networks whose training can be followed by hand."""

import torch
from torch import nn

from ssmred.networks.deep import DeepSSM
from ssmred.tasks import Sample, Task

CLASSES = 3


def waves(count=200, length=32, held_out=60):
    """Three frequencies, phases at random, some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    time = torch.arange(length) / length
    phases = 6.0 * torch.rand(count, 1, generator=generator)
    x = torch.sin(2 * torch.pi * (1 + 2 * labels[:, None]) * time + phases)
    x = (x + 0.3 * torch.randn(count, length, generator=generator)).unsqueeze(-1)
    cut = count - held_out
    return Task(
        "waves", Sample(x[:cut], labels[:cut]), Sample(x[cut:], labels[cut:]), CLASSES, dict
    )


def numbered(count=10, held_out=4, augment=None):
    """Sequences of one step that hold their own number, two classes in turn."""
    x = torch.arange(count + held_out, dtype=torch.float32).view(-1, 1, 1)
    y = torch.arange(count + held_out) % 2
    train, val = Sample(x[:count], y[:count]), Sample(x[count:], y[count:])
    return Task("numbered", train, val, 2, dict, augment=augment)


def wave_network(**options):
    torch.manual_seed(0)
    settings = {"channels": 16, "states": 8, "layers": 1, "norm": "layer"} | options
    return DeepSSM(1, CLASSES, **settings)


class Bias(nn.Module):
    """The same outputs for every input: two numbers that are learnt."""

    def __init__(self, start=(0.0, 0.0)):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(start))

    def forward(self, x):
        return self.bias.expand(len(x), -1)


class Shown(nn.Module):
    """The first step of a sequence as outputs, times a weight that starts at 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x[:, 0]


def all_right(count=8, right=0):
    """A task with two classes of which `count` are labelled 0; for `Bias`."""
    x = torch.arange(2.0 * count).view(-1, 1, 1)
    y = torch.full((2 * count,), right)
    return Task("constant", Sample(x[:count], y[:count]), Sample(x[count:], y[count:]), 2, dict)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
