"""Networks with drop-in blocks: written back into own classes, and stored without these."""

import numpy as np
import pytest
import torch
from own_layers import Resonators, Ring, RingAdapter
from test_filter_block import ROUNDING, Network, certificate, exact, own_families, signal, smaller  # noqa: F401
from torch import nn
from torch.nn import functional as F

import ssmred
from ssmred.certify import (
    InputSet,
)
from ssmred.errors import CheckpointError
from ssmred.networks import (
    export_plain,
    import_network,
    load_network,
    register_adapter,
    save_network,
    weights_sha256,
)


class WritingAdapter(RingAdapter):
    def from_systems(self, module, systems, *, states=None):
        ring = Ring(3, states // 2, delayed=module.delayed)
        parts = [systems[name] for name in ("core", "backward")]
        n = states // 2
        poles = np.zeros(n, complex)
        poles[: parts[0].order] = parts[0].poles[0]
        into, out = np.zeros((n, 3), complex), np.zeros((3, 2 * n), complex)
        into[: parts[0].order] = parts[0].B[0]
        for place, part in enumerate(parts):
            out[:, place * n : place * n + part.order] = part.C[0]
        values = {"ring": poles, "into": into, "out": out, "direct": parts[0].D[0]}
        ring.load_state_dict({key: torch.from_numpy(np.array(v)) for key, v in values.items()},
                             assign=True)  # fmt: skip
        return ring


def test_both_filters_are_written_back():
    register_adapter(WritingAdapter())
    model = exact(Network(Ring()))
    _, reduced = smaller(model)
    plain = export_plain(model, reduced).eval()
    assert type(plain.layer) is Ring
    assert plain.layer.ring.shape == (2,)
    x = signal(2, 20, 2)
    with torch.no_grad():
        assert (plain(x) - reduced(x)).abs().max() <= ROUNDING
    with pytest.raises(CheckpointError, match="same layers"):
        export_plain(Network(Resonators(3)), reduced)


def test_adapters_that_name_filters_otherwise_are_refused():
    class Adapter(RingAdapter):
        def to_systems(self, module):
            return {"other": super().to_systems(module)["core"]}

    register_adapter(Adapter())
    with pytest.raises(CheckpointError, match=r"layer layer: .*names its filters otherwise"):
        import_network(Network(Ring()))


class Stack(nn.Module):
    """Layers of two own families, one of them both ways, with a part that import renames."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 3)
        self.first, self.second = Resonators(3), Ring(3)
        self.decoder = nn.Linear(3, 2)

    def forward(self, x):
        x = self.encoder(x)
        x = x + self.first(x.transpose(1, 2)).transpose(1, 2)
        return self.decoder(self.second(x)[0].mean(1))


class GatedRing(Ring):
    """The same with a mixing under a name of its own."""

    def __init__(self):
        super().__init__(3)
        self.blend = nn.Linear(3, 3)

    def forward(self, u):
        return self.blend(F.gelu(super().forward(u)[0]))


class GatedRingAdapter(RingAdapter):
    family = "gated ring"

    def recognises(self, module):
        names = {"ring", "into", "out", "direct", "blend.weight", "blend.bias"}
        return names == set(module.state_dict())

    def parts(self, module):
        return super().parts(module) | {
            "activation": nn.GELU(),
            "output_linear": module.blend,
            "features_last": True,
        }


@pytest.mark.parametrize("kind", ["stack", "gated", "alone"])
def test_layers_of_other_families_are_stored_as_their_filters(kind, tmp_path):
    register_adapter(GatedRingAdapter())
    torch.manual_seed(0)
    model = {"stack": Stack, "gated": lambda: Network(GatedRing()), "alone": Resonators}[kind]()
    model = exact(model)
    save_network(model, tmp_path / "first")
    loaded = load_network(tmp_path / "first")
    x = signal(2, 4, 14) if kind == "alone" else signal(2, 14, 2)
    with torch.no_grad():
        wanted = model(x)
        assert (loaded(x) - wanted).abs().max() <= ROUNDING
    assert set(loaded.state_dict()) == set(model.state_dict())
    assert weights_sha256(loaded) == weights_sha256(model)
    one, two = import_network(model), import_network(loaded)
    assert [(a.name, a.core, a.states) for a in one.layers] == [
        (a.name, a.core, a.states) for a in two.layers
    ]
    for layer in one.layers:
        a, b = (network.core(layer.name).to_system() for network in (one, two))
        assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("poles", "B", "C", "D"))
    if kind != "gated":  # there the stored network keeps the layer's name for its mixing
        assert set(two.model.state_dict()) == set(one.model.state_dict())
    save_network(loaded, tmp_path / "second")
    again = load_network(tmp_path / "second")
    with torch.no_grad():
        assert torch.equal(again(x), loaded(x))
    assert weights_sha256(again) == weights_sha256(model)
    _, reduced = smaller(model)
    if kind != "alone":
        inputs = InputSet.box(-1.0, 1.0)
        made = certificate("worst-case", model, reduced, 14, inputs)
        assert ssmred.verify(made, again, reduced).passed
    _, from_loaded = smaller(again)
    save_network(from_loaded, tmp_path / "third")
    with torch.no_grad():
        assert (from_loaded(x) - reduced(x)).abs().max() <= ROUNDING
        assert torch.equal(load_network(tmp_path / "third")(x), from_loaded(x))
    with pytest.raises(CheckpointError, match="without its class"):
        export_plain(again, reduced)


def test_a_result_with_layers_of_an_own_family_is_loaded_without_their_class(tmp_path):
    class Forward(Stack):
        def __init__(self):
            super().__init__()
            self.second = Resonators(3, 2, act=nn.ReLU())

        def forward(self, x):
            x = self.encoder(x)
            for layer in (self.first, self.second):
                x = x + layer(x.transpose(1, 2)).transpose(1, 2)
            return self.decoder(x.mean(1))

    model = Forward().eval()
    result = ssmred.reduce(model, states=0.5, guarantee="layer", horizon=20, progress=False)
    result.save(tmp_path / "result")
    again = ssmred.load(tmp_path / "result")
    assert ssmred.verify(again.certificate, again.original, again.model).passed
    x = torch.randn(2, 20, 2)
    with torch.no_grad():
        assert torch.equal(again.model(x), result.model(x))
        assert (again.original(x) - model(x)).abs().max() <= 1e-5
