"""Layers of packages on PyPI, loaded for tests."""

import importlib.metadata
import importlib.util
import logging
import warnings
from functools import cache


@cache
def popgym_s4():
    """Return the module with popgym's copy of S4, version 3.

    Loaded from its file: the package itself would register environments of a simulator.
    """
    path = importlib.metadata.distribution("popgym").locate_file("popgym/baselines/models/s4d.py")
    spec = importlib.util.spec_from_file_location("popgym_s4d", str(path))
    module = importlib.util.module_from_spec(spec)
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it reports that compiled kernels are missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an escape in a docstring
        spec.loader.exec_module(module)
    logging.disable(level)
    return module
