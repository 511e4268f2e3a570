"""An LRU layer with the tensors of lru-reduction: real and imaginary parts, a full D."""

import torch
from torch import nn


class FullLRU(nn.Module):
    """Compute ``y = Re(C x) + D u``, written out step by step, from the published description."""

    def __init__(self, inputs: int, outputs: int, modes: int, *, doubled: bool = False) -> None:
        super().__init__()
        radius = torch.rand(modes) * 0.8 + 0.1
        self.nu_log = nn.Parameter(torch.log(-torch.log(radius)))
        self.theta_log = nn.Parameter(torch.log(3.0 * torch.rand(modes)))
        self.gamma_log = nn.Parameter(0.5 * torch.log1p(-(radius**2)))
        self.B_re, self.B_im = (nn.Parameter(torch.randn(modes, inputs)) for _ in range(2))
        self.C_re, self.C_im = (nn.Parameter(torch.randn(outputs, modes)) for _ in range(2))
        self.D = nn.Parameter(torch.randn(outputs, inputs))
        self.doubled = doubled

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """Return outputs (batch, T, outputs) for inputs (batch, T, inputs)."""
        pole = torch.exp(torch.complex(-self.nu_log.exp(), self.theta_log.exp()))
        B = torch.complex(self.B_re, self.B_im) * self.gamma_log.exp().unsqueeze(-1)
        C = torch.complex(self.C_re, self.C_im) * (2.0 if self.doubled else 1.0)
        x = torch.zeros(len(u), len(pole), dtype=B.dtype)
        outputs = []
        for sample in u.unbind(dim=1):
            x = pole * x + sample.to(B.dtype) @ B.T
            outputs.append((x @ C.T).real + sample @ self.D.T)
        return torch.stack(outputs, dim=1)
