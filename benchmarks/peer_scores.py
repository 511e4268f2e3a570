"""Published state-pruning scores, for comparison on the same model.

LAST (Gwak et al., arXiv 2411.02824): squared H-infinity norm of each mode,
``|c|^2 |b|^2 / (1 - |l|)^2``. AIRE-Prune (arXiv 2602.00534): energy of each mode's impulse
response, ``|c|^2 |b|^2 / (1 - |l|^2)``. Both are normalised inside a layer by the sum of all scores
that are at least as large, compared over the whole network, and the lowest modes are cut; no
read-out is refitted. Written from the formulas.
"""

from __future__ import annotations

import numpy as np

SCORES = {
    "LAST": lambda poles, residues: np.abs(residues) ** 2 / (1 - np.abs(poles)) ** 2,
    "AIRE-Prune": lambda poles, residues: np.abs(residues) ** 2 / (1 - np.abs(poles) ** 2),
}


def layer_normalised(scores: np.ndarray) -> np.ndarray:
    """Divide every score by the sum of the scores of its layer that are at least as large."""
    flat = scores.ravel()
    order = np.argsort(-flat, kind="stable")
    normalised = np.empty_like(flat)
    normalised[order] = flat[order] / np.cumsum(flat[order])
    return normalised.reshape(scores.shape)


def kept_modes(
    score: str, layers: list[tuple[np.ndarray, np.ndarray]], share: float
) -> list[np.ndarray]:
    """Return, per layer, the mask (H, n) of the modes a published score keeps.

    Parameters
    ----------
    score : {"LAST", "AIRE-Prune"}
        Which score.
    layers : list of (poles, residues), each (H, n) complex
        The network's systems.
    share : float
        Share of all modes to keep.
    """
    normalised = [layer_normalised(SCORES[score](*layer)) for layer in layers]
    everything = np.concatenate([values.ravel() for values in normalised])
    removed = round((1 - share) * everything.size)
    threshold = np.sort(everything)[removed - 1] if removed else -np.inf
    return [values > threshold for values in normalised]
