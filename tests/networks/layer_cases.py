"""The trainable layers in all their forms, and what they should compute, step by step."""

from __future__ import annotations

import torch

from ssmred.networks.layers import LRU, S4, S4D, S5

WIDTH = 5

CAUSAL = {
    "s4d": lambda: S4D(WIDTH, 16),
    "s4d, filter, order 2": lambda: S4D(WIDTH, 2, mixing="none"),
    "s4d, linear, 64 states": lambda: S4D(WIDTH, 64, mixing="linear", dropout=0.3),
    "s4": lambda: S4(WIDTH, 16, dropout=0.3),
    "s4, filter, order 2": lambda: S4(WIDTH, 2, mixing="none"),
    "s4, made for less, 64 states": lambda: S4(WIDTH, 64, mixing="none", length=24),
    "s4, made for more, several systems": lambda: S4(WIDTH, 8, systems=3, length=1000),
    "s4, copies": lambda: S4(WIDTH, 8, mixing="linear", copies=3, length=50),
    "s5": lambda: S5(WIDTH, 16),
    "s5, one mode": lambda: S5(WIDTH, 2),
    "s5, bilinear, blocks": lambda: S5(WIDTH, 64, discretisation="bilinear", blocks=4),
    "s5, all modes stored": lambda: S5(WIDTH, 16, conj_sym=False, clip_eigs=False),
    "lru": lambda: LRU(WIDTH, 64),
    "lru, one mode": lambda: LRU(WIDTH, 2),
    "lru, slow": lambda: LRU(WIDTH, 16, r_min=0.99, r_max=0.9999, max_phase=0.3),
}
TWO_WAYS = {
    "s4": lambda: S4(WIDTH, 16, mixing="none", bidirectional=True),
    "s4, copies": lambda: S4(WIDTH, 8, mixing="none", bidirectional=True, copies=2, length=40),
    "s5": lambda: S5(WIDTH, 16, bidirectional=True),
    "s5, bilinear": lambda: S5(
        WIDTH, 8, discretisation="bilinear", bidirectional=True, conj_sym=False
    ),
}


def made(build, seed: int, dtype: torch.dtype) -> torch.nn.Module:
    """Return a layer with parameters away from their initial values, in eval mode."""
    torch.manual_seed(seed)
    layer = build().to(dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def answer(layer: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Return the output alone."""
    y = layer(u)
    return y[0] if isinstance(y, tuple) else y


def stepped(layer: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Return the output for (batch, H, T), one step after another."""
    state, outputs = layer.initial_state(len(u)), []
    for k in range(u.shape[-1]):
        y, state = layer.step(u[..., k], state)
        outputs.append(y)
    return torch.stack(outputs, dim=-1)


def filtered(layer: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    """Return the linear part of a layer's output."""
    return layer.filter(u) if hasattr(layer, "filter") else layer(u)
