"""Networks as other people write them: own class names, own attribute names, own wiring.

The layers compute what the minimal S4D layer of state-spaces/s4 computes; nothing here imports
ssmred, so recognition can only go by structure.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class SharedMaskDropout(nn.Module):
    """Drop whole channels, one mask for all steps."""

    def __init__(self, p):
        super().__init__()
        self.p = p
        self.coin = torch.distributions.Bernoulli(probs=1 - p)

    def forward(self, x):
        if not self.training:
            return x
        return x * self.coin.sample(x.shape[:2]).unsqueeze(-1).to(x) / (1 - self.p)


class ExponentialBank(nn.Module):
    def __init__(self, width, pairs, frozen=()):
        super().__init__()
        generator = torch.Generator().manual_seed(width * 1000 + pairs)

        def uniform(*shape):
            return torch.rand(*shape, generator=generator)

        tensors = {
            "C": torch.randn(width, pairs, 2, generator=generator),
            "log_dt": math.log(1e-3) + uniform(width) * math.log(100.0),
            "log_A_real": torch.log(0.5 * torch.ones(width, pairs)) + 0.2 * uniform(width, pairs),
            "A_imag": math.pi * torch.arange(pairs).repeat(width, 1) + 0.1 * uniform(width, pairs),
        }
        for name, tensor in tensors.items():
            if name in frozen:
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, L):
        step = self.log_dt.exp().unsqueeze(-1)
        rates = torch.complex(-self.log_A_real.exp(), self.A_imag)
        exponent = rates * step
        amplitudes = torch.view_as_complex(self.C) * (exponent.exp() - 1.0) / rates
        times = torch.arange(L, device=rates.device)
        waves = torch.exp(exponent.unsqueeze(-1) * times)
        return 2.0 * torch.einsum("hn,hnl->hl", amplitudes, waves).real


class BilinearBank(ExponentialBank):
    """The same tensors, another discretisation: not this layer."""

    def forward(self, L):
        half = torch.complex(-self.log_A_real.exp(), self.A_imag) * self.log_dt.exp()[:, None] / 2
        poles = (1 + half) / (1 - half)
        amplitudes = torch.view_as_complex(self.C) * self.log_dt.exp()[:, None] / (1 - half)
        waves = poles.unsqueeze(-1) ** torch.arange(L)
        return 2.0 * torch.einsum("hn,hnl->hl", amplitudes, waves).real


class DiagonalMixer(nn.Module):
    """The usual attribute names, nothing else in common."""

    def __init__(
        self, h, n=16, dropout=0.0, transposed=True, gated=True, frozen=(), bank=ExponentialBank
    ):
        super().__init__()
        self.h, self.n = h, n
        self.transposed = transposed
        self.D = nn.Parameter(torch.randn(h, generator=torch.Generator().manual_seed(h)))
        self.kernel = bank(h, n // 2, frozen)
        self.activation = nn.GELU()
        self.dropout = SharedMaskDropout(dropout) if dropout else nn.Identity()
        tail = [nn.GLU(dim=-2)] if gated else []
        self.output_linear = nn.Sequential(nn.Conv1d(h, 2 * h if gated else h, 1), *tail)

    def forward(self, u, **kwargs):
        u = u if self.transposed else u.mT
        L = u.shape[-1]
        answer = torch.fft.irfft(
            torch.fft.rfft(u, n=2 * L) * torch.fft.rfft(self.kernel(L=L), n=2 * L), n=2 * L
        )
        answer = answer[..., :L] + self.D[:, None] * u
        answer = self.output_linear(self.dropout(self.activation(answer)))
        return (answer if self.transposed else answer.mT), None


class UnusualNames(nn.Module):
    """Other attribute names, a functional activation, one output, an ungated mixing."""

    def __init__(self, width, pairs):
        super().__init__()
        self.D = nn.Parameter(torch.linspace(-1, 1, width))
        self.bank = ExponentialBank(width, pairs)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, u):
        L = u.shape[-1]
        spectrum = torch.fft.rfft(u, n=2 * L) * torch.fft.rfft(self.bank(L), n=2 * L)
        y = torch.fft.irfft(spectrum, n=2 * L)[..., :L] + self.D[:, None] * u
        return self.mix(F.silu(y))


class WithShortcut(DiagonalMixer):
    """The tensors of the layer, but a residual inside its forward: not this layer."""

    def forward(self, u, **kwargs):
        return super().forward(u)[0] + u, None


class ExampleNetwork(nn.Module):
    """Encoder, residual blocks with LayerNorm before or after, mean over time, decoder."""

    def __init__(self, features=3, classes=5, width=8, depth=2, prenorm=False, n=16, **layer):
        super().__init__()
        self.prenorm = prenorm
        self.encoder = nn.Linear(features, width)
        self.blocks = nn.ModuleList(
            DiagonalMixer(width, n, dropout=0.1, **layer) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.drops = nn.ModuleList(nn.Dropout1d(0.1) for _ in range(depth))
        self.decoder = nn.Linear(width, classes)

    def forward(self, x):
        x = self.encoder(x).transpose(-1, -2)
        for block, norm, drop in zip(self.blocks, self.norms, self.drops, strict=True):
            z = x
            if self.prenorm:
                z = norm(z.transpose(-1, -2)).transpose(-1, -2)
            z, _ = block(z)
            x = drop(z) + x
            if not self.prenorm:
                x = norm(x.transpose(-1, -2)).transpose(-1, -2)
        return self.decoder(x.transpose(-1, -2).mean(dim=1))


class TokenNetwork(nn.Module):
    """Embedding in front, sequences (batch, T, width) throughout, last step, functional calls."""

    def __init__(self, vocabulary=11, width=8):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.first = DiagonalMixer(width, 8, transposed=False)
        self.second = DiagonalMixer(width, 8, transposed=False, gated=False)
        self.norm = nn.LayerNorm(width)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.head = nn.Linear(width, 4)

    def forward(self, tokens, mask=None):
        x = self.embedding(tokens)
        y, _ = self.first(x, state=None)
        x = x + F.dropout(y, 0.2, training=self.training)
        x = F.layer_norm(x, (x.shape[-1],), self.norm.weight, self.norm.bias)
        y, _ = self.second(x)
        gate, value = (y * self.gain - 0.25).chunk(2, dim=-1)
        x = torch.cat([torch.sigmoid(gate) * F.relu(value), value.tanh() / 3.0], dim=-1)
        return self.head(x[:, -1])


class PooledNetwork(nn.Module):
    """Univariate input, BatchNorm, maximum and average pooling, reshapes, matrix products."""

    def __init__(self, width=6):
        super().__init__()
        self.lift = nn.Parameter(torch.randn(width, generator=torch.Generator().manual_seed(3)))
        self.norm = nn.BatchNorm1d(width)
        self.layer = UnusualNames(width, 4)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.mix = nn.Parameter(
            torch.randn(2 * width, 4, generator=torch.Generator().manual_seed(4))
        )

    def forward(self, x):
        B, T = x.shape
        x = x.unsqueeze(-1) @ self.lift.unsqueeze(0)
        x = self.norm(x.permute(0, 2, 1))
        x = -self.layer(x)
        x = x.view(B, 2, -1, T).flatten(1, 2)
        pooled = torch.cat([self.pool(x).squeeze(-1), x.amax(dim=2)], dim=-1)
        return pooled @ self.mix


class Positional(nn.Module):
    """A learned position per step: only for one length."""

    def __init__(self, length, width=4):
        super().__init__()
        self.encoder = nn.Linear(2, width)
        self.positions = nn.Parameter(
            torch.randn(length, width, generator=torch.Generator().manual_seed(5))
        )
        self.layer = DiagonalMixer(width, 4, transposed=False)

    def forward(self, x):
        return self.layer(self.encoder(x) + self.positions)[0].sum(1)


def settle(model, dtype=torch.float32, seed=0):
    """Give a network random weights of a dtype, with settled norms, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to(dtype)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            if isinstance(module, (nn.BatchNorm1d, nn.LayerNorm)):
                module.weight.add_(0.3 * torch.randn(module.weight.shape, generator=generator))
                module.bias.add_(0.3 * torch.randn(module.bias.shape, generator=generator))
    return model.eval()
