"""Layers of no known family, adapters for them, and the mistakes that such adapters make."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ssmred.networks import LayerAdapter
from ssmred.systems import DiagonalSystem


def pairs(generator, *shape):
    return torch.randn(*shape, 2, generator=generator)


class Resonators(nn.Module):
    """Independent channels with learned B: ``y = act(2 Re(C x) + skip u)``, zero-order hold."""

    def __init__(self, width=4, modes=3, *, act=None, hold="zoh", first=True, skip=True, twice=2.0):
        super().__init__()
        generator = torch.Generator().manual_seed(width + 10 * modes)
        decay = torch.rand(width, modes, generator=generator)
        self.decay = nn.Parameter(decay)
        self.freq = nn.Parameter(1 + 3 * torch.rand(width, modes, generator=generator))
        self.b = nn.Parameter(pairs(generator, width, modes))
        self.c = nn.Parameter(pairs(generator, width, modes))
        self.log_step = nn.Parameter(torch.log(0.05 + 0.2 * torch.rand(width, generator=generator)))
        self.skip = nn.Parameter(torch.randn(width, generator=generator)) if skip else None
        self.act = nn.GELU() if act is None else act
        self.hold, self.first, self.twice = hold, first, twice

    def forward(self, u):
        A = torch.complex(-F.softplus(self.decay), self.freq)
        dt = self.log_step.exp()[:, None]
        if self.hold == "zoh":
            pole = torch.exp(dt * A)
            gain = (pole - 1) / A
        else:
            pole = (1 + dt * A / 2) / (1 - dt * A / 2)
            gain = dt / (1 - dt * A / 2)
        gain = gain * torch.view_as_complex(self.b)
        x, outputs = torch.zeros(len(u), *A.shape, dtype=A.dtype), []
        for k in range(u.shape[-1]):
            before = x
            x = pole * x + gain * u[..., k, None]
            seen = x if self.first else before
            y = self.twice * (torch.view_as_complex(self.c) * seen).sum(-1).real
            outputs.append(y if self.skip is None else y + self.skip * u[..., k])
        return self.act(torch.stack(outputs, dim=-1))


class ResonatorsAdapter(LayerAdapter):
    family = "resonators"

    def __init__(self, mistake=""):
        self.mistake = mistake

    def recognises(self, module):
        names = {"decay", "freq", "b", "c", "log_step"}
        return names <= {name for name, _ in module.named_parameters(recurse=False)}

    def parts(self, module):
        return {"activation": module.act}

    def to_systems(self, module):
        decay, freq, step, b, c = (
            getattr(module, name).detach().double().numpy()
            for name in ("decay", "freq", "log_step", "b", "c")
        )
        wrong = self.mistake
        A = -np.log1p(np.exp(decay)) + 1j * freq
        A = A.conj() if wrong == "imaginary" else -A.conj() if wrong == "real" else A
        A = -A if wrong == "negative" else A
        dt = np.exp(step)[:, None] * (2.5 if wrong == "step" else 1.0)
        dt = np.abs(step)[:, None] / 20 if wrong == "steps" else dt
        if module.hold == "zoh":
            pole = np.exp(dt * A)
            gain = (pole - 1) / A
        else:
            pole = (1 + dt * A / 2) / (1 - dt * A / 2)
            gain = dt / (1 - dt * A / 2)
        b, c = b[..., 0] + 1j * b[..., 1], c[..., 0] + 1j * c[..., 1]
        b = b.conj() if wrong == "B" else b
        c = c.conj() if wrong == "C" else c
        factor = module.twice * {"missing 2": 0.5, "doubled 2": 2.0, "odd": 0.7}.get(wrong, 1.0)
        D = np.zeros(len(A)) if module.skip is None else module.skip.detach().double().numpy()
        D = np.zeros(len(A)) if "D" in wrong else -D if wrong == "sign of d" else D
        post = module.first != (wrong == "delay")
        factor = factor / 2 if wrong == "no D, missing 2" else factor
        return {
            "core": DiagonalSystem(
                pole,
                gain * b,
                factor * c,
                D,
                recurrence="post-update" if post else "standard",
                real_output=True,
            )
        }


class Ring(nn.Module):
    """One state for all channels, run both ways: ``y = Re(C [x, x~]) + D u``, (batch, T, width)."""

    def __init__(self, width=3, modes=4, *, both=True, delayed=False):
        super().__init__()
        generator = torch.Generator().manual_seed(width)
        angle = torch.pi * torch.rand(modes, generator=generator)
        radius = 0.5 + 0.45 * torch.rand(modes, generator=generator)
        self.ring = nn.Parameter(torch.polar(radius, angle))
        self.into = nn.Parameter(torch.view_as_complex(pairs(generator, modes, width)))
        self.out = nn.Parameter(torch.view_as_complex(pairs(generator, width, modes * (1 + both))))
        self.direct = nn.Parameter(torch.randn(width, width, generator=generator))
        self.both, self.delayed = both, delayed

    def scan(self, u):
        x, states = torch.zeros(len(u), len(self.ring), dtype=self.ring.dtype), []
        for k in range(u.shape[1]):
            x = self.ring * x + u[:, k].to(self.ring.dtype) @ self.into.T
            states.append(x)
        return torch.stack(states, dim=1)

    def forward(self, u):
        x = self.scan(u)
        if self.both:
            other = self.scan(u.flip(1)).flip(1)
            if self.delayed:
                other = F.pad(other, (0, 0, 0, 1))[:, 1:]
            x = torch.cat([x, other], dim=-1)
        return (x @ self.out.T).real + u @ self.direct.T, None


class RingAdapter(LayerAdapter):
    family = "ring"

    def __init__(self, mistake=""):
        self.mistake = mistake

    def recognises(self, module):
        return {"ring", "into", "out", "direct"} == set(module.state_dict())

    def parts(self, module):
        late = module.delayed != (self.mistake == "backward delay")
        return {"delayed": late} if module.both else {}

    def to_systems(self, module):
        ring, into, out, direct = (
            t.detach().resolve_conj().numpy().astype(complex)
            for t in (module.ring, module.into, module.out, module.direct)
        )
        if self.mistake == "B":
            into = into.conj()
        if self.mistake == "imaginary":
            ring = ring.conj()
        if self.mistake == "twice":
            out = 2 * out
        n = len(ring)
        halves = [out[:, :n], out[:, n:]][:: -1 if self.mistake == "swapped" else 1]
        if self.mistake == "transposed":
            halves, into, direct = [into.T] * 2, halves[0].T, direct.T
        if self.mistake == "D":
            direct = 0 * direct
        names = ("core", "backward") if module.both else ("core",)
        return {
            name: DiagonalSystem(
                ring[None],
                into[None],
                half[None],
                (direct.real if name == "core" else 0 * direct.real)[None],
                recurrence="post-update",
                real_output=True,
            )
            for name, half in zip(names, halves, strict=False)
        }
