"""Try to break the guarantees: random networks, gradient ascent, repeated splits.

Worst case: random small networks (pre- and post-norm, gated or not, three poolings), random cuts,
random inputs of the declared set; then gradient ascent on the output error of the bundled
networks. Everything runs in float64 and is held against the bound with zero slack. Statistical: the
share of random splits on which the certified fraction of the remaining test images stays below the
bound. Exits 1 on any violation.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

import ssmred
from ssmred import zoo
from ssmred.certify import order_statistic_bound
from ssmred.networks.layers import S4D
from ssmred.report import table

NETWORKS, INPUTS_EACH = 1_000, 8
ASCENTS, ASCENT_STEPS = 6, 60
SPLITS = 200


class RandomNetwork(nn.Module):
    """A small network of random wiring with random weights."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        width, self.inputs = int(rng.integers(2, 6)), int(rng.integers(1, 3))
        depth = int(rng.integers(1, 4))
        self.prenorm, self.residual = bool(rng.integers(2)), bool(rng.integers(2))
        self.pooling = ("mean", "last", "max")[int(rng.integers(3))]
        mixing = ("linear", "glu")[int(rng.integers(2))]
        self.encoder = nn.Linear(self.inputs, width)
        self.layers = nn.ModuleList(
            S4D(width, 2 * int(rng.integers(1, 5)), mixing=mixing) for _ in range(depth)
        )
        norm = (nn.LayerNorm, nn.Identity)[int(rng.integers(2))]
        self.norms = nn.ModuleList(norm(width) for _ in range(depth))
        self.decoder = nn.Linear(width, int(rng.integers(1, 4)))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(float(rng.uniform(0.5, 1.5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.encoder(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            y = norm(x) if self.prenorm else x
            y = layer(y.transpose(-1, -2))[0].transpose(-1, -2)
            y = x + y if self.residual else y
            x = y if self.prenorm else norm(y)
        if self.pooling == "mean":
            x = x.mean(dim=1)
        elif self.pooling == "last":
            x = x[:, -1]
        else:
            x = x.max(dim=1).values
        return self.decoder(x)


def random_networks() -> tuple[int, float, int]:
    """Return trials, the largest error over bound, and violations."""
    trials, worst, violations = 0, 0.0, 0
    for seed in range(NETWORKS):
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        model = RandomNetwork(rng).double().eval()
        horizon = int(rng.integers(2, 40))
        inputs = ssmred.InputSet.box(-1.0, 1.0) if seed % 2 else ssmred.InputSet.ball(3.0)
        result = ssmred.reduce(
            model,
            states=float(rng.uniform(0.1, 0.95)),
            horizon=horizon,
            inputs=inputs,
            guarantee="worst-case",
            progress=False,
        )
        bound = result.certificate.bound * result.certificate.scale
        x = torch.from_numpy(inputs.sample(rng, INPUTS_EACH, horizon, model.inputs))
        with torch.no_grad():
            errors = (model(x) - result.model(x)).norm(dim=-1)
        trials += len(errors)
        violations += int((errors > bound).sum())
        worst = max(worst, float(errors.max()) / bound)
    return trials, worst, violations


def ascent(name: str, tol: float, share: float | None) -> tuple[int, float, int]:
    """Return trials, the largest error over bound, and violations, by gradient ascent."""
    model, _ = zoo.load(name)
    model = model.double()
    wish = {"states": share} if share else {"tol": tol}
    result = ssmred.reduce(model, horizon=196, guarantee="worst-case", progress=False, **wish)
    bound = result.certificate.bound * result.certificate.scale
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ASCENTS, 196, 1, generator=generator, dtype=torch.float64) * 2 - 1
    best = 0.0
    for _ in range(ASCENT_STEPS):
        x.requires_grad_()
        errors = (model(x) - result.model(x)).norm(dim=-1)
        best = max(best, float(errors.detach().max()))
        (gradient,) = torch.autograd.grad(errors.sum(), x)
        x = (x.detach() + 0.1 * gradient.sign()).clamp(-1.0, 1.0)
    return ASCENTS * ASCENT_STEPS, best / bound, int(best > bound)


def coverage() -> tuple[float, float]:
    """Return nominal confidence and the share of splits on which the statement held."""
    model, data = zoo.load("fashion-mnist-s4d")
    result = ssmred.reduce(model, states=0.3, data=data.calibration.inputs, progress=False)
    with torch.no_grad():
        errors = torch.cat(
            [(model(x) - result.model(x)).norm(dim=-1) for x in data.test.inputs.split(500)]
        ).numpy()
    held = 0
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(errors))
        bound = order_statistic_bound(errors[order[:500]], 0.95, 0.95)
        held += bound is not None and bool((errors[order[500:]] <= bound).mean() >= 0.95)
    return 0.95, held / SPLITS


def main() -> int:
    """Run all searches, print the table, return the exit code."""
    rows, broken = [], 0
    for name, (trials, worst, violations) in (
        ("random networks, random inputs", random_networks()),
        ("fashion-mnist-s4d-gelu, tol 1e-3, ascent", ascent("fashion-mnist-s4d-gelu", 1e-3, None)),
        ("fashion-mnist-s4d, half the states, ascent", ascent("fashion-mnist-s4d", 0.0, 0.5)),
    ):
        rows.append([name, f"{trials:,}", f"{worst:.1e}", str(violations)])
        broken += violations
    print(table(rows, ["worst case", "trials", "largest error / bound", "violations"]))
    nominal, held = coverage()
    print(f"\nstatistical: confidence {nominal:.2f}, held on {held:.3f} of {SPLITS} random splits")
    chance = (
        3 * (nominal * (1 - nominal) / SPLITS) ** 0.5
    )  # what a fair coin of 0.95 may fall short
    return int(broken > 0 or held < nominal - chance)


if __name__ == "__main__":
    sys.exit(main())
