"""The safety report: what it says under each guarantee, that it is safe, and how it is written."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ssmred.certify import (
    ASSUMPTIONS,
    ENCLOSED_ASSUMPTIONS,
    decision_changes,
    percent_up,
    rounded_up,
)
from ssmred.errors import DataError, RequestError
from ssmred.report import page as page_module
from ssmred.report import save_page
from ssmred.report.page import LayerDecay, render
from ssmred.report.reproduction import call_text
from tests.report.page_cases import (
    GUARANTEES,
    HASH,
    Reader,
    certificate,
    latency,
    page,
    renamed,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=https://example.org/x onerror='alert(1)'>",
    "$\\frac{",
    "{{ 7 * 7 }}{% raw %}",
    "a\u202egnp.b\x00\n",
    "Schicht 漢字 \U0001f600",
)


@pytest.fixture
def pictures() -> None:
    """Ask for figures that are really drawn; they take most of a page's time."""


@pytest.fixture(autouse=True)
def _without_pictures(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(page_module, "embedded", lambda _: "data:image/svg+xml;base64,")


def read(*args, **changes) -> Reader:
    return Reader(render(page(*args, **changes)))


# What it says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_the_numbers_are_the_certificates(guarantee):
    stated = certificate(guarantee)
    text = read(stated).text
    assert stated.statement() in text
    assert "0.0301" in text  # the bound 0.0300123, rounded up
    assert repr(stated.bound) in text
    for layer in stated.layers:
        numbers = (layer.error, layer.relative_error)
        if guarantee == "worst-case":
            numbers += (layer.gain_error, layer.weight, layer.contribution)
        for number in numbers:
            assert f"{number:.3e}" in text
        assert f"{layer.name} {layer.states_full} {layer.states_kept}" in text
    for assumption in stated.assumptions:
        assert assumption in text
    for slug in stated.theorems:
        assert f"theory/{slug}.md" in text
    for fact in (HASH, HASH[::-1], "level FLOAT", "2025-01-02", "a machine of 1843", "12.3 s"):
        assert fact in text
    for size in ("11 of 33 kept", "33.3 %", "120 of 480", "25.0 %", "1,020 of 1,380", "73.9 %"):
        assert size in text
    assert "1 of 2" in text  # channels without states
    assert "Not recomputed: the weather." in text
    assert "Not measured" in text


def test_a_worst_case_page_names_the_set_and_adds_the_contributions():
    text = read(certificate("worst-case")).text
    assert "every sequence with -1 <= u <= 2 at every step" in text
    assert f"{1.8504 + 2.8504:.3e}" in text
    assert f"{0.0300123 * 2.5:.3e} in the same units" in text
    assert "at most 0.0751 in the output's own units" in text  # 0.07503, up
    assert '{"kind": "box", "low": -1.0, "high": 2.0}' in text
    assert "Inputs outside the declared set" in text


def test_a_statistical_page_says_how_surely_and_shows_the_walk():
    text = read(certificate("statistical")).text
    for part in (
        "With confidence 0.975: a procedure that errs at most a fraction 0.025 of the time",
        "17 of the 321 held-out inputs were above the bound",
        "They may move the output by any amount",
        "33 0 1.5e-09 accepted",
        "11 17 0.00417 accepted",
        "If deployment drifts",
    ):
        assert part in text


def test_a_layer_page_says_that_it_says_nothing_about_the_network():
    text = read(certificate("layer")).text
    assert "Nothing is said about the network's output" in text
    assert "in the output's own units" not in text


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.parametrize("bound", [1.0000001, math.inf])
def test_a_vacuous_bound_is_said_first_and_loudly(guarantee, bound):
    text = read(certificate(guarantee, bound=bound, tol=None)).text
    start = text.index("What is promised")
    assert "This bound is vacuous" in text[:start]
    assert "proves nothing. Do not rely on it." in text[:start]
    assert "This bound is vacuous" not in read(certificate(guarantee, bound=1.0)).text


def test_changed_classes_are_told_by_class():
    labels = np.repeat([0, 2], [300, 20])
    after = np.where(np.arange(320) < 3, 1, labels)
    changes = decision_changes(np.eye(4)[labels], np.eye(4)[after], confidence=0.9)
    plain = certificate("statistical")
    facts = {**plain.statistics, "decisions": changes.to_json()}
    text = read(dataclasses.replace(plain, statistics=facts)).text
    assert "3 of 320 held-out inputs get another class" in text
    for bound in (changes.bound, *(entry.bound for entry in changes.by_class)):
        assert percent_up(bound) in text
    assert text.count("too few inputs") == 1
    assert "2 of 4 classes had no held-out input" in text
    assert "does not look at decisions" not in text
    assert "How often the class changes" not in read(plain).text


def test_levels_are_told_apart():
    enclosed = {"enclosure": {"precision": 128}, "assumptions": ENCLOSED_ASSUMPTIONS}
    pages = {
        level: read(certificate("worst-case", level=level, **more)).text
        for level, more in (("FLOAT", {}), ("RIGOROUS", enclosed), ("ESTIMATE", {}))
    }
    assert "not interval arithmetic" in pages["FLOAT"]
    assert "enclosed in ball arithmetic" in pages["RIGOROUS"]
    assert "not interval arithmetic" not in pages["RIGOROUS"]
    assert "Added by whoever" not in pages["RIGOROUS"]
    assert "This number is an estimate" in pages["ESTIMATE"]


def test_nothing_removed_is_said():
    stated = certificate("layer")
    layers = tuple(dataclasses.replace(at, states_kept=at.states_full) for at in stated.layers)
    assert "Nothing was removed" in read(dataclasses.replace(stated, layers=layers)).text


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_assumptions_that_are_not_ours_are_marked(guarantee):
    added = "Certified by the queen."
    stated = certificate(guarantee, assumptions=(*ASSUMPTIONS[guarantee], added))
    text = read(stated).text
    assert f"{added} (Added by whoever issued the certificate" in text
    assert text.count("(Added by") == 1


def test_every_length_is_said():
    text = read(certificate("worst-case", horizon=None)).text
    assert "sequences of every length" in text
    assert "steps of each" not in text


def test_latency_is_shown_where_it_was_measured():
    found = read(certificate("layer"), latency=latency())
    text = found.text
    for part in ("8 ms", "7.2 ms to 10 ms", "3 us", "0.25", "another machine", "15 alternating"):
        assert part in text
    assert "<b>it waits</b>" in text  # a text, not a tag
    assert "Not measured" not in text
    assert len(found.having("img")) == 3


@pytest.mark.parametrize("broken", [{}, {"measurements": [{"name": "a"}]}, {"measurements": 3}])
def test_what_is_no_latency_is_refused(broken):
    with pytest.raises(DataError, match="latency holds no measurements"):
        render(page(certificate("layer"), latency=broken))


def test_layers_without_values_say_why():
    decays = [LayerDecay("layers.0", None, None, "a pole lies <outside> the circle")]
    found = read(certificate("layer"), decays=decays)
    assert "no Hankel singular values: a pole lies <outside> the circle" in found.text
    assert len(found.having("img")) == 1


def test_the_call_is_written_out_with_the_set_that_was_taken():
    text = read(certificate("worst-case")).text
    assert "tol=0.05" in text
    assert "inputs=ssmred.InputSet.box(-1.0, 2.0)" in text
    assert "The arguments were not recorded" in read(certificate("layer"), request=None).text


def test_the_call_names_the_data():
    data = {"shape": [200, 48, 2], "dtype": "float32", "sha256": HASH}
    text = call_text({"states": 0.4, "data": data, "horizon": None})
    assert f"# data: 'float32', shape (200, 48, 2), SHA-256 '{HASH}'" in text
    assert "    data=data,\n    states=0.4,\n" in text
    assert "horizon" not in text
    compile(text, "call", "exec")


@pytest.mark.parametrize(
    "recorded",
    [
        {"seed=0)\nimport os": 1},
        {"seed": ["x"]},
        {"inputs": {"kind": "evil"}},
        {"data": {"shape": ["x"], "dtype": "", "sha256": ""}},
        {"data": {}},
    ],
)
def test_a_request_that_is_no_call_is_refused(recorded):
    with pytest.raises(DataError, match="the request that was recorded"):
        call_text(recorded)


def test_texts_in_a_request_stay_texts():
    data = {"shape": [1], "dtype": "f\nimport os", "sha256": "g\nimport os"}
    text = call_text({"method": "a'\nimport os", "data": data})
    assert not re.search(r"^import os", text, flags=re.MULTILINE)
    compile(text, "call", "exec")


@pytest.mark.parametrize("value", [0.0300123, 1.0, 0.05, 1e-300, 2.6634e24, 0.1 + 0.2, 123.4001])
def test_bounds_are_rounded_up(value):
    shown = float(rounded_up(value))
    assert value <= shown <= value * 1.01


# That it is safe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("pictures")
def test_hostile_names_are_shown_and_do_nothing(name):
    stated = renamed(certificate("worst-case", scale_source=name, metric=name), name)
    problem = LayerDecay(name, None, None, name)
    facts = page(stated, title=name, machine=name, command=name, folder=name)
    facts = dataclasses.replace(facts, decays=[problem, *facts.decays])
    plain = read(certificate("worst-case"))
    found = Reader(render(facts))
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags} | {"p", "pre"}
    assert not found.having("script")
    assert all(image["src"].startswith("data:") for image in found.having("img"))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert found.text.count(" ".join(shown.split())) >= 6
    assert "\u202e" not in found.text
    assert "\x00" not in found.text


@pytest.mark.parametrize("guarantee", GUARANTEES)
@pytest.mark.usefixtures("pictures")
def test_nothing_is_loaded_from_anywhere(guarantee):
    text = render(page(certificate(guarantee), latency=latency()))
    found = Reader(text)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "link", "iframe", "object", "a"})
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action"):
            assert attributes.get(name, "data:").startswith("data:image/svg+xml;base64,") or (
                name not in attributes
            )
    style = re.search(r"<style>(.*?)</style>", text, flags=re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m for m in found.having("meta") if "http-equiv" in m]
    assert policy["content"].startswith("default-src 'none'")
    for image in found.having("img"):
        drawing = base64.b64decode(image["src"].partition(",")[2])
        for element in ET.fromstring(drawing).iter():
            links = [v for k, v in element.attrib.items() if k.endswith("href")]
            assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_it_can_be_read_aloud():
    found = read(certificate("worst-case"), latency=latency())
    assert found.having("html") == [{"lang": "en"}]
    assert len(found.having("title")) == len(found.having("h1")) == len(found.having("main")) == 1
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(len(image["alt"]) > 20 for image in found.having("img"))
    assert len(found.having("caption")) == len(found.having("table"))
    assert all("scope" in cell for cell in found.having("th"))
    identities = [a["id"] for _, a in found.tags if "id" in a]
    assert len(set(identities)) == len(identities)
    assert {a["aria-labelledby"] for a in found.having("section") if "aria-labelledby" in a} == set(
        identities
    )


@pytest.mark.usefixtures("pictures")
def test_the_same_page_has_the_same_bytes():
    assert render(page(certificate("layer"))) == render(page(certificate("layer")))


# How it is written --------------------------------------------------------------------------------


def test_it_is_written_whole(tmp_path):
    facts = page(certificate("statistical"))
    target = save_page(facts, tmp_path / "new" / "report.html")
    assert target.read_text(encoding="utf-8") == render(facts)
    assert [entry.name for entry in target.parent.iterdir()] == ["report.html"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_an_interrupted_write_leaves_the_old_page(tmp_path, monkeypatch):
    old = tmp_path / "report.html"
    old.write_text("old")

    def torn(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", torn)
    with pytest.raises(KeyboardInterrupt):
        save_page(page(certificate("layer")), old)
    assert old.read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize("name", ["report.pdf", "report", "thesis.tex"])
def test_only_pages_are_written(tmp_path, name):
    with pytest.raises(RequestError, match=r"\.html"):
        save_page(page(certificate("layer")), tmp_path / name)
    assert not list(tmp_path.iterdir())
