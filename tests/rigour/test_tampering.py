"""One flipped bit anywhere is refused, with the reason."""

import copy
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rigour_networks import WIRINGS, network, reduced_folder, stored
from safetensors.numpy import load, save

import ssmred
from ssmred import rigour
from ssmred.errors import CertificateError, CheckpointError, SsmredError
from ssmred.rigour.statement import number, render, seal

FREE = {"created", "ssmred_version", "metric", "scale_source", "tol", "scale_sampling",
        "python_flint"}  # fmt: skip
"""What nobody can recompute from the two networks: the seal alone protects it from damage."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("result") / "result"
    return reduced_folder(place, network(1, **WIRINGS["plain, no norm"]))


@pytest.fixture(scope="module", params=["FLOAT", "RIGOROUS"])
def certificate(request, folder, tmp_path_factory):
    """A certificate of either level, in a file."""
    if request.param == "FLOAT":
        return folder.certificate
    path = tmp_path_factory.mktemp("level") / "certificate.json"
    return rigour.verify(*folder.places()).save(path)


@pytest.fixture
def verified(folder, tmp_path):
    """Return a function that verifies a text as the certificate of the folder's networks."""

    def run(text):
        path = tmp_path / "certificate.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return rigour.verify(path, folder.original, folder.path)

    return run


def test_as_it_was_it_holds(certificate, verified):
    assert verified(certificate.read_bytes()).absolute_bound > 0.0


def test_every_bit_of_the_file(certificate, verified):
    """All bytes, one bit each; the bit moves on from byte to byte, so that all kinds are met."""
    text = certificate.read_bytes()
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1 << (place % 7)  # 7 bits: the eighth makes it no UTF-8
        with pytest.raises(CertificateError):
            verified(bytes(changed))
    changed = bytearray(text)
    changed[5] ^= 1 << 7
    with pytest.raises(CertificateError, match="no readable certificate"):
        verified(bytes(changed))


def leaves(data, path=()):
    """Return the paths of all values that are no containers."""
    if isinstance(data, dict):
        return [p for key in sorted(data) for p in leaves(data[key], (*path, key))]
    if isinstance(data, list):
        return [p for place, item in enumerate(data) for p in leaves(item, (*path, place))]
    return [path]


def with_leaf(data, path, value):
    out = copy.deepcopy(data)
    inner = out
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return out


def leaf(data, path):
    for key in path:
        data = data[key]
    return data


def tampered(value):
    """Return other values of the same kind, no further from it than forgers would go."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, max(0, value - 1)] if value else [1]
    if isinstance(value, float):
        return [value * (1 - 1e-6), value * (1 + 1e-6), 0.0] if value else [1e-6]
    if isinstance(value, str):
        flipped = "1" if value[0] != "1" else "2"
        return [flipped + value[1:], value[:-1], value + " "]
    return [0, "x"]


def test_every_leaf_sealed_anew(certificate, verified):
    """A forger knows how to seal: what two networks can tell is found out all the same."""
    data = stored(certificate)
    for path in leaves(data):
        if path == ("content_sha256",) or FREE & {str(key) for key in path}:
            continue
        for value in tampered(leaf(data, path)):
            with pytest.raises(SsmredError) as caught:
                verified(render(seal(with_leaf(data, path, value))))
            assert len(str(caught.value)) > 40  # a reason


REASONS = {
    ("bound",): "bound: stated",
    ("scale",): "bound: stated",
    ("horizon",): "bound: stated",
    ("original_sha256",): "original weights: stated",
    ("reduced_sha256",): "reduced weights: stated",
    ("inputs", "high", 0): "bound: stated",
    ("assumptions", 1): "assumptions are not those of level",
    ("theorems", 0): "theorems are not those of level",
    ("layers", 1, "weight"): r"layers.1: weight: stated",
    ("layers", 0, "states_kept"): r"layers.0: states_kept: stated",
    ("layers", 0, "name"): "layer names: stated",
    ("guarantee",): "the guarantee is",
    ("level",): "level .* is none of",
}


@pytest.mark.parametrize("path", REASONS)
def test_reasons_are_named(path, certificate, verified):
    data = stored(certificate)
    with pytest.raises(CertificateError, match=REASONS[path]):
        verified(render(seal(with_leaf(data, path, tampered(leaf(data, path))[0]))))


def test_words_cannot_be_dropped_or_added(certificate, verified):
    data = stored(certificate)
    for key in ("assumptions", "theorems"):
        for texts in (data[key][1:], data[key][::-1], [*data[key], "Nothing can go wrong."]):
            with pytest.raises(CertificateError, match=f"{key} are not those"):
                verified(render(seal(data | {key: texts})))


def test_what_is_damaged_without_a_new_seal_is_seen_at_once(certificate, verified):
    data = stored(certificate)
    for path in leaves(data):
        value = leaf(data, path)
        change = tampered(value)[0]
        with pytest.raises(CertificateError):
            verified(render(with_leaf(data, path, change)))
    with pytest.raises(CertificateError, match="content_sha256"):
        verified(render(data | {"created": "2000-01-01"}))
    with pytest.raises(CertificateError, match="a byte of it was changed"):
        verified(json.dumps(data))  # the same content, written otherwise
    with pytest.raises(CertificateError, match="twice"):
        verified(certificate.read_text().replace('"bound"', '"bound": 0.0, "bound"', 1))


@given(st.integers(0, 63), st.sampled_from(["bound", "gain_error", "contribution", "weight"]))
def test_flipped_bits_of_rigorous_numbers(folder, tmp_path_factory, bit, key):
    """Sealed anew: a number below its enclosure is refused whatever bit was flipped."""
    data = rigour.verify(*folder.places()).certificate
    path = ("bound",) if key == "bound" else ("layers", 1, key)
    value = np.array(number(leaf(data, path)))
    changed = float((value.view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64))
    margin = 1 - 2.0**-40  # what is stated lies that much above what is enclosed
    if not changed < float(value) * margin:
        return
    place = tmp_path_factory.mktemp("flip") / "certificate.json"
    place.write_text(render(seal(with_leaf(data, path, changed))))
    with pytest.raises(CertificateError):
        rigour.verify(place, folder.original, folder.path)


# The networks ---------------------------------------------------------------------------------


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the whole folder, to change."""
    place = tmp_path / "copy"
    shutil.copytree(folder.path, place)
    return place


def verify_folder(place):
    return rigour.verify(place / "certificate.json", place / "original", place)


def test_wiring_that_was_changed_in_both_networks(copied, folder):
    """The hashes of the weights do not know what is done with them; a rigorous certificate does."""
    rigour.verify(*folder.places()).save(copied / "certificate.json")
    for side in (copied, copied / "original"):
        text = (side / "network.json").read_text()
        assert '"approximate": "none"' in text
        changed = text.replace('"approximate": "none"', '"approximate": "tanh"')
        (side / "network.json").write_text(changed)
    with pytest.raises(CertificateError, match="wiring: stated"):
        verify_folder(copied)


@pytest.mark.parametrize("side", [".", "original"])
def test_flipped_bits_of_weights(copied, side):
    file = copied / side / "weights.safetensors"
    data = file.read_bytes()
    for place in range(9, len(data), max(1, len(data) // 50)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(bytes(changed))
        with pytest.raises(CheckpointError, match="is not the file"):
            verify_folder(copied)


@pytest.mark.parametrize("side", [".", "original"])
def test_flipped_bits_of_weights_with_a_new_hash_of_the_file(copied, side):
    """Every tensor, its lowest bit: the certificate's own hash of the weights tells."""
    folder = copied / side
    tensors = load((folder / "weights.safetensors").read_bytes())
    word = "original weights" if side == "original" else "reduced weights"
    for key, tensor in tensors.items():
        changed = {name: array.copy() for name, array in tensors.items()}
        changed[key].reshape(-1).view(np.uint8)[0] ^= 1
        if not tensor.size:
            continue
        write_weights(folder, save(changed))
        with pytest.raises(CertificateError, match=f"{word}: stated"):
            verify_folder(copied)


def write_weights(folder, data):
    import hashlib

    (folder / "weights.safetensors").write_bytes(data)
    record = stored(folder / "network.json")
    record["weights_file_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "network.json").write_text(json.dumps(record))


def test_a_changed_declaration_is_refused(copied):
    """Other wiring in one of the networks, or something unknown in both."""
    path = copied / "network.json"
    record = stored(path)
    lines = record["declared"]["nodes"]
    changes = [
        ("mean", lambda line: line.update(target="amax")),
        ("operator.add", lambda line: line.update(target="operator.mul")),
        ("encoder", lambda line: line.update(target="decoder")),
        ("mean", lambda line: line.update(target="cumsum")),
        ("encoder", lambda line: line.update(args={"tuple": []})),
    ]
    for target, change in changes:
        other = copy.deepcopy(record)
        change(next(line for line in other["declared"]["nodes"] if line["target"] == target))
        path.write_text(json.dumps(other))
        with pytest.raises(SsmredError):
            verify_folder(copied)
    path.write_text(json.dumps(record))
    assert verify_folder(copied)
    assert lines


def test_files_that_are_not_there(copied):
    (copied / "original" / "network.json").unlink()
    with pytest.raises(CheckpointError, match="holds no readable"):
        verify_folder(copied)
    with pytest.raises(CertificateError, match="no readable certificate"):
        rigour.verify(copied / "nowhere.json", copied, copied)


def test_older_files_are_refused_with_the_cure(folder, verified, tmp_path):
    new = ("content_sha256", "enclosure")
    data = {key: value for key, value in stored(folder.certificate).items() if key not in new}
    data["schema"] = 1
    with pytest.raises(CertificateError, match=r"ssmred.Certificate.load\(path\).save\(path\)"):
        verified(render(data))
    path = tmp_path / "old.json"
    path.write_text(render(data))
    assert ssmred.Certificate.load(path).save(path).read_text() == folder.certificate.read_text()


def test_an_interrupted_save_leaves_the_old_file(folder, tmp_path, monkeypatch):
    report = rigour.verify(*folder.places())
    path = tmp_path / "rigorous.json"
    path.write_text("older")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        report.save(path)
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["rigorous.json"]
