"""Generate Pathfinder images: are two circles joined by one dashed path.

After Linsley et al. (2018), "Learning long-range spatial dependencies with horizontal gated
recurrent units", arXiv 1805.08315, and Long Range Arena (arXiv 2011.04006), which uses 32 x 32
pixels. Every image holds two long paths and short ones that distract; circles sit on both ends of
one long path, or on one end of each. The label decides nothing else, and the circles are as far
apart in one case as in the other, so that only following the path tells.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch

from ssmred.checks import check_integer
from ssmred.errors import DataError, RequestError, message
from ssmred.tasks.pathfinder_drawing import SIDE, Scene
from ssmred.tasks.sample import Sample
from ssmred.tasks.task import Task

__all__ = ["Pathfinder", "pathfinder"]

BLOCK = 500
"""Images made together, from a seed of their own."""

ATTEMPTS = 8
"""Paths that are grown before an image is given up."""

PATIENCE = 10
"""Rounds of a block in a row without any image after which a request is refused."""

SEEDS = {"test": 1, "val": 2, "train": 3}


@dataclass(frozen=True)
class Pathfinder:
    """Describe a distribution of images.

    Parameters
    ----------
    dashes : int
        Of each of the two long paths.
    distractors : int
        Short paths that are tried; those that find no room are left out.
    distractor_dashes : int
        Of each short path.
    turn : float
        Largest change of heading from one dash to the next, in radians.

    Raises
    ------
    RequestError
        If an option is out of range.

    Examples
    --------
    >>> images, joined = Pathfinder(dashes=5).sample(4, seed=0)
    >>> images.shape, joined
    ((4, 32, 32), array([1, 0, 1, 0]))
    """

    dashes: int = 9
    distractors: int = 6
    distractor_dashes: int = 3
    turn: float = 0.8

    def __post_init__(self) -> None:
        """Check the ranges."""
        if (
            self.dashes < 2
            or self.distractors < 0
            or self.distractor_dashes < 1
            or not 0.0 <= self.turn <= math.pi / 2
        ):
            raise RequestError(
                message(
                    "Pathfinder",
                    "no image can be drawn",
                    expected="dashes >= 2, distractors >= 0, distractor_dashes >= 1, "
                    "0 <= turn <= pi/2",
                    got=f"{self}",
                )
            )

    def sample(self, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw images.

        Parameters
        ----------
        count : int
        seed : int
            The same seed gives the same images; fewer are the beginning of more.

        Returns
        -------
        images : (count, 32, 32) uint8
        joined : (count,) int64
            1 and 0 in turn, so that every beginning is balanced.

        Raises
        ------
        DataError
            If the long paths do not fit into an image.
        """
        check_integer(count, "count", "Pathfinder.sample", low=1)
        blocks = [self._block(seed, number) for number in range(-(-count // BLOCK))]
        images = np.concatenate(blocks)[:count]
        return images, _labels(count)

    def _block(self, seed: int, number: int) -> np.ndarray:
        """Return one block, (BLOCK, 32, 32) uint8; images whose long paths got stuck are left."""
        rng = np.random.default_rng([seed, number])
        images = np.zeros((BLOCK, SIDE, SIDE), dtype=np.uint8)
        found = misses = 0
        while misses < PATIENCE:
            scene = Scene(BLOCK, rng)
            for _ in range(2):
                scene.keep(scene.path(self.dashes, self.turn, attempts=ATTEMPTS))
            scene.keep(np.arange(scene.count) < BLOCK - found)
            done = found + scene.count
            scene.circles(_labels(BLOCK)[found:done].astype(bool))
            for _ in range(self.distractors):
                scene.path(self.distractor_dashes, self.turn)
            images[found:done] = np.round(255.0 * scene.ink).astype(np.uint8)
            misses = 0 if done > found else misses + 1
            found = done
            if found == BLOCK:
                return images
        raise DataError(
            message(
                "Pathfinder.sample",
                f"two paths of {self.dashes} dashes find no room in {SIDE} x {SIDE} pixels",
                cure="Ask for fewer dashes.",
            )
        )


def pathfinder(
    *,
    training: int = 20_000,
    held_out: int = 2_000,
    test: int = 5_000,
    dashes: int = Pathfinder.dashes,
    distractors: int = Pathfinder.distractors,
    distractor_dashes: int = Pathfinder.distractor_dashes,
    turn: float = Pathfinder.turn,
) -> Task:
    """Return the task: 1,024 steps of one pixel, joined or not.

    Parameters
    ----------
    training, held_out, test : int
        Numbers of images.
    dashes, distractors, distractor_dashes, turn
        See `Pathfinder`.

    Raises
    ------
    RequestError, DataError
        As `Pathfinder`.

    Notes
    -----
    Some seconds for 1,000 images. The published images differ in detail; scores cannot be compared.
    """
    scenes = Pathfinder(dashes, distractors, distractor_dashes, turn)
    sizes = {"train": training, "val": held_out, "test": test}

    def part(name: str) -> Sample:
        images, joined = scenes.sample(sizes[name], seed=SEEDS[name])
        pixels = images.reshape(len(images), -1, 1).astype(np.float32) / 127.5 - 1.0
        return Sample(torch.from_numpy(pixels), torch.from_numpy(joined))

    return Task(
        "pathfinder",
        train=part("train"),
        val=part("val"),
        classes=2,
        test=lambda: part("test"),
        split={
            "source": "generated by ssmred.tasks.pathfinder",
            "how": "each part from its seed",
            "seeds": SEEDS,
            **sizes,
            "scenes": asdict(scenes),
        },
    )


def _labels(count: int) -> np.ndarray:
    return 1 - np.arange(count, dtype=np.int64) % 2
