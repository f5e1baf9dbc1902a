"""The HTML report is self-contained, accessible and states the choice."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from nestling.granularity import Granularity
from nestling.measure.curve.choice import Row
from nestling.measure.curve.curve import Curve
from nestling.measure.curve.pictures.lines import Chart
from nestling.measure.curve.pictures.report import report
from nestling.measure.curve.summary import headline
from nestling.picture.series import COLOURS, DARK_COLOURS

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
VOID = frozenset({"meta"})


def row(dim: int, value: float, metric: str = "ndcg@10", spread: float = 0.01) -> Row:
    kept = value / 0.8
    ends = (kept - spread, kept + spread) if dim < 256 else (1.0, 1.0)
    return Row(
        Granularity(dim=dim), metric, value, value - spread, value + spread, kept, *ends, 4 * dim, 1e6 * dim
    )


def make(values: dict[int, float], name: str = "nested", metrics: tuple[str, ...] = ("ndcg@10",)) -> Curve:
    rows = tuple(row(dim, value, metric) for dim, value in values.items() for metric in metrics)
    return Curve(
        rows,
        name,
        "retrieval",
        500,
        0.95,
        1000,
        {"python": "3.11", "numpy": "2.0"},
        "a machine",
        "2026-01-31",
        source="questions.csv",
        rule="l2 after the cut",
    )


NESTED = make({8: 0.4, 64: 0.795, 128: 0.79, 256: 0.8})
PLAIN = make({8: 0.2, 64: 0.6, 128: 0.65, 256: 0.7}, "truncation")
MANY = (
    "ndcg@10",
    "recall@10",
    "mrr@10",
    "map@10",
    "ndcg@100",
    "recall@100",
    "mrr@100",
    "map@100",
    "p@1",
    "p@5",
)


class Page(HTMLParser):
    """Contents of a page; its tags must close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\xa0", " "))


def page(*curves: Curve, chosen: str | None = None) -> Page:
    first, *others = curves
    return Page(report(first, others, first.nesting.resolve(chosen) if chosen else None, 1_000_000))


def test_the_report_stands_by_itself(tmp_path: Path) -> None:
    evil = dataclasses.replace(PLAIN, name="<script>alert(1)</script>", source='"><b>', rule="<i>")
    NESTED.to_html(tmp_path / "report.html", others=[evil])
    shown = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in shown.tags]
    assert not {"script", "b>", "i", "img", "link", "iframe"} & set(tags)
    assert not [
        name for _, attributes in shown.tags for name in attributes if name in ("src", "href", "onload")
    ]
    for foreign in ("http", "@import", "url("):
        assert foreign not in shown.text
    assert {"name": "generator", "content": "nestling"} in shown.all("meta")
    assert "a machine" in shown.said()


def test_the_title_says_what_was_measured_on_what() -> None:
    shown = page(NESTED)
    title = re.search("<title>(.*?)</title>", shown.text)[1]
    assert title == "nested on retrieval of questions.csv: ndcg@10 at every size, 2026-01-31"
    facts = shown.text.partition('<dl class="facts">')[2].partition("</dl>")[0]
    for name, value in (
        ("model", "nested"),
        ("data", "questions.csv"),
        ("cut rule", "l2 after the cut"),
        ("examples", "500"),
        ("date", "2026-01-31"),
        ("seed", "0"),
        ("sizes", "4, dim=8 to dim=256"),
    ):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in facts


def test_what_was_chosen_and_what_it_saves_stands_at_the_top() -> None:
    shown = page(NESTED, PLAIN, chosen="dim=64")
    lead = re.findall('<p class="lead">(.*?)</p>', shown.text)
    assert lead[0].replace("&nbsp;", " ") == (
        "256 bytes a vector (dim=64) keep 99.4 % [98.4, 100.4] of the ndcg@10 of 1,024: 256 MB in place of "
        "1.02 GB for 1,000,000 vectors."
    )
    assert "dim=64 surely reaches 99% of what truncation has in full (0.700, dim=256)" in lead[1]
    assert lead[2] == "At dim=64, nested has ndcg@10 0.795 and truncation 0.600."
    assert shown.text.index("lead") < shown.text.index('class="cards"') < shown.text.index("<figure>")
    assert "1.02 GB &rarr; 256 MB" in shown.text
    assert "4&times;" in shown.text


def test_sentences_for_every_outcome() -> None:
    assert headline(NESTED, [], None, 1000)[0] == "Nothing smaller than the full dim=256 is surely as good."
    better = make({8: 0.9, 256: 0.95}, "other")
    told = headline(NESTED, [better], Granularity(dim=8), 1000)
    assert "No size surely reaches 99% of what other has in full (0.950)." in told
    nothing = make({8: 0.0})
    nothing = dataclasses.replace(
        nothing,
        rows=(dataclasses.replace(nothing.rows[0], kept=math.nan, kept_low=math.nan, kept_high=math.nan),),
    )
    shown = page(nothing)
    assert "The full quality is not above 0, so no share of it can be kept" in shown.said()
    assert "cards" not in [attributes.get("class") for _, attributes in shown.tags]
    other_metric = make({8: 0.9}, "other", ("accuracy",))
    assert len(headline(NESTED, [other_metric], Granularity(dim=8), 1000)) == 1


def test_where_it_is_better_than_the_rest_is_said() -> None:
    others = [
        PLAIN,
        dataclasses.replace(NESTED, name="the same"),
        make({8: 0.1, 64: 0.2, 128: 0.3, 256: 0.4}, "worse"),
        make({8: 0.1, 64: 0.2, 128: 0.79, 256: 0.8}, "large, then cut"),
        make({512: 0.1}, "elsewhere"),
    ]
    assert headline(NESTED, others, Granularity(dim=64), 1000)[-1] == (
        "nested is surely better than 'the same' at no size, than 'worse' at every size, than "
        "'large, then cut' at 2 of 4 sizes, dim=8 to dim=64."
    )


def test_the_verdict_on_training_is_told() -> None:
    noted = dataclasses.replace(NESTED, note="This is plain truncation.")
    assert '<p class="lead">This is plain truncation.</p>' in page(noted).text


def test_pictures_are_named_for_who_hears_them() -> None:
    shown = page(make({8: 0.4, 256: 0.8}, metrics=("ndcg@10", "mrr@10")), PLAIN)
    pictures = [attributes for attributes in shown.all("svg") if attributes.get("role") == "img"]
    assert len(pictures) == 2
    names = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    for _, attributes in shown.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(names)
    assert "nested: 0.400 at dim=8 to 0.800 at dim=256." in shown.text
    assert all(
        attributes.get("aria-hidden") for attributes in shown.all("svg") if attributes.get("class") == "key"
    )


def test_series_differ_by_marker_and_dashes() -> None:
    shown = page(*(make({8: 0.4, 64: 0.6}, f"curve {n}") for n in range(7)))
    dots = dict.fromkeys(
        attributes["d"] for attributes in shown.all("path") if "dot" in attributes.get("class", "")
    )
    assert len(dots) == 7
    lines = shown.all("polyline")
    assert len(lines) == 7
    for one, other in pairwise(lines):
        assert one.get("stroke-dasharray") != other.get("stroke-dasharray")
        assert one["class"] != other["class"]


@pytest.mark.parametrize("values", [{8: 0.4, 256: 0.8}, {8: 0.84, 256: 0.86}, {8: -0.2, 256: 0.5}])
def test_page_and_picture_have_the_same_axis(values: dict[int, float]) -> None:
    curve = make(values)
    axes = Figure().add_subplot()
    curve.plot(axes)
    shown = page(curve)
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    for tick in ticks:
        assert f">{tick}</text>" in shown.text
    scale = Chart.of([curve], "ndcg@10").scale
    assert scale.cut == (values[8] > 0.8)
    assert ("axis starts at" in axes.get_ylabel()) == scale.cut
    assert ('class="cut"' in shown.text) == ('class="note"' in shown.text) == scale.cut


def test_layers_are_drawn_over_layers() -> None:
    rows = tuple(Row(Granularity(layer=n), "m", 0.5, 0.4, 0.6, 1, 1, 1, 384) for n in (1, 2, 6))
    shown = page(dataclasses.replace(NESTED, rows=rows))
    assert ">layer</text>" in shown.text
    places = [attributes["points"].split()[0] for attributes in shown.all("polyline")]
    assert places[0].startswith("25.0,")


def test_labels_that_lack_room_go_where_it_is_narrow() -> None:
    shown = page(make({dim: 0.5 + dim / 1000 for dim in range(16, 257, 16)}))
    levels = re.findall(r'class="tick w(\d)"[^>]*>([\d,]+)<', shown.text)
    assert len(levels) == 16
    always = [label for level, label in levels if level == "0"]
    assert always[0] == "64"
    assert always[-1] == "1,024"
    assert 3 <= len(always) <= 8
    assert {level for level, _ in levels} > {"0", "1"}


def test_tables_are_sorted_named_and_reached_by_keyboard() -> None:
    shuffled = dataclasses.replace(NESTED, rows=tuple(reversed(NESTED.rows[:-1])) + NESTED.rows[-1:])
    shown = page(shuffled, PLAIN, chosen="dim=64")
    assert re.findall(r'<th scope="row">dim=(\d+)', shown.text) == ["8", "64", "128", "256"] * 2
    regions = [attributes for attributes in shown.all("div") if attributes.get("role") == "region"]
    assert [region["tabindex"] for region in regions] == ["0", "0"]
    assert all(attributes["scope"] == "col" for attributes in shown.all("th")[:3])
    assert {"scope": "col", "aria-sort": "ascending"} in shown.all("th")
    assert shown.text.count('class="badge">chosen') == 1
    assert "<td>0.400<small>0.390 to 0.410</small></td>" in shown.text


def test_the_sheet_knows_dark_paper_focus_and_narrow_screens() -> None:
    text = page(make({8: 0.4, 256: 0.8}, metrics=MANY)).text
    for rule in (
        "@media screen and (prefers-color-scheme: dark)",
        "@media print",
        "@page landscape",
        ":focus-visible",
        "container-type: inline-size",
        "#hint-1 { display: block; }",
    ):
        assert rule in text
    assert '<section data-paper="landscape">' in text
    assert '<section data-paper="landscape">' not in page(NESTED).text
    for colours in (COLOURS, DARK_COLOURS):
        assert all(colour in text for colour in colours)
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (\d+(?:\.\d+)?)px", text)]
    assert min(sizes) >= 12
    assert min(float(size) * 16 for size in re.findall(r"font-size: (\d?\.?\d+)rem", text)) >= 12


def lightness(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("place", [1, 2])
def test_letters_can_be_read_by_day_and_night(place: int) -> None:
    """WCAG AA: 4.5 to 1."""
    css = page(NESTED).text.partition("color-scheme: light dark;")[2]
    blocks = re.findall(r"--ground:[^}]*", css)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[place - 1]))
    for letters in ("ink", "soft"):
        for ground in ("ground", "paper", "mark"):
            low, high = sorted((lightness(colours[letters]), lightness(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (letters, ground)


# In a browser

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
MEASURE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, view = frame.contentWindow;
  const seen = [...page.querySelectorAll("body *")].filter(e => e.getClientRects().length);
  const sizes = seen.filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim()))
    .filter(e => !["title", "desc", "style"].includes(e.localName))
    .map(e => parseFloat(view.getComputedStyle(e).fontSize));
  const labels = [...page.querySelectorAll(".chart")].map(chart =>
    [...chart.querySelectorAll("text.tick[dy='20']")]
    .filter(e => view.getComputedStyle(e).display != "none").map(e => e.getBoundingClientRect())
    .map(r => [r.left, r.right]));
  const tables = [...page.querySelectorAll(".wide")].map(e => { e.focus(); return {
    scrolls: e.scrollWidth > e.clientWidth + 1, focused: page.activeElement == e,
    hint: view.getComputedStyle(e.previousElementSibling).display != "none"}; });
  document.body.textContent = JSON.stringify({smallest: Math.min(...sizes), labels, tables,
    overflows: page.documentElement.scrollWidth > view.innerWidth});
}, 300));
</script>
"""


def browse(folder: Path, url: Path, *flags: str) -> str:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, f"file://{url}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(("width", "metrics"), [(390, MANY[:3]), (1280, MANY[:3]), (1280, MANY)])
def test_a_browser_shows_all_of_it(tmp_path: Path, width: int, metrics: tuple[str, ...]) -> None:
    curve = make({dim: 0.5 + dim / 1000 for dim in range(16, 257, 16)}, metrics=metrics)
    text = page(curve, PLAIN, chosen="dim=64").text
    frame = f'<iframe style="width:{width}px;height:900px" srcdoc="{escape(text)}"></iframe>'
    (tmp_path / "frame.html").write_text(f"<!doctype html><body>{frame}{MEASURE}", encoding="utf-8")
    dom = browse(tmp_path, tmp_path / "frame.html", "--virtual-time-budget=3000", "--dump-dom")
    found = json.loads(re.search(r"<body>(\{.*\})", dom)[1])
    assert found["smallest"] >= 12
    assert not found["overflows"]
    for table in found["tables"]:
        assert table["focused"]
        assert table["hint"] or not table["scrolls"]  # a wide table is announced
    assert found["tables"][0]["scrolls"] == (width < 1000 or len(metrics) > 3)
    assert found["tables"][0]["scrolls"] == found["tables"][0]["hint"]
    for places in found["labels"]:
        assert len(places) >= 3
        assert all(one[1] < other[0] for one, other in pairwise(sorted(places)))


@pytest.mark.skipif(BROWSER is None or not shutil.which("pdftotext"), reason="no Chromium, or no pdftotext")
@pytest.mark.parametrize("metrics", [MANY[:3], MANY])
def test_paper_has_every_column(tmp_path: Path, metrics: tuple[str, ...]) -> None:
    curve = make({dim: 0.5 + dim / 1000 for dim in range(16, 257, 16)}, metrics=metrics)
    (tmp_path / "report.html").write_text(page(curve).text, encoding="utf-8")
    browse(
        tmp_path, tmp_path / "report.html", f"--print-to-pdf={tmp_path / 'a.pdf'}", "--no-pdf-header-footer"
    )
    boxes = subprocess.run(
        ["pdftotext", "-bbox", str(tmp_path / "a.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    widest = 0.0
    for sheet in boxes.split("<page ")[1:]:
        width = float(re.search(r'width="([\d.]+)"', sheet)[1])
        rights = [float(x) for x in re.findall(r'xMax="([\d.]+)"', sheet)]
        assert max(rights, default=0) <= width - 20  # points; nothing runs off the sheet
        widest = max(widest, width)
    assert all(f">{metric}</word>" in boxes for metric in metrics)
    assert (widest > 700) == (len(metrics) > 3)  # a wide table turns the sheet
