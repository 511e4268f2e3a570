"""A minimal S4D layer under given attribute names, for networks that are rebuilt from a file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ssmred.networks.adapters.s4d import S4DAdapter
from ssmred.networks.adapters.s4d_parts import find_parts
from ssmred.networks.layers import S4DKernel

__all__ = ["PlainS4D"]


class PlainS4D(nn.Module):
    """Compute what a minimal S4D layer computes, with its operations in its order.

    ``mixing(dropout(activation(K * u + D u)))``; the results are those of state-spaces/s4 bit for
    bit, and a state dict of the layer it was made from loads.

    Parameters
    ----------
    channels, modes : int
    names : dict of str to str
        Attribute names of ``kernel``, ``activation``, ``dropout`` and ``mixing``.
    transposed, paired : bool
        Layout of the sequences, and whether the answer is ``(y, None)``.
    reused : dict of str to nn.Module
        Activation, dropout and mixing, by role.
    """

    def __init__(
        self,
        channels: int,
        modes: int,
        names: dict[str, str],
        transposed: bool,
        paired: bool,
        reused: dict[str, nn.Module],
    ) -> None:
        super().__init__()
        self.settings = {
            "channels": channels,
            "modes": modes,
            "names": names,
            "transposed": transposed,
            "paired": paired,
        }
        self.D = nn.Parameter(torch.zeros(channels))
        for role, module in (("kernel", S4DKernel(channels, 2 * modes)), *reused.items()):
            self.add_module(names[role], module)

    @property
    def transposed(self) -> bool:
        """Whether sequences are (batch, H, T)."""
        return self.settings["transposed"]

    @property
    def reused(self) -> dict[str, nn.Module]:
        """Activation, dropout and mixing, by role."""
        names = self.settings["names"]
        return {role: getattr(self, names[role]) for role in ("activation", "dropout", "mixing")}

    @classmethod
    def like(cls, module: nn.Module) -> PlainS4D:
        """Return an equivalent of a recognised layer; it shares the layer's submodules.

        Raises
        ------
        CheckpointError
            If the layer does not compute what its weights say.
        """
        parts = find_parts(module)
        adapter = S4DAdapter()
        block = adapter.to_block(module, {"core": nn.Identity()})
        names = {
            "kernel": parts.kernel,
            "activation": parts.activation or "activation",
            "dropout": parts.dropout or "dropout",
            "mixing": parts.mixing or "mixing",
        }
        reused = {
            "activation": block.activation,
            "dropout": block.dropout,
            "mixing": block.output_linear,
        }
        layer = cls(parts.channels, parts.modes, names, block.transposed, block.paired, reused)
        layer.load_state_dict(module.state_dict(), assign=True)
        return layer.train(module.training)

    def forward(self, u: torch.Tensor, **_ignored: Any) -> Any:
        """Return the layer's output."""
        names = self.settings["names"]
        if not self.transposed:
            u = u.transpose(-1, -2)
        length = u.size(-1)
        kernel = getattr(self, names["kernel"])(L=length)
        spectrum = torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * spectrum, n=2 * length)
        y = y[..., :length] + u * self.D.unsqueeze(-1)
        y = self.reused["activation"](y)
        y = self.reused["mixing"](self.reused["dropout"](y))
        if not self.transposed:
            y = y.transpose(-1, -2)
        return (y, None) if self.settings["paired"] else y
