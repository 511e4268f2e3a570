"""Exceptions of ssmred.

Every exception derives from :class:`SsmredError` and from the builtin a caller would expect, so
``except ValueError`` keeps working. A message names the function, what was wrong, what was
expected, what came and the cure; :func:`message` composes it.
"""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "CertificateError",
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "MissingDependencyError",
    "OrderError",
    "RequestError",
    "ShapeError",
    "SsmredError",
    "ToleranceError",
    "UnstableSystemError",
    "UnsupportedOperationError",
    "message",
]


class SsmredError(Exception):
    """Base class of every exception that ssmred raises on purpose."""


class ShapeError(SsmredError, ValueError):
    """Report an array whose shape, dtype or kind does not fit."""


class OrderError(SsmredError, ValueError):
    """Report an order (number of states) that cannot be used."""


class RequestError(SsmredError, ValueError):
    """Report an option that does not exist, or a model in no state to be worked on."""


class ToleranceError(SsmredError, ValueError):
    """Report a tolerance that is not a positive number or cannot be reached.

    Parameters
    ----------
    text : str
        The message.
    best : float, optional
        The best value that can be reached, where it is known.
    """

    def __init__(self, text: str, *, best: float | None = None) -> None:
        super().__init__(text)
        self.best = best


class UnstableSystemError(SsmredError, ValueError):
    """Report a system whose infinite-horizon quantity does not exist."""


class CheckpointError(SsmredError, ValueError):
    """Report stored weights that are missing, misshapen, not finite or not understood."""


class CertificateError(SsmredError, ValueError):
    """Report a certificate that is damaged, foreign, too new, or does not describe the models."""


class DataError(SsmredError, ValueError):
    """Report data (values, amount, dtype) that cannot carry the requested statement."""


class AccuracyError(SsmredError, ArithmeticError):
    """Report a residual too large to back a claim."""


class DivergenceError(SsmredError, ArithmeticError):
    """Report a training whose loss or weights are no longer finite."""


class UnsupportedOperationError(SsmredError, TypeError):
    """Report an operation, format or kind of system that a function has no rule for."""


class MissingDependencyError(SsmredError, ImportError):
    """Report an optional package that is needed and not installed."""


def message(where: str, problem: str, *, expected: str = "", got: str = "", cure: str = "") -> str:
    """Compose the text of an error: ``where: problem; expected ..., got .... cure``.

    Parameters
    ----------
    where : str
        The public function or class that refuses.
    problem : str
        What is wrong, in words.
    expected, got, cure : str, optional
        What would have been right, what came, and what to do about it.

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> print(message("h2_norm", "horizon < 1", expected=">= 1", got="-3", cure="Pass None."))
    h2_norm: horizon < 1; expected >= 1, got -3. Pass None.
    """
    text = f"{where}: {problem}"
    if expected:
        text += f"; expected {expected}"
    if got:
        text += f"{',' if expected else ';'} got {got}"
    if cure:
        text += f". {cure}"
    return text
