"""Circles are joined where the label says so, and nothing else tells it."""

import numpy as np
import pytest
from scipy import ndimage

from ssmred import tasks
from ssmred.errors import DataError, OrderError, RequestError
from ssmred.tasks.pathfinder import Pathfinder
from ssmred.tasks.pathfinder_drawing import CIRCLE, CLEAR, GAP, Scene

EASY = Pathfinder(dashes=5, distractors=3)


def circles_in(image):
    """Return the centres of the two brightest discs, (2, 2)."""
    y, x = np.mgrid[-2:3, -2:3]
    disc = (np.hypot(y, x) < CIRCLE + 0.5).astype(float)
    heat = ndimage.correlate(image.astype(float), disc, mode="constant")
    first = np.unravel_index(heat.argmax(), heat.shape)
    y, x = np.mgrid[: len(image), : len(image)]
    heat[np.hypot(y - first[0], x - first[1]) < 2 * CIRCLE + 1] = 0
    return np.array([first, np.unravel_index(heat.argmax(), heat.shape)])


def joined(image, centres):
    """Follow ink over gaps of half a pixel, in an image of eight times as many pixels."""
    fine = ndimage.zoom(image.astype(float), 8, order=1, grid_mode=True, mode="nearest")
    parts, _ = ndimage.label(fine > 25)
    y, x = (8 * centres + 4).T
    return parts[y[0], x[0]] == parts[y[1], x[1]]


def test_following_the_ink_gives_the_label():
    images, labels = EASY.sample(200, seed=1)
    found = [joined(image, circles_in(image)) for image in images]
    assert np.mean(found == labels.astype(bool)) > 0.9  # pixels are coarse, circles may be missed


def test_distance_of_circles_tells_nothing():
    images, labels = EASY.sample(1_000, seed=2)
    gaps = np.array([np.hypot(*np.subtract(*circles_in(image))) for image in images])
    yes, no = gaps[labels == 1], gaps[labels == 0]
    error = np.hypot(yes.std(), no.std()) / np.sqrt(500)
    assert abs(yes.mean() - no.mean()) < 4 * error


def test_ink_tells_nothing():
    images, labels = EASY.sample(1_000, seed=3)
    ink = images.mean(axis=(1, 2))
    yes, no = ink[labels == 1], ink[labels == 0]
    assert abs(yes.mean() - no.mean()) < 4 * np.hypot(yes.std(), no.std()) / np.sqrt(500)


def test_labels_are_balanced_in_every_beginning():
    _, labels = EASY.sample(41, seed=0)
    assert all(abs(2 * labels[:k].sum() - k) <= 1 for k in range(1, 42))


def test_seeds():
    images, _ = EASY.sample(600, seed=4)
    again, _ = EASY.sample(30, seed=4)
    assert (images[:30] == again).all()
    assert (EASY.sample(30, seed=5)[0] != again).any(axis=(1, 2)).all()
    assert len(np.unique(images, axis=0)) == 600


def test_images_fill_the_range():
    images, _ = EASY.sample(50, seed=0)
    assert images.dtype == np.uint8
    assert (images.max(axis=(1, 2)) == 255).all()
    assert (images[:, [0, -1]] == 0).mean() > 0.95  # the border stays nearly empty


def test_paths_keep_apart():
    """One long path in many images; its far ends are never nearer than paths may be."""
    scene = Scene(400, np.random.default_rng(0))
    room = scene.path(7, 0.8, attempts=8) & scene.path(7, 0.8, attempts=8)
    first, second = (ends[room] for ends in scene.ends)
    gaps = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    assert len(first) > 200
    # a circle's place is taken to the nearest pixel, at most half a diagonal away
    assert gaps.min() > CIRCLE + CLEAR - np.sqrt(0.5)
    straight = np.linalg.norm(first[:, 0] - first[:, 1], axis=-1)
    assert straight.max() <= 7 * (2 + GAP) + GAP + 1e-9


def test_task():
    task = tasks.load("pathfinder", training=20, held_out=10, test=12, dashes=5, distractors=0)
    assert (task.length, task.features, task.classes) == (1024, 1, 2)
    images, labels = Pathfinder(dashes=5, distractors=0).sample(20, seed=3)
    assert (task.train.labels.numpy() == labels).all()
    wanted = images.reshape(20, 1024).astype(np.float32) / 127.5 - 1
    assert (task.train.inputs[..., 0].numpy() == wanted).all()
    assert len(task.open_test()) == 12
    assert task.split["scenes"]["dashes"] == 5


@pytest.mark.parametrize(
    "wrong", [{"dashes": 1}, {"distractors": -1}, {"distractor_dashes": 0}, {"turn": 2.0}]
)
def test_options(wrong):
    with pytest.raises(RequestError, match="no image can be drawn"):
        tasks.load("pathfinder", **wrong)


def test_no_room():
    with pytest.raises(DataError, match="paths of 30 dashes find no room"):
        Pathfinder(dashes=30, turn=0.0).sample(1, seed=0)


def test_count():
    with pytest.raises(OrderError, match="count"):
        EASY.sample(0, seed=0)
