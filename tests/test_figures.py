"""Figures in README and docs follow from what lies under ``benchmarks/results``."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from nestling import Curve

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = RESULTS / "figures"
FIGURES_HEAD = "| what is compared | metric | measured | target |"


def script(path: str) -> Any:
    """A script of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / "benchmarks" / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def found(name: str, what: str, column: str = "ratio", key: str = "what") -> float:
    """One figure of a CSV by the start of its row's name."""
    (value,) = [row[column] for row in rows(name) if row[key].startswith(what)]
    return float(value)


def speed_up(layers: int) -> float:
    """Speed-up of encoding with so many of six layers; the CSV holds the share of 6 over so many."""
    return found("layers", f"speed-up of {layers} of 6 layers over 6/{layers}, short texts") * 6 / layers


def starbucks(name: str, place: str) -> float:
    """A figure of Starbucks' claims, such as the mean over its pairs."""
    claims = json.loads((RESULTS / "starbucks.json").read_text(encoding="utf-8"))["claims"]
    return {k: v for claim in claims for k, v in claim["figures"].items()}[f"{name}, {place}"]


SUMMED = ("summed", "summed, encoding for each scale")
STARBUCKS = ("Starbucks", "Starbucks for the full size")


def starbucks_over(other: str, place: str) -> list[float]:
    """Differences of both forms of Starbucks to another method."""
    return [starbucks(form, place) - starbucks(other, place) for form in STARBUCKS]


def tour(paper: str, claim: str) -> dict[str, float]:
    """The figures of one claim."""
    claims = json.loads((RESULTS / f"{paper}.json").read_text(encoding="utf-8"))["claims"]
    (figures,) = [each["figures"] for each in claims if each["id"] == claim]
    return dict(figures)


def over_alone(paper: str, claim: str, name: str, sizes: tuple[int, ...]) -> list[float]:
    """Points of a model of all sizes over those of one."""
    figures = tour(paper, claim)
    return [figures[f"{name} at {size}"] - figures[f"alone at {size}"] for size in sizes]


def every_over_random() -> list[float]:
    """M3 over one number at random, in as many steps and in as much time."""
    figures = tour("m3", "M3-4")
    return [figures["M3"] - figures[f"one random{more}"] for more in ("", ", 3 times the steps")]


def rises() -> list[float]:
    """Right answers about a cell at 21 tokens over those at one, of both forms of MQT."""
    figures = tour("mqt", "MQT-4")
    return [figures[f"cell at 21{form}"] - figures[f"cell at 1{form}"] for form in ("", ", as published")]


def alone() -> float:
    """The mean of six models, each trained for one pair, over the six pairs."""
    claims = json.loads((RESULTS / "starbucks.json").read_text(encoding="utf-8"))["claims"]
    (figures,) = [claim["figures"] for claim in claims if claim["id"] == "S2"]
    ours = [value for name, value in figures.items() if name.startswith("Starbucks at ")]
    gaps = [value for name, value in figures.items() if name.startswith("gap at ")]
    return float(np.mean(ours) - np.mean(gaps))


def best(data: str, recall: float, column: str, ours: bool) -> float:
    """Queries a second of the best method at a recall."""
    report = script("search/report")
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows("search"):
        if row["data"] == data and (row["ours"] == "True") == ours:
            points[row["method"]].append((float(row["recall"]), float(row[column])))
    return max(report.qps_at(method, recall) or 0 for method in points.values())


def over_peers(data: str, recall: float, column: str) -> float:
    return best(data, recall, column, ours=True) / best(data, recall, column, ours=False)


def speed_ups(data: str, column: str) -> list[float]:
    return [over_peers(data, recall, column) for recall in (0.95, 0.99)]


def smallest() -> list[float]:
    """Bytes of our smallest method at recall 0.95, of the smallest peer as fast, and the ratio as 1 to n."""
    report = script("search/report")
    methods: dict[tuple[str, bool], list[dict[str, str]]] = defaultdict(list)
    for row in rows("search"):
        if row["data"] == "wordllama-200k":
            methods[row["method"], row["ours"] == "True"].append(row)
    measured = [
        (
            float(points[0]["bytes_per_vector"]),
            report.qps_at(report._points(points, "qps_single"), 0.95) or 0,
            ours,
        )
        for (_, ours), points in methods.items()
    ]
    size, speed, _ = min(each for each in measured if each[2] and each[1])
    peer = min(each[0] for each in measured if not each[2] and each[1] >= speed)
    return [size, peer, 1, peer / size]


def kills() -> list[float]:
    tried = [row for row in rows("faults") if row["fault"] == "kill -9"]
    return [float(sum(int(row[name]) for row in tried)) for name in ("right", "tried")]


def demo(number: int) -> Curve:
    return Curve.load(FIGURES / "demo" / f"{number}.json")


def index() -> dict[str, Any]:
    return json.loads((FIGURES / "demo_index.json").read_text(encoding="utf-8"))


def demo_against_plain() -> list[float]:
    """From which size on the nested vectors of the demo are as good as the plain ones in full."""
    nested, plain = demo(1), demo(2)
    assert (nested.name, plain.name) == ("nested", "truncation")
    enough = nested.row(nested.choose(at_least=0.99 * plain.row().value))
    return [99, 100 * enough.vector_bytes / plain.row().vector_bytes]


README: dict[str, Callable[[], list[float]]] = {
    "nested InfoNCE over 8 sizes": lambda: [found("nested_loss", "8 sizes over the plain step")],
    "nested InfoNCE vs `MatryoshkaLoss`": lambda: [
        found("nested_loss", f"MatryoshkaLoss over ours, {n} sizes") for n in (8, 48)
    ],
    "encoding with 1; 2; 3": lambda: [speed_up(n) for n in (1, 2, 3)],
    "sweep of 8 sizes": lambda: [found("sweep", "sweep of 8 sizes")],
    "exact scan of 256 dims x 2 bits": lambda: [scan("nestling: bits2@full", "times_blas")],
    "exact search with a certificate": lambda: [
        found("certified", f"{method}, single", "times_faiss_flat", "method")
        for method in ("exact", "likely")
    ],
    "approximate search": lambda: speed_ups("wordllama-200k", "qps_single"),
}


def layers(what: str, *sizes: int) -> list[float]:
    return [found("layers", f"speed-up of {n} of 6 layers over 6/{n}, {what}") for n in sizes]


def tokens_step(what: str, *methods: str, over: str) -> list[float]:
    return [found("tokens_step", f"{what}, 5 scales {method}, over {over}") for method in methods]


def prefill(column: str) -> list[float]:
    return [found("prefill", f"prefill, {n} tokens of a picture over 576", column) for n in (144, 36, 9, 1)]


def scan(method: str, column: str) -> float:
    (row,) = [row for row in rows("bits_scan") if row["method"] == method]
    return float(row[column])


SCANS = {
    "ours, 8 bits": ["nestling: bits8@full"],
    "ours, 4 bits": ["nestling: bits4@full"],
    "ours, 2 bits": ["nestling: bits2@full"],
    "ours, 1 bit": ["nestling: bits1@full"],
    "ours, 2 bits, 100 re-ranked by 8 bits of the same code": [
        "nestling: bits2@full > rerank:bits8@full, shortlist 100"
    ],
    "ours, both sides binary": ["nestling: bits1:binary@full, shortlist 10"],
    "ours, both sides binary, 20 re-ranked by 1 bit with the query in floats": [
        "nestling: bits1:binary@full, shortlist 20"
    ],
    "faiss `IndexScalarQuantizer`, 8 bits": ["faiss: IndexScalarQuantizer QT_8bit"],
    "faiss `IndexScalarQuantizer`, 4 bits": ["faiss: IndexScalarQuantizer QT_4bit"],
    "faiss `IndexBinaryFlat`": ["faiss: IndexBinaryFlat"],
    "usearch, 8 bits; binary": ["usearch: exact, i8", "usearch: exact, b1"],
    "sentence-transformers `semantic_search_faiss`, `ubinary`, 20 re-ranked; 40": [
        f"sentence-transformers: ubinary, rescore_multiplier {times}" for times in (2, 4)
    ],
}


def test_the_scans_of_few_bits_are_those_measured() -> None:
    lines = table((ROOT / "docs" / "reference" / "benchmarks.md").read_text(encoding="utf-8"), "| scan |")
    assert [name for name, *_ in lines] == list(SCANS)
    for name, recall, speed, _ in lines:
        check(recall, [scan(method, "recall_at_10") for method in SCANS[name]])
        check(speed, [scan(method, "times_blas") for method in SCANS[name]])


def rdms(what: str, *names: str) -> list[float]:
    return [found(f"compare_{what}", name) for name in names]


BENCHMARKS: dict[str, Callable[[], list[float]]] = {
    "nested InfoNCE over 8 sizes": README["nested InfoNCE over 8 sizes"],
    "the same with a MiniLM encoder": lambda: [found("nested_loss", "8 sizes over plain, MiniLM")],
    "nested InfoNCE over 48 sizes": lambda: [found("nested_loss", "48 sizes over the plain step")],
    "nested InfoNCE vs sentence-transformers'": README["nested InfoNCE vs `MatryoshkaLoss`"],
    "the same, peak memory": lambda: [
        found("nested_loss", f"peak memory over MatryoshkaLoss, {n} sizes") for n in (8, 48)
    ],
    "sweep of 8 sizes": README["sweep of 8 sizes"],
    "the sweep vs": lambda: [found("sweep", "InformationRetrievalEvaluator")],
    "five precisions at 8 sizes": lambda: [
        found("sweep", f"8 even sizes x 5 precisions over one float32 evaluation at full size, {what}")
        for what in ("texts encoded by minilm", "texts encoded by wordllama", "given vectors")
    ],
    "`import nestling`": lambda: [found("import_time", "import nestling", "seconds")],
    "source files read": lambda: [round(found("docstrings", "all files, two processes", "files_per_s"), -2)],
    "step over 6 pairs": lambda: [found("layers", "step over 6 pairs")],
    "step over the whole 6 x 6 grid": lambda: [found("layers", "step over the 6 x 6 grid")],
    "sentence-transformers' `MatryoshkaLoss` and": lambda: [
        found("layers", f"{loss} over MultipleNegatives") for loss in ("MatryoshkaLoss", "Matryoshka2dLoss")
    ],
    "peak memory over 6 pairs": lambda: [
        found("layers", f"peak memory, {what} over plain") for what in ("6 pairs", "6 x 6 grid")
    ],
    "batch of 1,024": lambda: [
        found("layers", f"batch of 1024 in chunks, {what}") for what in ("6 pairs", "6 x 6 grid")
    ],
    "speed-up at 1, 2, 3": lambda: layers("short texts", 1, 2, 3, 4, 5),
    "the same, batches of long texts": lambda: layers("long texts", 1, 2, 3, 4, 5),
    "the same, one short text": lambda: layers("one short text", 1, 2, 3, 4, 5),
    "similarity at 6 layers": lambda: [found("layers", "similarity: the 6 x 5 grid")],
    "retrieval, the same": lambda: [found("layers", "retrieval: the 6 x 5 grid")],
    "training at 1, 9, 36": lambda: tokens_step("peak memory", "in turn", over="largest"),
    "the sum of the same losses": lambda: tokens_step("peak memory", *SUMMED, over="largest"),
    "step with `OneEncoding`": lambda: tokens_step("step time", "in turn", over="its parts"),
    "step over the sum": lambda: tokens_step("step time", *SUMMED, over="its parts"),
    "step over all five sizes": lambda: tokens_step("step time", "in turn", over="largest"),
    "reading 144, 36, 9": lambda: prefill("ratio"),
    "the same by `prefill_flops`": lambda: prefill("flops"),
    "correlation matrix of 4,000": lambda: rdms(
        "rdms", "correlation, 4000 x 512, float64", "correlation, 4000 x 512, float32"
    ),
    "squared Euclidean matrix": lambda: rdms("rdms", "sqeuclidean, 4000 x 512, float32"),
    "the same in double precision": lambda: rdms("rdms", "sqeuclidean, 4000 x 512, float64"),
    "Kendall's tau-b": lambda: rdms("comparators", "kendall", "tau_a"),
    "Spearman; rho-a": lambda: rdms("comparators", "spearman", "rho_a", "bures", "cosine, "),
    "bootstrap over 8 subjects": lambda: rdms("bootstrap", "cosine", "pearson", "spearman"),
    "transform of 90 matrices": lambda: [
        found("compare_thresholds", "210 thresholds", column) for column in ("ratio", "low")
    ],
    "the same with identification": lambda: [5 / found("compare_thresholds", "5 s over the same")],
    "shortest paths": lambda: rdms("thresholds", *(f"paths, {n} stimuli" for n in (92, 200, 500))),
    "adaptive dependence": lambda: [1 / found("compare_thresholds", "1 s over the adaptive measure")],
    "`kill -9` during writes": kills,
    "index of the demo": lambda: [100 * index()["recall"]],
    "nested vectors of 240 dims": demo_against_plain,
    **{
        f"{rows},000 rows, {batches}recall": partial(speed_ups, data, column)
        for rows, data in (("200", "wordllama-200k"), ("1,000", "wordllama-1000k"))
        for batches, column in (("", "qps_single"), ("batches of 100, ", "qps_batch"))
    },
    "the smallest of our indexes": smallest,
    "M3 vs a model": lambda: over_alone("m3", "M3-1", "M3", (1, 4, 16)),
    "M3 vs one number": every_over_random,
    "MQT vs a model": lambda: over_alone("mqt", "MQT-2", "MQT", (1, 5, 21)),
    "MQT from 1 token": rises,
    "Starbucks vs `Matryoshka2dLoss`": lambda: starbucks_over(
        "sentence-transformers Matryoshka2dLoss", "pairs"
    ),
    "Starbucks vs six models": lambda: [starbucks(form, "pairs") - alone() for form in STARBUCKS],
    "Starbucks at full size vs plain": lambda: starbucks_over("plain", "full"),
}


def table(text: str, head: str) -> list[list[str]]:
    """The rows of all Markdown tables whose first line starts with ``head``."""
    kept = []
    for below in text.split(head)[1:]:
        for line in below.splitlines()[2:]:
            if not line.startswith("|"):
                break
            kept.append([cell.strip() for cell in line.strip("|").split("|")])
    return kept


def check(cell: str, expected: list[float]) -> None:
    """The numbers of a cell are those expected, rounded as they stand there."""
    said = re.findall(r"[-+]?\d[\d,]*(?:\.\d+)?", cell)
    assert len(said) == len(expected), (cell, expected)
    for text, value in zip(said, expected, strict=True):
        digits = len(text.partition(".")[2])
        # Half a unit of the last digit, and what rounding of a value that was rounded before may add.
        assert abs(float(text.replace(",", "")) - value) <= 0.51 * 10**-digits + 1e-9, (cell, expected)


@pytest.mark.parametrize("row", table((ROOT / "README.md").read_text(encoding="utf-8"), FIGURES_HEAD))
def test_every_figure_of_the_readme_has_a_source(row: list[str]) -> None:
    what, metric, measured, target = row
    assert metric
    assert target
    (key,) = [key for key in README if f"{what} |".startswith(key)]
    check(measured, README[key]())


def tables_of_benchmarks() -> list[list[str]]:
    """The rows of the page of benchmarks whose figures follow from one result each."""
    return table((ROOT / "docs" / "reference" / "benchmarks.md").read_text(encoding="utf-8"), FIGURES_HEAD)


@pytest.mark.parametrize("row", tables_of_benchmarks())
def test_every_figure_of_the_page_of_benchmarks_has_a_source(row: list[str]) -> None:
    what, metric, measured, target = row
    assert metric
    assert target
    (key,) = [key for key in BENCHMARKS if what.startswith(key)]
    check(measured, BENCHMARKS[key]())


def test_the_guide_to_fidelity_follows_from_its_curves() -> None:
    quality, (kept, *_) = demo(1), script("figures").curves("fidelity")
    lines = table(
        (ROOT / "docs" / "guides" / "fidelity.md").read_text(encoding="utf-8"),
        "| dim | nDCG@10, share kept |",
    )
    assert lines
    for dim, share, *values in lines:
        check(share, [100 * quality.row(f"dim={dim}").kept])
        metrics = ("rank", "topology", "local", "neighbours@10")
        check(" ".join(values), [kept.row(f"dim={dim}", metric).value for metric in metrics])


def best_within(curve: Curve, size_bytes: int, bits: tuple[int, ...]) -> Any:
    """The best row of some precisions that takes no more bytes; of equal ones the smallest."""
    fits = [
        row
        for row in curve.column(curve.metrics[0])
        if row.vector_bytes <= size_bytes and row.granularity["bits"] in bits
    ]
    return max(fits, key=lambda row: (row.value, -row.vector_bytes), default=None)


def test_the_guide_to_bits_follows_from_its_curves() -> None:
    kinds = [demo(1), *script("figures").curves("bytes")]
    text = (ROOT / "docs" / "guides" / "bits.md").read_text(encoding="utf-8")
    lines = table(text, "| bytes | nested, float32 |")
    assert len(lines) == 6
    for size, *cells in lines:
        for number, cell in enumerate(cells):
            bits = (1, 2, 4, 8) if number % 2 else (32,)
            row = best_within(kinds[number // 2], int(size), bits)
            if row is None:
                assert cell == "-"
                continue
            dim, held = (row.granularity[axis] for axis in ("dim", "bits"))
            assert cell.endswith(f"({dim} x {held})" if number % 2 else f"({dim})")
            check(cell.partition(" (")[0].strip("*"), [row.value])
    full = [kind.row() for kind in kinds]
    assert " and ".join(", ".join(f"{row.vector_bytes:,}" for row in full).rsplit(", ", 1)) in text
    assert " and ".join(", ".join(f"{row.value:.3f}" for row in full).rsplit(", ", 1)) in text


def test_the_headline_is_what_the_demo_chose() -> None:
    row = demo(1).row(demo(1).choose(keep=0.99))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    dim, bits = (row.granularity[axis] for axis in ("dim", "bits"))
    kept, low, high = (100 * share for share in (row.kept, row.kept_low, row.kept_high))
    share = f"{kept:.1f} % [{low:.1f}, {high:.1f}]"
    bytes_said = f"**{row.vector_bytes} bytes keep {share} of the search quality of 1,024**"
    assert f"{bytes_said} ({dim} entries of {bits} bits)" in text


def test_the_guide_to_layers_follows_from_its_curves() -> None:
    text = (ROOT / "docs" / "guides" / "layers.md").read_text(encoding="utf-8")
    before, after = script("figures").curves("layers")
    at = "dim=128,layer=3"
    said = re.search(r"now keep (\d+) % of the\s+full quality, at (\d+) % .* kept (\d+) %", text)
    assert [int(each) for each in said.groups()] == [
        round(100 * ratio)
        for ratio in (
            after.row(at).kept,
            after.row(at).latency_ms / after.row().latency_ms,
            before.row(at).kept,
        )
    ]
    commands = re.findall(r"\| `nestling choose after/curve.json (.*?)` \| `(.*?)`: (.*?) \|", text)
    assert len(commands) == 3
    for flags, chosen, told in commands:
        targets = {
            name.replace("-", "_"): float(value) for name, value in re.findall(r"--([a-z-]+) (\S+)", flags)
        }
        row = after.row(after.choose(**targets))
        assert row.granularity == after.nesting.resolve(chosen)
        numbers = re.findall(r"\d+(?:\.\d+)?(?= ms| bytes| MB| with| in)", told)
        values = {"ms": row.latency_ms, "bytes": row.vector_bytes, "MB": (row.model_bytes or 0) / 1e6}
        for number in numbers:
            unit = re.search(rf"{re.escape(number)} (ms|bytes|MB)", told)
            check(number, [values[unit[1]] if unit else row.value])


def late_interaction(method: str, tokens: int) -> dict[str, float]:
    """The figures of a method at a number of tokens."""
    (found,) = [
        row for row in rows("late_interaction") if row["method"] == method and int(row["tokens"]) == tokens
    ]
    return {name: float(value) for name, value in found.items() if name not in ("method", "machine")}


def test_the_guide_to_tokens_follows_from_its_results() -> None:
    text = (ROOT / "docs" / "guides" / "tokens.md").read_text(encoding="utf-8")
    methods = ("clusters", "means of runs", "evenly spaced", "the first", "random")
    lines = table(text, f"| tokens | bytes a document | {' | '.join(methods)} |")
    assert [int(line[0]) for line in lines] == [2**i for i in range(9)]
    for tokens, size, *cells in lines:
        found = [late_interaction(method, int(tokens)) for method in methods]
        assert {each["bytes"] for each in found} == {int(size.replace(",", ""))}
        ends = [found[0][name] for name in ("ndcg@10", "low", "high")]
        check(" ".join(cells), [*ends, *(each["ndcg@10"] for each in found[1:])])
    one, every, some = (
        late_interaction(*at) for at in (("one vector", 1), ("clusters", 256), ("clusters", 64))
    )
    values = re.search(r"1,536 bytes scores (.*)\.", text)[1]
    check(values, [one[name] for name in ("ndcg@10", "low", "high")])
    assert round(every["mean_tokens"]) == int(re.search(r"\((\d+) on\s+average", text)[1])
    over = [f"over_{name}" for name in ("one_vector", "low", "high")]
    gain, times = re.search(r"All tokens .* by (.*\]), at (\d+) times", text).groups()
    check(f"{gain} {times}", [*(every[name] for name in over), every["bytes"] / one["bytes"]])
    share, gain = re.search(r"in (\d+) % of the bytes of all .* by (.*\])\.", text).groups()
    check(f"{share} {gain}", [100 * some["bytes"] / every["bytes"], *(some[name] for name in over)])


def test_what_the_guide_to_tokens_concludes() -> None:
    def at(method: str, *sizes: int) -> list[dict[str, float]]:
        return [late_interaction(method, size) for size in sizes]

    assert all(each["over_low"] > 0 for each in at("clusters", 64, 128, 256))
    assert [each["over_high"] < 0 for each in at("clusters", 1, 2)] == [False, True]
    assert all(each["over_high"] < 0 for each in at("means of runs", 32, 64))
    sizes = [2**i for i in range(8)]
    for other in ("evenly spaced", "random"):
        pairs = zip(at(other, *sizes), at("clusters", *sizes), strict=True)
        assert all(one["ndcg@10"] < cluster["ndcg@10"] for one, cluster in pairs)
    pairs = zip(at("the first", 32, 64, 128), at("clusters", 32, 64, 128), strict=True)
    assert all(abs(one["ndcg@10"] - cluster["ndcg@10"]) < 0.002 for one, cluster in pairs)


def test_what_the_guide_to_comparing_says_of_layers() -> None:
    values = np.array(json.loads((FIGURES / "cka.json").read_text(encoding="utf-8"))["values"])
    text = (ROOT / "docs" / "guides" / "compare.md").read_text(encoding="utf-8")
    first, last, third = re.search(r"hardly change \((\S+), (\S+)\)\..*\n.*\((\S+)\): the", text).groups()
    check(f"{first} {last} {third}", [values[0, 0], values[5, 5], values[4, 2]])
    assert values[:, 2].argmax() == 4


def guide_to_vectors() -> str:
    return (ROOT / "docs" / "guides" / "vectors.md").read_text(encoding="utf-8")


def adapters(model: str, method: str) -> dict[str, list[float]]:
    """The ndcg@10 of each seed by size."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows("adapters"):
        if (row["model"], row["method"]) == (model, method):
            values[row["dim"]].append(float(row["ndcg@10"]))
    return values


@pytest.mark.parametrize("model", ["wordllama", "minilm"])
def test_what_the_guide_to_vectors_says_of_maps(model: str) -> None:
    head = f"| {model} at dim= |"
    dims = guide_to_vectors().partition(head)[2].splitlines()[0].strip("| ").split(" | ")
    told = table(guide_to_vectors(), head)
    methods = dict.fromkeys(row["method"] for row in rows("adapters") if row["model"] == model)
    assert [method.replace("plain ", "") for method, *_ in told] == list(methods)
    for (_, *cells), method in zip(told, methods, strict=True):
        values = adapters(model, method)
        assert list(values) == dims
        for cell, seeds in zip(cells, values.values(), strict=True):
            check(cell, [float(np.mean(seeds))])


def better(model: str, method: str) -> list[int]:
    """The sizes at which the intervals of all seeds show a gain over truncation."""
    verdicts: dict[int, set[str]] = defaultdict(set)
    for row in rows("adapters"):
        if (row["model"], row["method"]) == (model, method):
            verdicts[int(row["dim"])].add(row["verdict"])
    return [dim for dim, said in verdicts.items() if said == {"better"}]


def test_what_the_guide_to_vectors_concludes() -> None:
    cuts = {"wordllama": [8, 16, 32, 64, 128], "minilm": [8, 16, 32, 64, 128, 256]}
    for model, dims in cuts.items():
        assert better(model, "adapter of pairs, a rotation") == dims
    for method in ("PCA of {}", "adapter of {}, a rotation", "adapter of {}, any linear map"):
        assert better("minilm", method.format("2,000 documents")) == cuts["minilm"]
        assert better("minilm", method.format("8,000 documents")) == cuts["minilm"]
        many = [8] if method.startswith("PCA") else [8, 16, 32]
        assert better("wordllama", method.format("8,000 documents")) == many
        assert better("wordllama", method.format("2,000 documents")) == [8]
    assert better("wordllama", "PCA of pairs") == []
    assert [
        row["dim"] for row in rows("adapters") if (row["method"], row["verdict"]) == ("PCA of pairs", "worse")
    ] == ["16"]
    for model, full in (("wordllama", "256"), ("minilm", "384")):
        for count in ("2,000", "8,000"):
            linear, rotated = (
                adapters(model, f"adapter of {count} documents, {kind}")[full]
                for kind in ("any linear map", "a rotation")
            )
            assert np.mean(linear) < np.mean(rotated)


def test_what_the_guide_to_vectors_says_of_intervals() -> None:
    text, found_rows = guide_to_vectors(), rows("fit_reports")
    told = table(text, "| coverage of 95 % intervals |")
    assert [name for name, *_ in told] == list(dict.fromkeys(row["data"] for row in found_rows))
    for name, metric, *cells in told:
        part = [row for row in found_rows if row["data"] == name]
        assert {row["metric"] for row in part} == {metric}
        alone = np.mean([float(row["coverage over queries alone"]) for row in part])
        check(" ".join(cells), [*(float(row["coverage"]) for row in part), float(alone)])
    half = re.search(r"half width of an interval on docstrings is (\S+) at 50 rows\s+and (\S+) at 800", text)
    part = [row for row in found_rows if row["data"] == "docstrings, vectors"]
    check(" ".join(half.groups()), [float(part[0]["half width"]), float(part[-1]["half width"])])
    cost = re.search(r"The check costs (\S+) % .* and\s+(\S+) % of one epoch", text)
    shares = [found("fit_reports_cost", "PCA") - 1, found("fit_reports_cost", "adapter")]
    check(" ".join(cost.groups()), [100 * share for share in shares])


def trained_for_bits(data: str, method: str, bits: int) -> list[float]:
    """The mean over dims, of each seed; in points, and over training for floats, unless that is asked for."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows("bits_training"):
        if (row["data"], row["method"], int(row["bits"])) == (data, method, bits):
            values[row["seed"]].append(100 * float(row["value"]))
    means = [float(np.mean(each)) for each in values.values()]
    base = {"codes, queries coded too": "floats, queries coded too"}.get(method, "floats")
    if method.startswith("floats") or not means:
        return means
    return [mean - other for mean, other in zip(means, trained_for_bits(data, base, bits), strict=True)]


def test_what_the_guide_says_of_training_for_bits() -> None:
    text = (ROOT / "docs" / "guides" / "text.md").read_text(encoding="utf-8")
    head = "| trained for |"
    told = table(text, head)
    names = list(dict.fromkeys(row["data"] for row in rows("bits_training")))
    places = [(name, bits) for name in names for bits in (1, 2, 32)]
    titles = text.partition(head)[2].splitlines()[0].strip("| ").split(" | ")
    assert titles == [f"{name}, {'floats' if bits == 32 else f'bits={bits}'}" for name, bits in places]
    assert [method for method, *_ in told] == list(
        dict.fromkeys(row["method"] for row in rows("bits_training"))
    )
    for method, *cells in told:
        for cell, (name, bits) in zip(cells, places, strict=True):
            seeds = trained_for_bits(name, method, bits)
            spread = [float(np.std(seeds, ddof=1))] if len(seeds) > 1 else []
            check(cell, [float(np.mean(seeds)), *spread])


def test_the_table_of_indexes_that_keep_codes() -> None:
    text = (ROOT / "docs" / "guides" / "search.md").read_text(encoding="utf-8")
    columns = ("disk_bytes_per_row", "memory_bytes_per_row", "recall_at_10", "single_ms")
    shown = table(text, "| kept | plan | bytes on the disk |")
    for (kept, plan, *cells), row in zip(shown, rows("bits_index"), strict=True):
        assert (kept.removeprefix("codes, "), plan) == (row["kept"], f"`{row['plan']}`")
        for cell, column in zip(cells, columns, strict=True):
            check(cell, [float(row[column])])


def test_the_table_of_lip_encoders_follows_from_its_results() -> None:
    text = (ROOT / "docs" / "guides" / "speech.md").read_text(encoding="utf-8")
    last = {row["try"]: row for row in rows("lips")}  # rows of a try are in the order of epochs
    told = table(text, "| trained with | epochs |")
    assert [name for name, *_ in told] == list(last)
    columns = ("epoch", "words", "letters", "training words")
    for name, *cells in told:
        check(" ".join(cells), [float(last[name][column]) for column in columns])


def test_every_picture_is_drawn_from_its_results(tmp_path: Path) -> None:
    images = ROOT / "docs" / "images"
    script("figures").draw_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in images.iterdir()}
    for path in tmp_path.iterdir():
        new, old = imread(path), imread(images / path.name)
        if f"matplotlib=={mpl.__version__}" in (ROOT / "constraints.txt").read_text(encoding="utf-8"):
            assert new.shape == old.shape
            # A line that moved by its own width is some percent of the pixels; letters differ by less.
            assert (np.abs(new - old).max(axis=2) > 0.2).mean() < 0.002, f"{path.name} is old: make figures"


def test_every_picture_is_shown_and_every_shown_one_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {path.resolve() for path in (ROOT / "docs" / "images").iterdir()}
