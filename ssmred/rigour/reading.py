"""Read stored networks and certificates with nothing but JSON and safetensors.

What is read here is all that a rigorous statement rests on; its hashes are compared with those of
the certificate.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from ssmred.errors import CertificateError, CheckpointError, message

__all__ = ["StoredNetwork", "read_json", "read_network"]

NETWORK, WEIGHTS = "network.json", "weights.safetensors"
CONSTANT = "__constant__."
SCHEMA = 1

WIDE = {np.dtype(np.float32): "complex64", np.dtype(np.float64): "complex128"}


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """Hold one stored network.

    Parameters
    ----------
    folder : Path
    declared : dict
        Its modules and its nodes.
    tensors : dict of str to array
        By key, as they stand in the file; constants of the network have their own prefix.
    complex_keys : frozenset of str
        Tensors stored as pairs of real and imaginary part.
    """

    folder: Path
    declared: dict[str, Any]
    tensors: dict[str, np.ndarray]
    complex_keys: frozenset[str]

    def weights_sha256(self) -> str:
        """Return the SHA-256 of the weights, over sorted keys: key, dtype, shape and bytes."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.tensors.items()):
            if key.startswith(CONSTANT):
                continue
            kind, shape = str(tensor.dtype), tensor.shape
            if key in self.complex_keys:
                kind, shape = WIDE[tensor.dtype], shape[:-1]
            digest.update(f"{key}\0{kind}\0{tuple(shape)}\0".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()


def read_network(folder: Path) -> StoredNetwork:
    """Read a folder that `ssmred.networks.save_network` wrote.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or foreign, the two do not belong together, a weight is not
        finite, or the network's operations are not declared.
    """
    try:
        record = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as error:
        raise _refusal(f"{folder} holds no readable {NETWORK} and {WEIGHTS} ({error})") from error
    if not isinstance(record, dict) or record.get("format") != "ssmred-network":
        raise _refusal(f"{folder / NETWORK} is no stored network")
    if record.get("schema") != SCHEMA:
        raise _refusal(f"{folder / NETWORK} has another schema than {SCHEMA}")
    if record.get("weights_file_sha256") != hashlib.sha256(data).hexdigest():
        raise _refusal(f"{folder / WEIGHTS} is not the file that {NETWORK} was written with")
    declared = record.get("declared")
    if not isinstance(declared, dict):
        raise _refusal(
            f"{folder} does not say what the network computes ({record.get('reason', 'unknown')})",
            "A network whose operations cannot be declared has no rigorous certificate.",
        )
    try:
        tensors = load(data)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise _refusal(f"{folder / WEIGHTS} is damaged or of an unknown dtype: {error}") from error
    pairs = frozenset(record.get("complex", ()))
    for key, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise _refusal(f"{key} holds nan or inf")
        if key in pairs and (tensor.shape[-1:] != (2,) or tensor.dtype not in WIDE):
            raise _refusal(f"{key} holds no complex numbers")
    return StoredNetwork(folder, declared, tensors, pairs)


def read_json(path: Path) -> dict[str, Any]:
    """Read a certificate as plain data.

    Raises
    ------
    CertificateError
        If it is no JSON object, holds a key twice, or nan or an infinity.
    """
    try:
        data = json.loads(
            path.read_text(encoding="utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repetition,
        )
    except (OSError, ValueError, RecursionError) as error:
        raise CertificateError(
            message("rigour", f"{path} is no readable certificate ({error})")
        ) from error
    if not isinstance(data, dict):
        raise CertificateError(message("rigour", f"{path} is no certificate"))
    return data


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands there twice")
    return data


def _refusal(problem: str, cure: str = "Save the result again.") -> CheckpointError:
    return CheckpointError(message("rigour", problem, cure=cure))
