"""Load the bundled networks and the record of their training."""

from __future__ import annotations

import json
from importlib.resources import as_file
from typing import Any

from safetensors.torch import load_file

from ssmred.errors import CheckpointError
from ssmred.networks.deep import DeepSSM
from ssmred.zoo.tasks import FOLDER, ZooData, task_data

__all__ = ["load", "names", "record"]


def names() -> tuple[str, ...]:
    """Return the names of the bundled networks.

    Examples
    --------
    >>> "fashion-mnist-s4d" in names()
    True
    """
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in FOLDER.iterdir()
            if entry.name.endswith(".json")
        )
    )


def record(name: str) -> dict[str, Any]:
    """Return how a bundled network was trained: recipe, options, history, test accuracy.

    Raises
    ------
    CheckpointError
        If no bundled network has this name.
    """
    if name not in names():
        raise CheckpointError(
            f"zoo: no network called {name!r}; expected one of {', '.join(names())}. "
            "Spell it as `ssmred zoo` lists it."
        )
    return json.loads((FOLDER / f"{name}.json").read_text())


def load(name: str) -> tuple[DeepSSM, ZooData]:
    """Return a bundled trained network, in eval mode, and its data.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    model : DeepSSM
        A fresh copy with the trained float32 weights.
    data : ZooData
        Calibration sample and the whole test set, 10,000 sequences.

    Raises
    ------
    CheckpointError
        If no bundled network has this name.

    Notes
    -----
    Data: Fashion-MNIST (Zalando SE, MIT licence), averaged over 2 x 2 pixels and read row by row;
    ListOps expressions, generated (`ssmred.tasks.listops`). Made by ``benchmarks/train_zoo.py``.
    """
    made = record(name)
    model = DeepSSM(**made["recipe"])
    with as_file(FOLDER / f"{name}.safetensors") as path:
        model.load_state_dict(load_file(path))
    return model.eval(), task_data(made["task"])
