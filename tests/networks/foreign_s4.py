"""S4 layers as other people write them, with names and equations of state-spaces/s4.

Written from the description of the format; nothing here imports ssmred. The diagonal kernels are
Vandermonde sums, those with a low-rank term truncated generating functions at the roots of unity.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

TRANSFORMS = {
    "none": lambda x: x,
    "exp": torch.exp,
    "relu": lambda x: F.relu(x) + 1e-4,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}
INVERSES = {
    "none": lambda y: y,
    "exp": torch.log,
    "relu": lambda y: y - 1e-4,
    "sigmoid": torch.logit,
    "softplus": lambda y: torch.log(torch.expm1(y)),
}


class ModeBank(nn.Module):
    """The diagonal kernel."""

    def __init__(
        self, width, states, rows=1, systems=None, disc="zoh", real_transform="exp",
        imag_transform="none", dt_transform="exp", bandlimit=None, tied=True, real=False, seed=0,
    ):  # fmt: skip
        super().__init__()
        self.H, self.N = width, states // 2
        self.n_ssm = systems or width
        self.repeat = width // self.n_ssm
        self.disc, self.bandlimit, self.is_real = disc, bandlimit, real
        self.real_transform, self.imag_transform = real_transform, imag_transform
        self.dt_transform = dt_transform
        g = torch.Generator().manual_seed(seed)
        S, n = self.n_ssm, self.N

        def draw(*shape):
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        decay = 0.2 + 0.6 * torch.rand(S, n, generator=g, dtype=torch.float64)
        top = 0.9 if imag_transform == "sigmoid" else 3.0 * n
        wave = 0.05 + top * torch.rand(S, n, generator=g, dtype=torch.float64)
        low, high = math.log(2e-3), math.log(0.2)
        columns = 1 if tied else n
        step = torch.exp(
            low + (high - low) * torch.rand(width, columns, generator=g, dtype=torch.float64)
        )
        pair = () if real else (2,)
        self.register(C=draw(rows, width, n, *pair), B=draw(1, S, n, *pair))
        self.register(inv_dt=INVERSES[dt_transform](step))
        self.register(A_real=INVERSES[real_transform](decay))
        if not real:
            sign = torch.sign(draw(S, n)) if imag_transform == "none" else 1.0
            self.register(A_imag=INVERSES[imag_transform](wave) * sign)

    def register(self, **tensors):
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))

    def pieces(self):
        A = -TRANSFORMS[self.real_transform](self.A_real)
        B, C = self.B, self.C
        if not self.is_real:
            A = A - 1j * TRANSFORMS[self.imag_transform](self.A_imag)
            B, C = torch.view_as_complex(B), torch.view_as_complex(C)
        index = torch.arange(self.H) % self.n_ssm
        A, B = A[index], B[:, index]
        dt = TRANSFORMS[self.dt_transform](self.inv_dt)
        if self.bandlimit is not None:
            C = C * (dt * A.imag.abs() / (2 * math.pi) < self.bandlimit / 2)
        return A, B, C, dt

    def forward(self, L, state=None, rate=1.0):
        A, B, C, dt = self.pieces()
        x = A * dt
        C = C * B
        times = torch.arange(L, device=A.device)
        if self.disc == "dss":
            whole = (torch.exp(x * L) - 1.0) * A
            share = whole.conj() / (whole * whole.conj() + 1e-7)
            weights = C * (torch.exp(x) - 1.0) * share
            waves = torch.exp(x[..., None] * times)
            return torch.einsum("chn,hnl->chl", weights + 0j, waves + 0j).real, None
        if self.disc == "zoh":
            weights, waves = C * (torch.exp(x) - 1.0) / A, torch.exp(x[..., None] * times)
        else:
            weights = C * dt / (1.0 - x / 2)
            waves = torch.exp(torch.log((1.0 + x / 2) / (1.0 - x / 2))[..., None] * times)
        return 2 * torch.einsum("chn,hnl->chl", weights, waves).real, None


class LowRankBank(ModeBank):
    """Diagonal plus low rank; with `whole` False the sums leave out the conjugate modes."""

    def __init__(self, width, states, rows=1, l_max=None, rank=1, whole=True, seed=0, **options):
        super().__init__(width, states, rows, seed=seed, **options)
        self.l_max, self.rank, self.whole = l_max, rank, whole
        g = torch.Generator().manual_seed(seed + 1000)
        P = torch.randn(rank, self.n_ssm, self.N, 2, generator=g, dtype=torch.float64)
        self.register(P=P)
        self.register_buffer("l_kernel", torch.tensor(0))

    def low_rank(self):
        return torch.view_as_complex(self.P)[:, torch.arange(self.H) % self.n_ssm]

    def discrete(self):
        A, B, _, dt = self.pieces()
        P = torch.cat([self.low_rank(), self.low_rank().conj()], -1)
        A, B = torch.cat([A, A.conj()], -1), torch.cat([B, B.conj()], -1)[0]
        full = torch.diag_embed(A) - torch.einsum("rhn,rhm->hnm", P, P.conj())
        identity = torch.eye(A.shape[-1], dtype=A.dtype)
        half = dt[..., None] * full / 2
        return torch.linalg.solve(identity - half, identity + half), torch.linalg.solve(
            identity - half, (dt * B)[..., None]
        )

    @torch.no_grad()
    def make_for(self, length):
        A, _ = self.discrete()
        C = torch.view_as_complex(self.C)
        C = torch.cat([C, C.conj()], -1)
        if self.l_kernel == 0:
            power, sign, new = torch.matrix_power(A, length), -1, length
        else:
            old = int(self.l_kernel)
            power, sign, new = torch.matrix_power(A, old), 1, 2 * old
        C = C + sign * torch.einsum("chn,hnm->chm", C, power)
        self.C.copy_(torch.view_as_real(C[..., : self.N].contiguous()))
        self.l_kernel.fill_(new)

    def forward(self, state=None, rate=1.0, L=None):
        if self.l_kernel == 0 and self.l_max:
            self.make_for(self.l_max)
        while self.l_kernel < L:
            self.make_for(L)
        length = int(self.l_kernel)
        A, B, C, dt = self.pieces()
        P = self.low_rank()
        turn = torch.tensor(math.pi / length, dtype=dt.dtype)
        w = torch.exp(-2j * turn * torch.arange(length // 2 + 1))
        z = 2 * (1 - w) / (1 + w)
        left, right = torch.cat([C, P.conj()]), torch.cat([B, P])
        terms = left[:, None] * right[None] * dt
        poles = A * dt
        if self.whole:
            terms, poles = (
                torch.cat([terms, terms.conj()], -1),
                torch.cat([poles, poles.conj()], -1),
            )
        sums = (terms[..., None] / (z - poles[..., None])).sum(-2)  # (left, right, H, nodes)
        sums = sums.permute(2, 3, 0, 1)
        rows = C.shape[0]
        r00, r01 = sums[..., :rows, :1], sums[..., :rows, 1:]
        r10, r11 = sums[..., rows:, :1], sums[..., rows:, 1:]
        inner = torch.eye(self.rank, dtype=sums.dtype) + r11
        spectrum = (r00 - r01 @ torch.linalg.solve(inner, r10))[..., 0].permute(2, 0, 1)
        return torch.fft.irfft(spectrum * 2 / (1 + w), n=length)[..., :L], None


class Convolver(nn.Module):
    """The inner layer: sequences (batch, T, width), activation after dropout."""

    def __init__(
        self, width, states=8, channels=1, bidirectional=False, swap_channels=False, l_max=None,
        mode="diag", transposed=False, dropout=0.0, activation="gelu", **bank,
    ):  # fmt: skip
        super().__init__()
        self.d_model, self.L = width, l_max
        self.transposed, self.bidirectional = transposed, bidirectional
        self.swap_channels, self.channels = swap_channels, channels
        rows = channels * (2 if activation == "glu" else 1)
        axis = 1 if transposed else -1
        self.activation = nn.GLU(dim=axis) if activation == "glu" else nn.GELU()
        g = torch.Generator().manual_seed(width)
        self.D = nn.Parameter(torch.randn(rows, width, generator=g, dtype=torch.float64))
        rows *= 2 if bidirectional else 1
        if mode == "diag":
            self.kernel = ModeBank(width, states, rows, **bank)
        else:
            self.kernel = LowRankBank(width, states, rows, l_max=l_max, **bank)
        self.drop = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drop_kernel = nn.Identity()

    def forward(self, x, state=None, rate=1.0, **_):
        if not self.transposed:
            x = x.transpose(-1, -2)
        T = x.shape[-1]
        length = T if self.L is None else min(T, self.L)
        k, _ = self.kernel(L=length, rate=rate, state=state)
        if self.bidirectional:
            ahead, back = k.chunk(2)
            k = F.pad(ahead, (0, T)) + F.pad(back.flip(-1), (T, 0))
        size = length + T
        y = torch.fft.rfft(x, n=size)[:, None] * torch.fft.rfft(k, n=size)
        y = torch.fft.irfft(y, n=size)[..., :T] + x[:, None] * self.D[..., None]
        y = y.transpose(1, 2).flatten(1, 2) if self.swap_channels else y.flatten(1, 2)
        y = self.drop(y)
        if not self.transposed:
            y = y.transpose(-1, -2)
        return self.activation(y), None


class DropChannels(nn.Module):
    """Drop whole features of (batch, T, features), or of (batch, features, T)."""

    def __init__(self, p, transposed=True):
        super().__init__()
        self.p, self.transposed = p, transposed

    def forward(self, x):
        if not self.training:
            return x
        shape = (*x.shape[:2], 1) if self.transposed else (x.shape[0], 1, x.shape[2])
        return x * (torch.rand(shape) >= self.p) / (1 - self.p)


class BlockV4(nn.Module):
    """The block around the inner layer: gated mixing on (batch, T, features)."""

    def __init__(self, width, transposed=True, dropout=0.0, tie=False, final="glu", **layer):
        super().__init__()
        self.d_model, self.transposed = width, transposed
        self.layer = Convolver(width, dropout=dropout, **layer)
        self.mult_activation = nn.Identity()
        free = DropChannels(dropout, transposed=False) if tie else nn.Dropout(dropout)
        self.drop = free if dropout else nn.Identity()
        inner = width * self.layer.channels
        outer = 2 * width if final == "glu" else width
        tail = [nn.GLU(dim=-1)] if final == "glu" else []
        self.output_linear = nn.Sequential(nn.Linear(inner, outer), *tail)

    def forward(self, x, lengths=None, **options):
        if self.transposed:
            x = x.transpose(-1, -2)
        y, state = self.layer(x, **options)
        y = self.output_linear(self.drop(self.mult_activation(y)))
        return (y.transpose(-1, -2) if self.transposed else y), state
