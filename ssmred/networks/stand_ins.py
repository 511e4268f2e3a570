"""Write networks whose layers have no declaration of their own: filters stand in for them.

A layer of another family than S4D is code that a stored network must not hold. What it computes is
known all the same: its linear filters, with what the drop-in takes from the layer. So the imported
network is declared, under the original's own names; the original's tensors are stored beside it,
and the filters' as constants. A network that is loaded from that has the original's state dict, and
can be imported, reduced and verified like the original.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import fx, nn

from ssmred.errors import UnsupportedOperationError, message
from ssmred.networks.adapters import adapter_for
from ssmred.networks.adapters.s4d import S4DAdapter
from ssmred.networks.capture import capture
from ssmred.networks.discovery import import_in_place
from ssmred.networks.filters import LinearFilter, holds_place

__all__ = ["capture_for_storage", "hidden_filters"]


def capture_for_storage(model: nn.Module) -> fx.GraphModule:
    """Return a captured network of modules that can be declared.

    Raises
    ------
    UnsupportedOperationError
        If it cannot be traced, or a drop-in has weights that are not the layer's.
    """
    adapters = [adapter_for(module) for module in model.modules()]
    if all(adapter is None or isinstance(adapter, S4DAdapter) for adapter in adapters):
        return capture(model, is_leaf=lambda leaf: adapter_for(leaf) is not None)
    network = copy.deepcopy(model).eval()
    keys = set(network.state_dict())
    paths = {id(module): path for path, module in network.named_modules()}
    paths |= {id(tensor): key for key, tensor in _tensors(network)}
    imported = import_in_place(network)
    for layer in imported.layers:
        if any(key.startswith(f"{layer.core}.") for key in keys):
            raise _refusal(f"{layer.core} is the name of a part of the original")
        imported.core(layer.name).hide(())
    found = (*imported.model.named_modules(), *_tensors(imported.model))
    renamed = {path: paths[id(item)] for path, item in found if paths.get(id(item), path) != path}
    module = capture(imported.model)
    for node in module.graph.nodes:
        target = str(node.target)
        if node.op == "call_module" and target in renamed:
            module.add_submodule(renamed[target], module.get_submodule(target))
            node.target = renamed[target]
        elif node.op == "get_attr" and target in renamed:
            owner, _, name = renamed[target].rpartition(".")
            if owner and owner not in dict(module.named_modules()):
                module.add_submodule(owner, nn.Module())
            value = dict(_tensors(module))[target]
            setattr(module.get_submodule(owner), name, value)
            node.target = renamed[target]
    module.delete_all_unused_submodules()
    module.recompile()
    used = set(module.state_dict())
    if used - keys:
        raise _refusal(f"a drop-in has weights of its own: {sorted(used - keys)[:3]}")
    for path, core in hidden_filters(module):
        layer = path.rpartition(".")[0]
        inside = f"{layer}." if layer else ""
        core.hide(sorted(key for key in keys - used if key.startswith(inside)))
    return module


def hidden_filters(module: nn.Module) -> Iterator[tuple[str, LinearFilter]]:
    """Yield the filters, by path, whose tensors are not part of the state dict."""
    for path, part in module.named_modules():
        if isinstance(part, LinearFilter) and holds_place(part):
            yield path, part


def _tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _refusal(problem: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        message(
            "save_network",
            problem,
            cure="The weights are stored all the same: build the network with its own class and "
            "call ssmred.networks.load_weights_into(model, folder).",
        )
    )
