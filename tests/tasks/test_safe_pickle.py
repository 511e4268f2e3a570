"""Pickles of arrays come back as NumPy wrote them; whatever else a pickle names never runs."""

import builtins
import codecs
import io
import os
import pickle
import struct

import numpy as np
import pytest

from ssmred.errors import DataError
from ssmred.tasks.safe_pickle import read_npy, read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def written(tmp_path, data):
    path = tmp_path / "data.pickle"
    path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data))
    return path


def read(tmp_path, data):
    return read_pickle(written(tmp_path, data), "the test")


# --- what is allowed -------------------------------------------------------------------------


ARRAYS = {
    "uint8": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "float32": np.linspace(0, 1, 5, dtype=np.float32),
    "big endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "bytes": np.array([b"one", b"three"]),
    "text": np.array(["one", "three"]),
    "no axes": np.array(3.5),
    "objects": np.array([["imgs/0", b"sample", 1, None]], dtype=object),
    "empty": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(tmp_path, name, protocol):
    array = ARRAYS[name]
    found = np.asarray(read(tmp_path, pickle.dumps(array, protocol=protocol)))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert (found == array).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers(tmp_path, protocol):
    value = {"a": [1, 2.5, None, True], b"b": ("c", b"\xff"), 3: [b""], "array": np.arange(3)}
    found = read(tmp_path, pickle.dumps(value, protocol=protocol))
    array = found.pop("array")
    value.pop("array")
    assert (array == np.arange(3)).all()
    assert found == value


def test_numbers_of_numpy(tmp_path):
    assert read(tmp_path, [np.float64(2.5), np.int8(-3)]) == [2.5, -3]


def test_arrays_can_be_changed_and_are_one_where_they_were_one(tmp_path):
    array = np.zeros(3)
    first, second = read(tmp_path, [array, array])
    first[0] = 1
    assert second[0] == 1


def test_python_2(tmp_path):
    """As CIFAR-10 is written: strings of Python 2, NumPy's names of that time."""
    raw = bytes(range(6))
    data = (
        b"\x80\x02}q\x01U\x04dataq\x02"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06" + raw + b"tb"
        b"sU\x06labels](K\x03K\x04es."
    )
    found = read(tmp_path, data)
    assert found[b"labels"] == [3, 4]
    assert (found[b"data"] == np.arange(6).reshape(2, 3)).all()


def test_copies_without_end_are_made_once(tmp_path):
    """Forty lists, each twice in the next: a trillion entries if all were made."""
    value = [1]
    for _ in range(40):
        value = [value, value]
    found = read(tmp_path, value)
    for _ in range(40):
        assert found[0] is found[1]
        found = found[0]


# --- what is not -----------------------------------------------------------------------------


class Payload:
    """A pickle that calls something."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.fixture
def mark(tmp_path):
    """A file that a payload would make."""
    return tmp_path / "it-ran"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("inside", ["alone", "in a dict", "in an array"])
def test_programs_do_not_run(tmp_path, mark, protocol, inside):
    payload = Payload(os.system, f"touch {mark}")
    value = {
        "alone": payload,
        "in a dict": {"data": np.zeros(3), "labels": payload},
        "in an array": np.array([payload, 1], dtype=object),
    }[inside]
    data = pickle.dumps(value, protocol=protocol)
    with pytest.raises(DataError, match=r"is refused, for it holds the name \w+\.system"):
        read(tmp_path, data)
    assert not mark.exists()
    if inside == "alone":
        pickle.loads(data)
        assert mark.exists()  # elsewhere it does


@pytest.mark.parametrize(
    "call",
    [builtins.eval, builtins.exec, builtins.getattr, builtins.__import__, builtins.open,
     os.popen, codecs.decode, np.load, np.fromfile, np.memmap],
    ids=lambda call: call.__name__,
)  # fmt: skip
def test_functions_are_refused(tmp_path, call):
    with pytest.raises(DataError, match="is refused, for it holds the name"):
        read(tmp_path, Payload(call, "1"))


NAMES = [
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.f2py.crackfortran", "myeval"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy._core.multiarray", "frombuffer"),
    ("numpy._core.multiarray", "_reconstruct.__class__"),
    ("numpy", "ndarray.tofile"),
    ("numpy", "ndarray.__init_subclass__"),
    ("numpy", "load"),
    ("numpy", "os.system"),
    ("numpy.core", "multiarray._reconstruct"),
    ("numpy.ma.core", "_mareconstruct"),
    ("_codecs", "decode"),
    ("_codecs", "lookup"),
    ("ssmred.tasks.safe_pickle", "_Reader"),
    ("copyreg", "_reconstructor"),
    ("__builtin__", "eval"),
    ("builtins", "dict"),
]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: part)
def test_names_are_refused_before_they_are_imported(tmp_path, module, name):
    plain = f"c{module}\n{name}\n.".encode()
    long = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    stacked = long + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    for data in (plain, stacked):
        with pytest.raises(DataError, match="is refused, for it holds the name"):
            read(tmp_path, data)


def op(text):
    return text.encode("latin-1")


RECONSTRUCT = "cnumpy.core.multiarray\n_reconstruct\n"
U1 = "cnumpy\ndtype\n(S'u1'\ntR"
EMPTY = RECONSTRUCT + "(cnumpy\nndarray\n(I0\ntS'b'\ntR"

TRICKS = {
    "array of another class": RECONSTRUCT + "(I1\n(I0\ntS'b'\ntR.",
    "array class called": "cnumpy\nndarray\n(I5\ntR.",
    "bare class": "cnumpy\nndarray\n.",
    "bare function in a list": "(lp0\n" + RECONSTRUCT + "a.",
    "array without state": EMPTY + ".",
    "more shape than bytes": EMPTY + "(I1\n(I900\nt" + U1 + "I00\nS'abc'\ntb.",
    "huge shape": EMPTY + "(I1\n(L100000000000L\nt" + U1 + "I00\nS'abc'\ntb.",
    "negative shape": EMPTY + "(I1\n(I-1\nI-3\nt" + U1 + "I00\nS'abc'\ntb.",
    "objects from bytes": EMPTY + "(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\ntRI00\nS'12345678'\ntb.",
    "state twice": EMPTY + ("(I1\n(I1\nt" + U1 + "I00\nS'a'\ntb") * 2 + ".",
    "state of another form": EMPTY + "(I1\nI2\ntb.",
    "fields": "cnumpy\ndtype\n(S'i4,(2,3)f8'\ntR.",
    "metadata": U1 + "(I4\nS'|'\nNS'names'\n(dtb.",
    "void": "cnumpy\ndtype\n(S'V8'\ntR.",
    "date": "cnumpy\ndtype\n(S'M8[us]'\ntR.",
    "class where a text belongs": "cnumpy\ndtype\n(cnumpy\nndarray\ntR.",
    "codec": "c_codecs\nencode\n(Vabc\nVrot13\ntR.",
    "codec of bytes": "c_codecs\nencode\n(S'abc'\nVlatin1\ntR.",
    "attributes of a function": RECONSTRUCT + "(N(S'__defaults__'\n(I1\ntdtb.",
    "attributes of a dtype": U1 + "(N(S'text'\nS'O8'\ndtb.",
    "instance": "(I5\ninumpy\nndarray\n.",
    "new": "cnumpy\nndarray\n(I5\nt\x81.",
    "object outside": "Poutside\n.",
    "extension": "\x82\x01.",
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks(tmp_path, trick):
    with pytest.raises(DataError, match=r"is refused|is no pickle of arrays"):
        read(tmp_path, op(TRICKS[trick]))


def test_the_pieces_of_the_tricks_make_an_array(tmp_path):
    """So that each trick fails for what it says."""
    found = read(tmp_path, op(EMPTY + "(I1\n(I3\nt" + U1 + "I00\nS'abc'\ntb."))
    assert found.tolist() == list(b"abc")
    assert read(tmp_path, op("c_codecs\nencode\n(Vabc\nVlatin1\ntR.")) == b"abc"


def test_sets_hide_nothing(tmp_path):
    with pytest.raises(DataError, match="a set"):
        read(tmp_path, {1, 2})


def test_lists_within_themselves(tmp_path):
    value = []
    value.append(value)
    with pytest.raises(DataError, match="without end"):
        read(tmp_path, value)


@pytest.mark.parametrize("length", [0, 1, 20, -3, -1])
def test_damaged(tmp_path, length):
    data = pickle.dumps({"data": np.arange(30)})[:length]
    with pytest.raises(DataError, match="is no pickle of arrays"):
        read(tmp_path, data)


# --- .npy ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRAYS)
def test_npy(tmp_path, name):
    path = tmp_path / "array.npy"
    np.save(path, ARRAYS[name])
    found = read_npy(path, "the test")
    assert found.dtype == ARRAYS[name].dtype
    assert (found == ARRAYS[name]).all()


def test_npy_with_a_program(tmp_path, mark):
    path = tmp_path / "array.npy"
    np.save(path, np.array([Payload(os.system, f"touch {mark}")], dtype=object))
    with pytest.raises(DataError, match=r"is refused, for it holds the name \w+\.system"):
        read_npy(path, "the test")
    assert not mark.exists()


def test_npy_without_an_array(tmp_path):
    path, buffer = tmp_path / "array.npy", io.BytesIO()
    np.lib.format.write_array(buffer, np.array([None]))
    header = buffer.getvalue()
    length = 10 + struct.unpack("<H", header[8:10])[0]
    path.write_bytes(header[:length] + pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="holds no array"):
        read_npy(path, "the test")


def test_damaged_npy(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(5))
    data = path.read_bytes()
    for damaged in (b"", data[:7], data[:40], data[:-3], b"no numpy" + data):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is no \.npy file"):
            read_npy(path, "the test")
