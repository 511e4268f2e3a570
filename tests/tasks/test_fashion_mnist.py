"""Images are read from IDX files, averaged, and split as the bundled networks were trained."""

import gzip

import numpy as np
import pytest
import torch

from ssmred import tasks, zoo
from ssmred.errors import DataError
from ssmred.tasks import fashion_mnist
from ssmred.tasks.fashion_mnist import SOURCE, mirrored


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write 7 training and 3 test images; the last 2 training images are held out."""
    monkeypatch.setattr(fashion_mnist, "HELD_OUT", 2)
    rng = np.random.default_rng(0)
    for part, count in (("train", 7), ("t10k", 3)):
        write(tmp_path, part, rng.integers(0, 256, (count, 28, 28)), np.arange(count))
    return tmp_path


def write(folder, part, images, labels):
    count = len(images).to_bytes(4, "big")
    side = (28).to_bytes(4, "big")
    data = bytes((0, 0, 8, 3)) + count + side + side + images.astype(np.uint8).tobytes()
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
    data = bytes((0, 0, 8, 1)) + len(labels).to_bytes(4, "big") + labels.astype(np.uint8).tobytes()
    (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(data))


def test_parts(folder):
    task = tasks.load("fashion-mnist", source=folder)
    assert task.train.labels.tolist() == [0, 1, 2, 3, 4]
    assert task.val.labels.tolist() == [5, 6]
    assert (task.length, task.features, task.classes) == (196, 1, 10)
    assert task.open_test().labels.tolist() == [0, 1, 2]


def test_pixels_are_means_of_four(folder):
    images = np.zeros((7, 28, 28))
    images[:, 0, 0] = 4 * np.arange(7)  # different images
    images[0, 2:4, 4:6] = [[100, 200], [0, 50]]  # row 1, column 2: 87.5, rounded to even 88
    write(folder, "train", images, np.arange(7))
    pixels = tasks.load("fashion-mnist", source=folder).train.inputs[0, :, 0]
    assert pixels[14 + 2] == pytest.approx(88 / 127.5 - 1)
    assert (pixels == -1).sum() == 195


def test_test_files_stay_shut_until_they_are_opened(folder):
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    task = tasks.load("fashion-mnist", source=folder)
    with pytest.raises(DataError, match=r"t10k-images.*is missing.*dataset-fashion-mnist"):
        task.open_test()


def test_missing(tmp_path):
    with pytest.raises(DataError, match=r"is missing.*apt-get install dataset-fashion-mnist"):
        tasks.load("fashion-mnist", source=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: b"no gzip file",
        lambda data: gzip.compress(gzip.decompress(data)[:-1]),
        lambda data: gzip.compress(b"\1" + gzip.decompress(data)[1:]),
        lambda data: gzip.compress(b""),
    ],
    ids=["cut", "other", "one pixel short", "other header", "empty"],
)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"])
def test_damaged(folder, damage, file):
    path = folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{file} is (damaged|no IDX file)"):
        tasks.load("fashion-mnist", source=folder)


def test_images_and_labels_are_as_many(folder):
    write(folder, "train", np.zeros((7, 28, 28)), np.arange(7))
    labels = (folder / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(DataError, match="not as many; got 7 and 3"):
        tasks.load("fashion-mnist", source=folder)


def test_too_few(folder, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "HELD_OUT", 7)
    with pytest.raises(DataError, match="too few training images"):
        tasks.load("fashion-mnist", source=folder)


def test_half_are_mirrored():
    x = torch.arange(400 * 196.0).reshape(400, 196, 1)
    found = mirrored(x, torch.Generator().manual_seed(0))
    flipped = x.numpy().reshape(400, 14, 14)[:, :, ::-1].reshape(400, 196, 1)
    is_same = (found == x).all(1).squeeze().numpy()
    is_flipped = (found.numpy() == flipped).all(axis=(1, 2))
    assert (is_same ^ is_flipped).all()
    assert 140 < is_same.sum() < 260  # six standard deviations
    again = mirrored(x, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


@pytest.mark.skipif(not SOURCE.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_images_are_those_of_the_bundled_networks():
    task, (_, data) = tasks.load("fashion-mnist"), zoo.load("fashion-mnist-s4d")
    test = task.open_test()
    assert torch.equal(test.inputs, data.test.inputs)
    assert torch.equal(test.labels, data.test.labels)
    assert (len(task.train), len(task.val)) == (55_000, 5_000)
    rows = {row.numpy().tobytes() for row in task.train.inputs}
    assert all(row.numpy().tobytes() in rows for row in data.calibration.inputs)
