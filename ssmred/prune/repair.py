"""Fit the mixings behind pruned filters to what the network computed before: no training.

Every layer's position-wise linear map sees other features once operators are gone. Front to back,
each is fitted by least squares to the values that it had in the original network, on calibration
inputs, so that channels that are left stand in for those that went.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import cast

import torch
from torch import nn

from ssmred.checks import check_fraction, check_positive
from ssmred.networks.operator_bank import OperatorBank
from ssmred.networks.sensing import batches
from ssmred.prune.network import PrunableNetwork

__all__ = ["mixings", "repaired"]

RIDGE, READ_OUT_RIDGE = 1e-4, 1e-2
"""Of the mean square of the features: what the fits pay for moving the weights. The read-out of a
pooled sequence sees one row per input, a mixing one per step."""


class _SeenError(Exception):
    """Leave a forward pass once the layer of interest has been seen."""


def mixings(network: PrunableNetwork) -> dict[str, nn.Linear | nn.Conv1d]:
    """Return the position-wise linear map behind every filter that has one, by layer name."""
    found = {}
    for name, path in network.paths.items():
        block = network.model.get_submodule(path.rpartition(".")[0])
        mixing = getattr(block, "output_linear", None)
        if isinstance(mixing, nn.Sequential) and len(mixing):
            mixing = mixing[0]
        pointwise = isinstance(mixing, nn.Conv1d) and mixing.kernel_size == (1,)
        pointwise = pointwise and mixing.groups == 1 and mixing.stride == (1,)
        if isinstance(mixing, nn.Linear) or pointwise:
            found[name] = mixing
    return found


def repaired(
    network: PrunableNetwork,
    original: PrunableNetwork,
    data: torch.Tensor,
    *,
    ridge: float = RIDGE,
    silence: float = 0.0,
) -> PrunableNetwork:
    """Return the network with mixings fitted to those of the original, front to back.

    ``min sum |W f' + b - (W0 f + b0)|^2 + ridge s^2 |W - W0'|^2`` over the calibration inputs, f'
    and f the features in the pruned and in the original network, W0' the weights before, and
    ``s^2`` the mean square of the features times their number.

    Parameters
    ----------
    network, original : PrunableNetwork
        Of the same layers; neither is changed.
    data : torch.Tensor, (S, T, ...)
    ridge : float
    silence : float
        Share of every layer's channels without operator that are silenced: gain and column of the
        mixing are 0. Those that the fit misses least, one after the other. They stay so in
        training where the activation takes 0 to 0, and `ssmred.deploy.compacted` leaves them out.

    Raises
    ------
    DataError
        If `silence` is not in [0, 1), or `ridge` is 0 where channels are silenced.

    Notes
    -----
    Level: an estimate of the best mixing; on the calibration inputs each fit makes the error of
    its own mixing no larger, unless channels are silenced. Layers that mix in other ways stay as
    they are. Theory: ``theory/mixing-refit.md``.
    """
    check_positive(ridge, "ridge", "repaired", allow_zero=True)
    if silence:
        check_fraction(silence, "silence", "repaired")
        check_positive(ridge, "ridge", "repaired")
    answer = PrunableNetwork(copy.deepcopy(network.model).eval(), dict(network.paths))
    modes = network.model.training, original.model.training
    original.model.eval()
    was, now = mixings(original), mixings(answer)
    banks = [answer.banks[name] for name in now]
    pairs = [(was[name], now[name], ridge) for name in now]
    read_out = _read_out_name(original.model, data)
    if read_out is not None:
        modules = (original.model, answer.model)
        last = [cast(nn.Linear, model.get_submodule(read_out)) for model in modules]
        pairs.append((last[0], last[1], READ_OUT_RIDGE * ridge / RIDGE))
    parts = batches(data)
    wanted = [_answers(original.model, [before for before, *_ in pairs], part) for part in parts]
    for number, (_, mixing, share) in enumerate(pairs):
        gram = right = None
        for part, answers in zip(parts, wanted, strict=True):
            features, got = _seen(answer.model, mixing, part)
            wished = cast(torch.Tensor, answers[number])
            rows, gap = _rows(mixing, features), _rows(mixing, wished - got)
            if mixing.bias is not None:
                rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
            gram = rows.T @ rows + (0 if gram is None else gram)
            right = rows.T @ gap + (0 if right is None else right)
        scale = share * float(gram.diagonal()[: mixing.weight.shape[1]].mean())
        gram = gram + scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        _move(mixing, torch.linalg.lstsq(gram, right).solution)
        fits = number < len(banks) and mixing.weight.shape[1] == banks[number].channels
        if silence and fits:
            _silence(banks[number], mixing, gram, silence)
    original.model.train(modes[1])
    return PrunableNetwork(answer.model.train(modes[0]), answer.paths)


def _move(mixing: nn.Linear | nn.Conv1d, move: torch.Tensor) -> None:
    """Move the weights, and the bias where there is one; (features, outputs), the bias last."""
    features = mixing.weight.shape[1]
    with torch.no_grad():
        change = move[:features].T.reshape(mixing.weight.shape)
        mixing.weight += change.to(mixing.weight.dtype)
        if mixing.bias is not None:
            mixing.bias += move[-1].to(mixing.bias.dtype)


def _silence(
    bank: OperatorBank, mixing: nn.Linear | nn.Conv1d, gram: torch.Tensor, share: float
) -> None:
    """Silence a share of the channels without operator, cheapest first, and fit the rest again.

    ``gram`` is the matrix of the normal equations that the weights solve, so that doing without
    column h costs ``|w_h|^2 / (gram^-1)_hh``.
    """
    idle = sorted(set(range(bank.channels)) - set(bank.live.tolist()))
    weights = mixing.weight.detach().flatten(1).T.to(gram)
    silent = [h for h in idle if bank.D[h] == 0 and not weights[h].any()]
    left = [h for h in idle if h not in silent]
    inverse = torch.linalg.inv(gram)
    move = torch.zeros(len(gram), weights.shape[1], dtype=gram.dtype, device=gram.device)
    for _ in range(round(share * len(idle)) - len(silent)):
        now = weights + move[: len(weights)]
        costs = now[left].square().sum(1) / inverse.diagonal()[left]
        gone = left.pop(int(costs.argmin()))
        column = inverse[:, gone] / inverse[gone, gone]
        move -= torch.outer(column, now[gone])
        inverse = inverse - torch.outer(column, inverse[gone])
        silent.append(gone)
    _move(mixing, move)
    with torch.no_grad():
        bank.D[silent] = 0.0
        mixing.weight[:, silent] = 0.0  # what rounding left of them


def _read_out_name(model: nn.Module, data: torch.Tensor) -> str | None:
    """Return the path of the linear map whose output is the network's, if there is one."""
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    *answers, output = _answers(model, [*(m for _, m in linear), model], data[:1])
    named = zip(linear, answers, strict=True)
    return next((name for (name, _), answer in named if answer is output), None)


def _answers(
    model: nn.Module, modules: Sequence[nn.Module], part: torch.Tensor
) -> list[torch.Tensor | None]:
    """Return what some modules answer in one run; None for one that takes no part."""
    seen: dict[int, torch.Tensor] = {}

    def recorder(number: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple, output: torch.Tensor) -> None:
            seen[number] = output

        return hook

    handles = [m.register_forward_hook(recorder(k)) for k, m in enumerate(modules)]
    try:
        with torch.no_grad():
            model(part)
    finally:
        for handle in handles:
            handle.remove()
    return [seen.get(k) for k in range(len(modules))]


def _seen(
    model: nn.Module, module: nn.Module, part: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a module sees and answers; the network runs only up to it."""
    with _watching(module) as seen, torch.no_grad(), suppress(_SeenError):
        model(part)
    return seen[0]


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hook(_module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        seen.append((args[0], output))
        raise _SeenError

    handle = module.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _rows(mixing: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return features or outputs of a mixing, one row per step, float64."""
    if isinstance(mixing, nn.Conv1d):
        values = values.transpose(-1, -2)
    return values.reshape(-1, values.shape[-1]).double()
