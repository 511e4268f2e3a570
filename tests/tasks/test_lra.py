"""Official Long Range Arena files, written here in small, come back as tasks."""

import os
import pickle

import numpy as np
import pytest
import torch
from matplotlib.image import imsave

from ssmred import tasks
from ssmred.errors import DataError, OrderError, ShapeError
from ssmred.tasks.listops import VOCABULARY

# --- ListOps ---------------------------------------------------------------------------------

EXPRESSIONS = {
    "train": [("( ( ( ( [MAX 4 ) 3 ) ] ) )", 4), ("( ( ( [SM 9 ) 5 ) ] )", 4), ("7", 7)],
    "val": [("( ( ( [MED 1 ) 2 ) ] )", 1)],
    "test": [("( ( ( [MIN 8 ) 6 ) ] )", 6)],
}


@pytest.fixture
def listops(tmp_path):
    for part, lines in EXPRESSIONS.items():
        text = "".join(f"{source}\t{target}\n" for source, target in [("Source", "Target"), *lines])
        (tmp_path / f"basic_{part}.tsv").write_text(text, encoding="utf-8")
    return tmp_path


def test_listops(listops):
    task = tasks.load("lra-listops", source=listops, length=6)
    words = [" ".join(VOCABULARY[i] for i in row) for row in task.train.inputs]
    assert words == [
        "<pad> <pad> [MAX 4 3 ]",
        "<pad> <pad> [SM 9 5 ]",
        "<pad> <pad> <pad> <pad> <pad> 7",
    ]
    assert task.train.labels.tolist() == [4, 4, 7]
    assert task.val.labels.tolist() == [1]
    assert task.open_test().labels.tolist() == [6]
    assert (task.vocabulary, task.classes) == (len(VOCABULARY), 10)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[MAX 1 [AVG 2 ] ]\t2", r"line 5 .* has another token; got '\[AVG'"),
        ("[MAX 1 2 3 4 5 6 ]\t6", "line 5 .* is too long; expected at most 6 tokens, got 8"),
        ("[MAX 1 2 ]", "line 5 .* is no expression with an answer"),
        ("[MAX 1 2 ]\ttwo", "line 5 .* is no expression with an answer"),
        ("[MAX 1 2 ]\t12", "labels of train are outside the 10 classes"),
    ],
)
def test_damaged_listops(listops, line, told):
    with (listops / "basic_train.tsv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=told):
        tasks.load("lra-listops", source=listops, length=6)


def test_listops_without_a_part(listops):
    (listops / "basic_test.tsv").unlink()
    task = tasks.load("lra-listops", source=listops)
    with pytest.raises(DataError, match=r"basic_test\.tsv is missing"):
        task.open_test()
    (listops / "basic_val.tsv").write_text("Source\tTarget\n")
    with pytest.raises(DataError, match="val is empty"):
        tasks.load("lra-listops", source=listops)


# --- retrieval -------------------------------------------------------------------------------


@pytest.fixture
def papers(tmp_path):
    lines = {
        "train": ["1.0\t10\t11\tabc\td\xe9", "0.0\t12\t13\tx\tlong long"],
        "eval": ["1.0\t14\t15\tq\tr"],
        "test": ["0.0\t16\t17\ts\tt"],
    }
    for part, pairs in lines.items():
        path = tmp_path / f"new_aan_pairs.{part}.tsv"
        path.write_text("".join(f"{line}\n" for line in pairs), encoding="utf-8")
    return tmp_path


def test_retrieval(papers):
    task = tasks.load("lra-retrieval", source=papers, length=5)
    assert task.kind == "two-stream"
    assert task.train.inputs.tolist() == [
        [[97, 98, 99, 0, 0], [100, 128, 128, 0, 0]],
        [[120, 0, 0, 0, 0], list(b"long ")],
    ]
    assert task.train.labels.tolist() == [1, 0]
    assert task.open_test().labels.tolist() == [0]
    few = tasks.load("lra-retrieval", source=papers, length=5, training=1)
    assert torch.equal(few.train.inputs, task.train.inputs[:1])
    with pytest.raises(OrderError, match="training"):
        tasks.load("lra-retrieval", source=papers, training=0)


def test_retrieval_feeds_networks_for_pairs(papers):
    from ssmred.networks.deep import DeepSSM

    task = tasks.load("lra-retrieval", source=papers, length=5)
    trunk = DeepSSM(task.vocabulary, 4, encoder="embedding", channels=4, states=4, layers=1)
    outputs = tasks.TwoStream(trunk, 4, task.classes)(task.train.inputs)
    assert bool(torch.isfinite(task.loss(outputs, task.train.labels)))


@pytest.mark.parametrize("line", ["1.0\t1\t2\tone text", "2.0\t1\t2\ta\tb", ""])
def test_damaged_retrieval(papers, line):
    with (papers / "new_aan_pairs.train.tsv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"line 3 of .* is no pair"):
        tasks.load("lra-retrieval", source=papers)


def test_empty_retrieval(papers):
    (papers / "new_aan_pairs.eval.tsv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        tasks.load("lra-retrieval", source=papers)


# --- CIFAR-10 --------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        colours = rng.integers(0, 256, (4, 3072)).astype(np.uint8)
        batch = {b"data": colours, b"labels": [i, 1, 2, 3], b"filenames": [b"x.png"] * 4}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path


def test_cifar(cifar):
    task = tasks.load("lra-image", source=cifar)
    assert (len(task.train), len(task.val), task.length) == (18, 2, 1024)
    assert task.train.labels[::4].tolist() == [0, 1, 2, 3, 4]
    with (cifar / "data_batch_1").open("rb") as file:
        red, green, blue = pickle.load(file, encoding="bytes")[b"data"][0].reshape(3, 1024) / 127.5
    wanted = 0.2989 * red + 0.587 * green + 0.114 * blue - 1
    assert np.abs(task.train.inputs[0, :, 0].numpy() - wanted).max() < 1e-6  # float32
    assert task.open_test().labels.tolist() == [5, 1, 2, 3]


class Program:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_cifar_with_a_program(cifar, name):
    mark = cifar / "it-ran"
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"labels": Program(mark)}
    (cifar / name).write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match="is refused"):
        tasks.load("lra-image", source=cifar).open_test()
    assert not mark.exists()


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {b"data": np.zeros((4, 3072), np.uint8)},
        {b"data": np.zeros((4, 3072)), b"labels": [0] * 4},
        {b"data": np.zeros((4, 3071), np.uint8), b"labels": [0] * 4},
        {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0] * 3},
        {b"data": np.zeros((4, 3072), np.uint8), b"labels": ["cat"] * 4},
    ],
    ids=["a list", "no labels", "floats", "another size", "fewer labels", "words"],
)
def test_damaged_cifar(cifar, batch):
    (cifar / "data_batch_5").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match="is no batch of CIFAR-10"):
        tasks.load("lra-image", source=cifar)


def test_cifar_without_a_batch(cifar):
    (cifar / "data_batch_4").unlink()
    with pytest.raises(DataError, match="data_batch_4 is missing"):
        tasks.load("lra-image", source=cifar)


# --- Pathfinder ------------------------------------------------------------------------------

COUNT = 40


@pytest.fixture(params=["text", "array of text", "array of objects"])
def pathfinder(tmp_path, request):
    """Write 40 images of a grey of their own; the label is whether it is odd."""
    level = tmp_path / "curv_contour_length_14"
    for batch in range(2):
        (level / "imgs" / f"{batch}").mkdir(parents=True)
        (level / "metadata").mkdir(exist_ok=True)
        rows = []
        for i in range(COUNT // 2):
            grey = np.full((32, 32), COUNT // 2 * batch + i, dtype=np.uint8)
            save(level / "imgs" / f"{batch}" / f"sample_{i}.png", grey)
            rows.append([f"imgs/{batch}", f"sample_{i}.png", f"{i}", f"{i % 2}", "1.8", "14"])
        path = level / "metadata" / f"{batch}.npy"
        if request.param == "text":
            path.write_text("".join(" ".join(row) + "\n" for row in rows), encoding="utf-8")
        elif request.param == "array of text":
            np.save(path, np.array(rows))
        else:
            np.save(path, np.array(rows, dtype=object))
    return tmp_path


def save(path, grey):
    from PIL import Image

    Image.fromarray(grey).save(path)


def test_pathfinder(pathfinder):
    task = tasks.load("lra-pathfinder", source=pathfinder)
    parts = [task.train, task.val, task.open_test()]
    assert [len(part) for part in parts] == [32, 4, 4]
    greys = [torch.round((part.inputs[:, 0, 0] + 1) * 127.5).long() for part in parts]
    for part, grey in zip(parts, greys, strict=True):
        assert part.inputs.shape[1:] == (1024, 1)
        assert torch.equal(part.labels, grey % 2)
    assert sorted(torch.cat(greys).tolist()) == list(range(COUNT))
    again = tasks.load("lra-pathfinder", source=pathfinder / "curv_contour_length_14")
    assert torch.equal(again.train.inputs, task.train.inputs)


def test_test_images_stay_shut(pathfinder):
    level = pathfinder / "curv_contour_length_14"
    task = tasks.load("lra-pathfinder", source=pathfinder)
    for path in level.glob("imgs/*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="is no image"):
        task.open_test()


def test_images_of_no_bytes_are_left_out(pathfinder):
    (pathfinder / "curv_contour_length_14" / "imgs" / "1" / "sample_7.png").write_bytes(b"")
    task = tasks.load("lra-pathfinder", source=pathfinder)
    assert [task.split[part] for part in ("train", "val", "test")] == [33, 3, 3]


def test_images_of_another_size(pathfinder):
    for path in pathfinder.glob("*/imgs/*/*.png"):
        imsave(path, np.zeros((32, 32, 3)))
    with pytest.raises(DataError, match="has another size"):
        tasks.load("lra-pathfinder", source=pathfinder)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("imgs/0 sample_99.png 0 1", "names an image that is not there"),
        ("../.. secret.png 0 1", "names an image that is not there"),
        ("imgs/0 sample_1.png 0 yes", "a line without folder, name, number and label"),
        ("imgs/0 sample_1.png", "a line without folder, name, number and label"),
    ],
)
def test_damaged_lists(pathfinder, line, told):
    (pathfinder / "secret.png").write_bytes(b"secret")
    path = pathfinder / "curv_contour_length_14" / "metadata" / "0.npy"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=told):
        tasks.load("lra-pathfinder", source=pathfinder)


def test_list_with_a_program(pathfinder):
    mark = pathfinder / "it-ran"
    path = pathfinder / "curv_contour_length_14" / "metadata" / "0.npy"
    np.save(path, np.array([[Program(mark), "a", "0", "1"]], dtype=object))
    with pytest.raises(DataError, match="is refused"):
        tasks.load("lra-pathfinder", source=pathfinder)
    assert not mark.exists()


def test_levels(pathfinder):
    with pytest.raises(ShapeError, match="curv_baseline"):
        tasks.load("lra-pathfinder", source=pathfinder, level="hard")
    with pytest.raises(DataError, match="lists no images"):
        tasks.load("lra-pathfinder", source=pathfinder, level="curv_baseline")
