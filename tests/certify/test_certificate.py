"""The certificate: what it accepts, prints, stores and refuses to read."""

import json
import math
import os

import pytest

from ssmred.certify import ASSUMPTIONS, THEOREMS, Certificate, InputSet, LayerRecord
from ssmred.errors import CertificateError

HASH = "0123456789abcdef" * 4


def record(**changes):
    facts = {
        "name": "layers.0", "states_full": 64, "states_kept": 32, "error": 0.25,
        "relative_error": 1e-3, "gain_error": 0.5, "weight": 2.0, "contribution": 1.0,
    }  # fmt: skip
    return LayerRecord(**(facts | changes))


def worst_case(**changes):
    facts = {
        "guarantee": "worst-case", "tol": 1e-3, "bound": 5e-4, "scale": 3.0,
        "scale_source": "root mean square over 64 samples", "horizon": 196, "metric": "h2",
        "layers": (record(),), "original_sha256": HASH, "reduced_sha256": HASH[::-1],
        "ssmred_version": "0.1.0", "inputs": InputSet.box(-1, 1).to_json(), "created": "2025-01-01",
    }  # fmt: skip
    return Certificate(**(facts | changes))


def statistical(**changes):
    alone = record(gain_error=None, weight=None, contribution=None)
    facts = {
        "guarantee": "statistical", "layers": (alone,), "inputs": None, "metric": "calibrated",
        "statistics": {"coverage": 0.95, "confidence": 0.95, "n": 200, "violations": 3},
    }  # fmt: skip
    return worst_case(**(facts | changes))


def layer_only(**changes):
    alone = record(gain_error=None, weight=None, contribution=None)
    facts = {"guarantee": "layer", "layers": (alone,), "inputs": None, "bound": 1e-3}
    return worst_case(**(facts | changes))


CERTIFICATES = [worst_case(), statistical(), layer_only(), worst_case(bound=math.inf, tol=None),
                worst_case(horizon=None, layers=(record(gain_error=math.inf),) * 2)]  # fmt: skip


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_round_trip(certificate, tmp_path):
    path = certificate.save(tmp_path / "certificate.json")
    assert Certificate.load(path) == certificate
    assert Certificate.from_json(certificate.to_json()).to_json() == certificate.to_json()
    assert os.listdir(tmp_path) == ["certificate.json"]
    json.loads(path.read_text(), parse_constant=pytest.fail)  # infinity is not a word of JSON


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_the_page_says_what_matters(certificate):
    page = str(certificate)
    assert certificate.guarantee in page
    assert certificate.original_sha256 in page
    for text in certificate.assumptions:
        assert text in page
    for slug in certificate.theorems:
        assert f"theory/{slug}.md" in page
    assert ("VACUOUS" in page) == certificate.vacuous
    assert max(len(line) for line in page.splitlines()[:3]) < 260


def test_vacuity_and_states():
    assert not worst_case(bound=1.0).vacuous
    assert worst_case(bound=1.0000001).vacuous
    assert worst_case(bound=math.inf).vacuous
    assert worst_case(layers=(record(), record(states_kept=10))).states == (42, 128)


def test_words_come_with_the_guarantee():
    for certificate in CERTIFICATES:
        assert certificate.theorems == THEOREMS[certificate.guarantee]
        assert certificate.assumptions == ASSUMPTIONS[certificate.guarantee]
    assert "Nothing is said about the network's output" in str(layer_only())


BAD = [
    {"guarantee": "absolute"}, {"level": "CERTIFIED"}, {"schema": 3}, {"bound": math.nan},
    {"bound": -1.0}, {"bound": "inf"}, {"bound": True}, {"scale": 0.0}, {"scale": math.inf},
    {"tol": -1.0}, {"tol": math.nan}, {"horizon": 0}, {"horizon": 1.5}, {"layers": ()},
    {"layers": ({"name": "x"},)}, {"original_sha256": "abc"}, {"reduced_sha256": "Z" * 64},
    {"inputs": None}, {"statistics": {}}, {"metric": ""}, {"inputs": {"kind": "cone"}},
    {"layers": (record(weight=None),)}, {"layers": (record(error=math.nan),)},
    {"layers": (record(states_kept=-1),)}, {"layers": (record(states_full=True),)},
    {"scale_sampling": {"seed": math.nan}}, {"scale_sampling": [1]}, {"created": 5},
    {"theorems": ("",)},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD)
def test_bad_content_is_refused(changes):
    with pytest.raises(CertificateError):
        worst_case(**changes)


def test_statistics_belong_to_statistical_certificates():
    with pytest.raises(CertificateError, match="statistics"):
        statistical(statistics=None)
    with pytest.raises(CertificateError, match="gain_error"):
        statistical(layers=(record(),))


def stored(**changes):
    return json.loads(worst_case().to_json()) | changes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (worst_case().to_json()[:200], "truncated"),
        ("", "truncated"),
        ("[" * 100000, "truncated"),
        ("[1, 2]", "not an ssmred certificate"),
        ('{"schema": 1}', "not an ssmred certificate"),
        (json.dumps(stored(schema=99)), "newer"),
        (json.dumps(stored(schema="1")), "schema"),
        (json.dumps(stored(extra=1)), "unknown"),
        (json.dumps({k: v for k, v in stored().items() if k != "bound"}), "missing"),
        (json.dumps(stored(vacuous=True)), "vacuity"),
        (json.dumps(stored(bound="infinite")), "bound"),
        (json.dumps(stored(layers=[{"name": "x"}])), "layers"),
        (json.dumps(stored(layers={})), "layers"),
        (json.dumps(stored(theorems=[])), "theorems"),
        (json.dumps(stored(scale="3")), "scale"),
        (json.dumps(stored(bound=math.nan)), "truncated or not JSON"),
        (json.dumps(stored(bound=math.inf)), "truncated or not JSON"),
    ],
)
def test_bad_files_are_refused_with_a_reason_and_a_cure(text, reason, tmp_path):
    path = tmp_path / "certificate.json"
    path.write_text(text)
    with pytest.raises(CertificateError, match=reason) as caught:
        Certificate.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).rstrip(".").count(". ") >= 1  # a cure follows


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "certificate.json"
    path.write_bytes(b"\x80\x04\x95\xff\xfe")
    with pytest.raises(CertificateError, match="not text"):
        Certificate.load(path)
    with pytest.raises(FileNotFoundError):
        Certificate.load(tmp_path / "nowhere.json")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = worst_case().save(tmp_path / "certificate.json")
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    for stage in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, stage, interrupt)
            with pytest.raises(KeyboardInterrupt):
                worst_case(bound=0.9).save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["certificate.json"]
    worst_case(bound=0.9).save(path)
    assert Certificate.load(path).bound == 0.9
