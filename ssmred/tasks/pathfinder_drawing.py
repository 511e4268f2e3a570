"""Draw dashed paths that keep apart, and circles on their ends, on many images at once."""

from __future__ import annotations

import numpy as np

__all__ = ["SIDE", "Scene"]

SIDE = 32
DASH, GAP = 2.0, 1.2
THICKNESS = 0.9
CIRCLE = 1.4
CLEAR = 1.5
"""Lengths in pixels; the last is how far paths stay apart."""

MARGIN = 1.5
"""Width of the border that stays empty, in pixels."""

WINDOW, PAD = 10, 6
"""Pixels around a dash or circle that it can touch; border of the drawing board."""

TRIES = 8
"""Headings that are tried for every dash."""

AHEAD = (5.0, 6.5, 8.0, 9.5)
"""Paths turn away from what is less far ahead than this, in pixels."""

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Scene:
    """Draw on many images at once.

    Attributes
    ----------
    ends : list of (n, 2, 2) float64
        Of every path, where its circles would be: both ends, y and x.
    """

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        side = SIDE + 2 * PAD
        self.rng = rng
        self.ends: list[np.ndarray] = []
        self._ink = np.zeros((count, side, side), dtype=np.float32)
        self._shut = np.zeros((count, side, side), dtype=bool)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self._ink)

    @property
    def ink(self) -> np.ndarray:
        """What was drawn, (n, 32, 32) from 0 to 1."""
        return self._ink[:, PAD:-PAD, PAD:-PAD]

    def keep(self, rows: np.ndarray) -> None:
        """Go on with some of the images."""
        self._ink, self._shut = self._ink[rows], self._shut[rows]
        self.ends = [ends[rows] for ends in self.ends]

    def path(self, dashes: int, turn: float, *, attempts: int = 1) -> np.ndarray:
        """Draw one path into every image that has room for it.

        Parameters
        ----------
        dashes : int
        turn : float
            Largest change of heading between dashes, in radians.
        attempts : int
            Paths that are grown before an image has no room.

        Returns
        -------
        (n,) bool
            Which images had room.
        """
        ends, found = np.zeros((self.count, 2, 2)), np.zeros(self.count, dtype=bool)
        for _ in range(attempts):
            rows = np.flatnonzero(~found)
            shut = self._shut[rows]
            points, room = _grown(shut, dashes, turn, self.rng)
            rows, points = rows[room], points[room]
            self._shut[rows] = shut[room]
            found[rows] = True
            ends[rows] = points[:, [0, -1]]
            for dash in range(dashes):
                self._draw(rows, points[:, 1 + 2 * dash], points[:, 2 + 2 * dash], THICKNESS / 2)
        self.ends.append(ends)
        return found

    def circles(self, joined: np.ndarray) -> None:
        """Draw two circles: on both ends of one path where joined, else on one end of each.

        Of the two pairs of joined ends and the four of others, the two that are most alike in
        distance: so that it tells nothing, one or the other is drawn.
        """
        first, second = self.ends[:2]
        together = np.stack([first, second], axis=1)
        apart = np.stack([np.stack([first[:, i], second[:, j]], 1) for i, j in PAIRS], axis=1)
        gaps = [
            np.linalg.norm(pairs[:, :, 0] - pairs[:, :, 1], axis=-1) for pairs in (together, apart)
        ]
        unlike = np.abs(gaps[0][:, :, None] - gaps[1][:, None]).reshape(-1, 2 * len(PAIRS))
        rows, (one, other) = np.arange(len(first)), np.divmod(unlike.argmin(axis=1), len(PAIRS))
        ends = np.where(joined[:, None, None], together[rows, one], apart[rows, other])
        for circle in ends[:, 0], ends[:, 1]:
            self._draw(rows, circle, circle, CIRCLE)

    def _draw(self, rows: np.ndarray, tail: np.ndarray, head: np.ndarray, radius: float) -> None:
        (_, y, x), distance = _around(tail, head)
        index = (rows[:, None, None], y, x)
        self._ink[index] = np.maximum(self._ink[index], np.clip(radius + 0.5 - distance, 0, 1))


def _grown(
    shut: np.ndarray, dashes: int, turn: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Grow a path in every image, close what is around it, and tell where it found room.

    Returns
    -------
    points : (n, 2 dashes + 2, 2) float64
        First end, tail and head of every dash, last end.
    room : (n,) bool
    """
    count = len(shut)
    room = np.ones(count, dtype=bool)

    def chosen(worth: np.ndarray, *candidates: np.ndarray) -> list[np.ndarray]:
        best = worth.argmax(axis=1)
        room[:] &= worth[np.arange(count), best] > 0
        return [values[np.arange(count), best] for values in candidates]

    def close(tail: np.ndarray, head: np.ndarray, radius: float) -> None:
        index, distance = _around(tail, head)
        shut[index] |= distance < radius + CLEAR

    low, high = CIRCLE + MARGIN, SIDE - 1 - CIRCLE - MARGIN
    starts = low + (high - low) * rng.random((count, TRIES, 2))
    headings = 2.0 * np.pi * rng.random((count, TRIES))
    at, heading = chosen(
        _disc_is_free(shut, starts) * _prospect(shut, starts, headings), starts, headings
    )
    points = [at]
    waiting = (at, at, CIRCLE)
    for dash in range(dashes):
        if dash:
            headings = heading[:, None] + turn * (2.0 * rng.random((count, TRIES)) - 1.0)
            worth = _prospect(shut, at[:, None], headings)
            if dash == dashes - 1:
                worth *= _disc_is_free(shut, at[:, None] + _towards(headings, 2 * GAP + DASH))
            (heading,) = chosen(worth, headings)
        tail, at = at + _towards(heading, GAP), at + _towards(heading, GAP + DASH)
        points += [tail, at]
        close(*waiting)  # one dash late: the next one begins near the end of this one
        waiting = (tail, at, THICKNESS / 2)
    points.append(at + _towards(heading, GAP))
    close(*waiting)
    close(points[-1], points[-1], CIRCLE)
    return np.stack(points, axis=1), room


def _prospect(shut: np.ndarray, place: np.ndarray, headings: np.ndarray) -> np.ndarray:
    """Return 0 where a dash has no room, and more the further one could go on straight ahead."""
    steps = np.array([GAP, GAP + DASH / 2, GAP + DASH, *AHEAD])
    points = place[:, :, None] + _towards(headings, 1.0)[:, :, None] * steps[:, None]
    free = _is_free(shut, points)
    dash, near, far = free[..., :3].all(-1), free[..., 3:5].all(-1), free[..., 5:].all(-1)
    return dash * (1 + near * (1 + far.astype(int)))


def _disc_is_free(shut: np.ndarray, centre: np.ndarray) -> np.ndarray:
    around = CIRCLE * np.exp(2j * np.pi * np.arange(8) / 8)
    ring = np.stack([around.imag, around.real], axis=-1)
    return np.all(_is_free(shut, centre[:, :, None] + ring), axis=-1)


def _is_free(shut: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tell of points (n, k, l, 2) whether they are inside the margin and clear of all paths."""
    inside = ((points >= MARGIN) & (points <= SIDE - 1 - MARGIN)).all(axis=-1)
    y, x = np.moveaxis(np.rint(np.clip(points, 0, SIDE - 1)).astype(int), -1, 0) + PAD
    return inside & ~shut[np.arange(len(shut))[:, None, None], y, x]


def _around(tail: np.ndarray, head: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Return the pixels near a segment of every image, and how far from it they are."""
    corner = np.floor((tail + head) / 2).astype(int) - WINDOW // 2 + 1
    corner = np.clip(corner, -PAD, SIDE + PAD - WINDOW)  # paths without room may leave the image
    y = corner[:, :1, None] + np.arange(WINDOW)[:, None]
    x = corner[:, 1:, None] + np.arange(WINDOW)
    along = (head - tail)[:, :, None, None]
    dy, dx = y - tail[:, :1, None], x - tail[:, 1:, None]
    length = np.maximum((along**2).sum(axis=1), np.finfo(float).tiny)  # circles have none
    share = np.clip((dy * along[:, 0] + dx * along[:, 1]) / length, 0.0, 1.0)
    distance = np.hypot(dy - share * along[:, 0], dx - share * along[:, 1])
    return (np.arange(len(tail))[:, None, None], y + PAD, x + PAD), distance


def _towards(headings: np.ndarray, length: float) -> np.ndarray:
    return length * np.stack([np.sin(headings), np.cos(headings)], axis=-1)
