"""The kernel of the S4 layer: a diagonal plus a low-rank matrix, in the frequency domain.

With ``A = diag(L, conj L) - P P^*``, bilinear steps ``dA = (I - dt A / 2)^{-1} (I + dt A / 2)``,
``dB = (I - dt A / 2)^{-1} dt B`` and ``C~ = C (I - dA^T)``, the sums
``sum_{k < T} C dA^k dB w^k`` at the T-th roots of unity w are, with ``s = dt (1 + w) / 2``,
``dt C~ [(1 - w) I - s A]^{-1} B``: Cauchy sums over L, joined by Woodbury's formula (Gu, Goel and
Re, arXiv 2111.00396, section 3 and appendix C). Written with ``1 - w`` and ``s`` nothing is
singular at ``w = -1``.
"""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from torch import nn

from ssmred.networks.layers.hippo import hippo_modes
from ssmred.networks.layers.layer import check_even, to_array
from ssmred.networks.layers.operator_kernel import OperatorKernel
from ssmred.systems import DenseSystem

__all__ = ["S4Kernel"]


class S4Kernel(OperatorKernel):
    """Generate the kernels of an S4 layer with a HiPPO-LegS matrix.

    ``K_k = C dA^k dB`` with all N conjugate modes written out, ``A`` built of
    ``L = -exp(A_real) - i A_imag`` and P, ``dt = exp(inv_dt)``.

    Parameters
    ----------
    channels : int
        Width ``H``.
    states : int
        Real state dimension of each channel, ``N``, even.
    rows : int
        Kernels of every channel.
    systems : int
        Different (A, B, P); channel h uses that of number ``h mod systems``.
    length : int, optional
        Length that C is made for: fast for sequences up to that length. With None C is stored as
        it is, and every call computes a matrix power.
    dt_min, dt_max : float
        Range of the log-uniform initial steps.

    Attributes
    ----------
    C : nn.Parameter, (rows, H, N/2, 2)
        ``C (I - dA^l)`` where ``l = l_kernel > 0``, otherwise C.
    B : nn.Parameter, (1, systems, N/2, 2)
    P : nn.Parameter, (1, systems, N/2, 2)
        Other ranks load too.
    inv_dt : nn.Parameter, (H, 1)
    A_real, A_imag : nn.Parameter, (systems, N/2)
    l_kernel : torch.Tensor, () int64

    Notes
    -----
    Names, shapes and signs are those of ``SSMKernelDPLR`` in ``models/s4/s4.py`` of
    state-spaces/s4 with its default transforms. Unlike there, a call never changes what is stored.
    Computed in float64. Cost of a call ``O(H N T)`` up to the length that C is made for, with
    ``O(H N^3 log T)`` on top beyond it.
    """

    SLOW: ClassVar[tuple[str, ...]] = ("inv_dt", "A_real", "A_imag", "B", "P")
    AXES: ClassVar[dict[str, int]] = {"C": 1, "inv_dt": 0}
    SYSTEM_AXES: ClassVar[dict[str, int]] = {"A_real": 0, "A_imag": 0, "B": 1, "P": 1}
    l_kernel: torch.Tensor

    def __init__(
        self,
        channels: int,
        states: int = 64,
        *,
        rows: int = 1,
        systems: int = 1,
        length: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        half = check_even(states, "S4Kernel")
        hippo = hippo_modes(states)

        def repeated(values: torch.Tensor) -> nn.Parameter:
            values = torch.view_as_real(values) if values.is_complex() else values
            values = values.to(torch.get_default_dtype()).expand(systems, *values.shape)
            return nn.Parameter(values.clone())

        spread = torch.rand(channels, 1) * (math.log(dt_max) - math.log(dt_min))
        self.inv_dt = nn.Parameter(spread + math.log(dt_min))
        self.A_real = repeated(torch.log(-hippo.poles.real))
        self.A_imag = repeated(-hippo.poles.imag)
        self.B = nn.Parameter(repeated(hippo.B).detach().unsqueeze(0))
        self.P = nn.Parameter(repeated(hippo.P).detach().unsqueeze(0))
        read_out = torch.randn(rows, channels, half, dtype=torch.cfloat)
        self.C = nn.Parameter(torch.view_as_real(read_out).to(self.B.dtype))
        self.register_buffer("l_kernel", torch.tensor(0))
        self.mark()
        if length is not None:
            self.make_for(length)

    @property
    def states(self) -> int:
        """Real state dimension of each channel."""
        return 2 * self.C.shape[-2]

    def forward(self, L: int) -> tuple[torch.Tensor, None]:
        """Return the kernels, (rows, H, L), and ``None`` (upstream's place for a state)."""
        made_for = int(self.l_kernel)
        length = max(made_for, L)
        C = _complex(self.C) if length == made_for else _folded(self._read_out(length))
        A, P, B, dt = self._continuous()
        return _cauchy_kernels(A, P, B, C, dt, length)[..., :L].to(self.C.dtype), None

    def responses(self, T: int) -> torch.Tensor:
        """Return the first T samples of every channel's impulse response, (H, T), of one row."""
        return self(T)[0][0]

    @property
    def settings(self) -> dict[str, int]:
        """Sizes of the tensors."""
        return {
            "channels": self.channels,
            "states": self.states,
            "rows": self.C.shape[0],
            "systems": self.A_real.shape[0],
            "rank": self.P.shape[0],
        }

    @classmethod
    def blank(cls, channels: int, states: int, rows: int, systems: int, rank: int) -> S4Kernel:
        """Return a kernel for a state dict to fill."""
        kernel = cls(channels, states, rows=rows, systems=systems)
        kernel.P = nn.Parameter(kernel.P.detach().repeat(rank, 1, 1, 1))
        kernel.mark()
        return kernel

    def taken(self, channels: torch.Tensor) -> S4Kernel:
        """Return the kernel of some channels; systems that several share stay shared if all do."""
        other = copy.deepcopy(self)
        count = self.A_real.shape[0]
        if count > 1:  # channel h uses number h mod systems, which its new number does not tell
            numbers = torch.arange(self.channels) % count
            for name, axis in self.SYSTEM_AXES.items():
                other._take(name, axis, numbers[channels.cpu()])
        for name, axis in self.AXES.items():
            other._take(name, axis, channels)
        other.mark()
        return other

    def to_system(self) -> DenseSystem:
        """Return the channels of the first row as one batch of N real states, without D."""
        dA, dB, C = (to_array(tensor) for tensor in self.discrete())
        return DenseSystem(dA, dB[..., None], C[0][:, None], recurrence="post-update")

    def by_powers(self, L: int) -> torch.Tensor:
        """Return the same kernels by powers of dA, for comparison: O(H N^2 L), float64."""
        dA, dB, C = self.discrete()
        states = dB.unsqueeze(-1)
        while states.shape[-1] < L:
            states = torch.cat([states, dA @ states], dim=-1)
            dA = dA @ dA
        return torch.einsum("rhn,hnl->rhl", C, states[..., :L])

    def discrete(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return dA (H, N, N), dB (H, N) and C (rows, H, N) for real states, float64.

        The states are real parts, then imaginary parts, of the stored half of the modes; C is free
        of the length that the stored one is made for.
        """
        dA, dB = self._steps()
        C = _unfolded(_complex(self.C))
        if int(self.l_kernel):
            C = _solve_rows(_without_power(dA, int(self.l_kernel)), C)
        return dA, dB, C

    @torch.no_grad()
    def make_for(self, length: int) -> None:
        """Store C for sequences of a length; 0 stores it as it is. The kernels do not change."""
        if length != int(self.l_kernel):
            self.C.copy_(torch.view_as_real(_folded(self._read_out(length))))
            self.l_kernel.fill_(length)

    def _read_out(self, length: int) -> torch.Tensor:
        """Return ``C (I - dA^length)`` for real states, or C for length 0."""
        dA, _, C = self.discrete()
        if not length:
            return C
        return torch.einsum("rhn,hnm->rhm", C, _without_power(dA, length))

    def _continuous(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return A (H, N/2), P (rank, H, N/2), B (H, N/2) and dt (H,), complex128, float64."""
        A = torch.complex(-self.A_real.double().exp(), -self.A_imag.double())
        number = torch.arange(self.inv_dt.shape[0], device=A.device) % A.shape[0]
        P, B = _complex(self.P), _complex(self.B)[0]
        return A[number], P[:, number], B[number], self.inv_dt.double().exp()[:, 0]

    def _steps(self) -> tuple[torch.Tensor, torch.Tensor]:
        A, P, B, dt = self._continuous()
        # z' = X z + Y conj(z) + B u, the upper rows of A for (z, conj z)
        X = torch.diag_embed(A) - torch.einsum("rhn,rhm->hnm", P, P.conj())
        Y = -torch.einsum("rhn,rhm->hnm", P, P)
        upper = torch.cat([(X + Y).real, (Y - X).imag], dim=-1)
        lower = torch.cat([(X + Y).imag, (X - Y).real], dim=-1)
        step = torch.cat([upper, lower], dim=-2) * dt[:, None, None] / 2
        gain = torch.cat([B.real, B.imag], dim=-1) * dt[:, None]
        eye = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
        right = torch.cat([eye + step, gain.unsqueeze(-1)], dim=-1)
        solved = torch.linalg.solve(eye - step, right)
        return solved[..., :-1], solved[..., -1]


def _cauchy_kernels(
    A: torch.Tensor,
    P: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    dt: torch.Tensor,
    length: int,
) -> torch.Tensor:
    """Return ``irfft`` of ``dt C~ [(1 - w) I - s A]^{-1} B``, (rows, H, length)."""
    angles = torch.arange(length // 2 + 1, device=A.device, dtype=dt.dtype)
    angles = -2j * math.pi / length * angles
    gap = -torch.expm1(angles)
    s = dt[:, None] * (1.0 + torch.exp(angles)) / 2
    left = torch.cat([C, P.conj()])
    right = torch.cat([B.unsqueeze(0), P])
    terms = left[:, None] * right
    sums = 0
    for poles, weights in ((A, terms), (A.conj(), terms.conj())):
        cauchy = 1.0 / (gap - s[:, None] * poles[..., None])
        sums = sums + torch.einsum("abhn,hnf->hfab", weights, cauchy)
    rows = C.shape[0]
    direct, into, out, loop = (
        sums[..., :rows, :1],
        sums[..., :rows, 1:],
        sums[..., rows:, :1],
        sums[..., rows:, 1:],
    )
    eye = torch.eye(P.shape[0], dtype=loop.dtype, device=loop.device)
    s = s[..., None, None]
    answer = direct - s * into @ torch.linalg.solve(eye + s * loop, out)
    spectrum = dt[:, None, None] * answer[..., 0]
    return torch.fft.irfft(spectrum.permute(2, 0, 1), n=length)


def _complex(pairs: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(pairs.double().contiguous())


def _unfolded(C: torch.Tensor) -> torch.Tensor:
    """Return the read-out of real states of ``2 Re(C z)``."""
    return 2.0 * torch.cat([C.real, -C.imag], dim=-1)


def _folded(C: torch.Tensor) -> torch.Tensor:
    """Return the half read-out of one of real states."""
    real, imaginary = C.chunk(2, dim=-1)
    return torch.complex(real, -imaginary) / 2


def _without_power(dA: torch.Tensor, length: int) -> torch.Tensor:
    eye = torch.eye(dA.shape[-1], dtype=dA.dtype, device=dA.device)
    return eye - torch.linalg.matrix_power(dA, length)


def _solve_rows(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return x with ``x matrix = rows`` for rows (r, H, N) and matrices (H, N, N)."""
    solved = torch.linalg.solve(matrix.transpose(-1, -2), rows.permute(1, 2, 0))
    return solved.permute(2, 0, 1)
