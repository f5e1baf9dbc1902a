"""AdANNS's claims: the whole tour on data made on the spot, and checks that can tell good from bad."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nestling.cut import cut
from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.papers import adanns, mrl, reproduce
from nestling.papers.claims.checks import Checks, measure_checks
from nestling.papers.claims.indexes import (
    NESTED,
    Asked,
    Representation,
    best,
    centroid_recall,
    cheapest,
    fastest,
    labelled_problem,
    relative_contrast,
    seconds_in_turn,
    text_problem,
)
from nestling.papers.claims.models import Effort, Model, Study
from nestling.papers.problems.labelled import LabelledData, Rows
from nestling.papers.problems.search_texts import Texts, adapted_docstrings, read_definitions, wordnet_folder

LICENCE = "  1 This software and database is being provided to you, the LICENSEE  \n"


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """A folder in WordNet's form, with enough made-up meanings for a quick run."""
    words = [
        "red",
        "old",
        "round",
        "sweet",
        "small",
        "wild",
        "house",
        "tree",
        "river",
        "stone",
        "bird",
        "song",
    ]
    draw = np.random.default_rng(0)
    for number, part in enumerate(("noun", "verb", "adj", "adv")):
        lines = [
            f"{row:08} 03 n 01 thing 0 000 | {' '.join(draw.choice(words, 5))} {row}"
            for row in range(number * 150, number * 150 + 150)
        ]
        (tmp_path / f"data.{part}").write_text(LICENCE + "\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.delenv("NESTLING_DATA", raising=False)
    return tmp_path


class Columns(nn.Module):
    """An encoder that puts its inputs into another order."""

    def __init__(self, order) -> None:
        super().__init__()
        self.order = torch.as_tensor(np.array(order))

    def forward(self, x):
        return x[:, self.order]


def known_problem(ours, full, seed=0):
    """Six classes that lie in the first two of 64 inputs, in the order that each model gives these."""
    draw = np.random.default_rng(seed)

    def rows(count):
        labels = draw.integers(6, size=count)
        x = draw.normal(scale=0.05, size=(count, 64))
        x[:, :2] += np.stack([np.cos(labels), np.sin(labels)], axis=1)
        return Rows(x.astype(np.float32), labels)

    data = LabelledData("made", Nesting.parse("dim=2..64"), rows(600), rows(50), rows(400))
    study = Study("pictures", data, Effort.of(True, epochs=1, rates=(1e-2,)), mrl.train)
    study._models = {("MRL", 0): Model(Columns(ours), None), ("FF-64", 0): Model(Columns(full), None)}
    return labelled_problem(study, 500, 300)


FORWARD, BACKWARD = range(64), range(63, -1, -1)


def random_texts(rows=700, dim=32, **given):
    """Vectors whose first entries vary most, as those of nested encoders do."""
    x = np.random.default_rng(3).normal(size=(rows, dim)) / np.sqrt(1 + np.arange(dim))
    return Texts("made", x.astype(np.float32), None, (600, 100), **given)


def test_whole_tour_measures_every_claim(wordnet):
    report = reproduce("adanns", seeds=2, quick=True)
    assert {claim.id for claim in report.claims} == set(adanns.CLAIMS)
    for claim in report.claims:
        if claim.holds is None:
            assert claim.statement == adanns.NOT_TESTED[claim.id]
            continue
        low, high = claim.interval
        assert claim.seeds == 2
        assert low <= high
        assert claim.holds == (low >= 0)
        assert claim.figures
        assert all(math.isfinite(value) for value in claim.figures.values())
    exact = next(claim for claim in report.claims if claim.id == "A1")
    assert exact.holds
    chosen = report.settings["chosen"]["WordNet definitions, wordllama"]["A2, seed 0"]
    assert chosen.startswith("ivf")
    assert "nprobe=" in chosen


def test_without_wordnet_its_claims_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.delenv("NESTLING_DATA", raising=False)
    assert wordnet_folder() is None
    report = reproduce("adanns", seeds=2, claims=["A2", "A7"], quick=True)
    assert [claim.holds for claim in report.claims] == [None, None]
    assert all("wordnet-base" in claim.statement for claim in report.claims)


def test_wordnet_is_also_found_among_the_users_data(wordnet, tmp_path, monkeypatch):
    own = tmp_path / "own"
    (own / "wordnet").mkdir(parents=True)
    (own / "wordnet" / "data.noun").touch()
    monkeypatch.setenv("NESTLING_DATA", str(own))
    assert wordnet_folder() == wordnet
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path / "nowhere"))
    assert wordnet_folder() == own / "wordnet"


def test_definitions_come_without_licence_examples_and_repeats(tmp_path):
    entries = {
        "noun": ['00001 03 n 01 dog 0 000 | a tame wolf; it barks; "the dog barked"', "00002 | a cat"],
        "verb": ["00003 29 v 01 purr 0 000 | a cat"],
        "adj": ['00004 | like a cat; "a feline walk"; "feline grace"'],
        "adv": ["00005 | in the manner of cats  "],
    }
    for part, lines in entries.items():
        (tmp_path / f"data.{part}").write_text("\n".join([LICENCE.strip("\n"), *lines]), encoding="utf-8")
    found = read_definitions(tmp_path)
    assert found == ("a tame wolf; it barks", "a cat", "like a cat", "in the manner of cats")


@pytest.mark.parametrize("content", ["", LICENCE, "00001 03 n 01 dog 0 000\n", b"\xff\xfe | \xff\n"])
def test_files_that_are_not_wordnets_are_refused(wordnet, content):
    data = content if isinstance(content, bytes) else content.encode()
    (wordnet / "data.verb").write_bytes(data)
    with pytest.raises(DataError, match=r"data\.verb"):
        read_definitions(wordnet)
    (wordnet / "data.verb").unlink()
    with pytest.raises(DataError, match="cannot be read as part of WordNet"):
        read_definitions(wordnet)


def test_rows_and_queries_of_a_seed_are_distinct():
    texts = replace(random_texts(), rows=np.arange(700, dtype=np.float32)[:, None])
    rows, queries = texts.draw(0)
    assert (len(rows), len(queries)) == (600, 100)
    assert not np.isin(queries, rows).any()
    assert np.array_equal(texts.draw(0)[0], rows)
    assert not np.array_equal(texts.draw(1)[0], rows)


def test_a_learned_rotation_keeps_what_is_nearest():
    plain = random_texts()
    plain = replace(plain, rows=plain.rows[:, ::-1].copy())  # the important entries are last
    turned = replace(plain, nesting="dim=4..32")
    cosines = []
    for texts in (plain, turned):
        rows, queries = (cut(x, 32) for x in texts.draw(0))
        cosines.append(queries @ rows.T)
    np.testing.assert_allclose(cosines[1], cosines[0], atol=1e-4)
    for texts, low, high in ((plain, 0, 0.3), (turned, 0.3, 1)):
        problem = text_problem("made", texts)
        index = problem.index("flat@8", 0)
        assert low <= index.at().reported["recall"] / 100 < high


def test_texts_of_a_transformer_are_turned(monkeypatch):
    rows = random_texts(rows=500, dim=384).rows
    pairs = SimpleNamespace(documents=[str(row) for row in range(500)])
    pairs = type("Pairs", (), {"documents": pairs.documents, "__len__": lambda self: 500})()
    encoder = SimpleNamespace(encode=lambda texts: rows[[int(text) for text in texts]])
    texts = adapted_docstrings(pairs, encoder, quick=True)
    assert texts.nesting == "dim=4..32"
    assert texts.rows.shape == (400, 32)
    assert adapted_docstrings(pairs, encoder, quick=False).counts == (0, 500)


def test_recall_agrees_with_a_plain_loop():
    problem = text_problem("made", random_texts())
    ground = problem.ground(0, NESTED)
    found = problem.index("int4@16", 0).at()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (ground.reporting.queries, ground.rows)]
    truth = np.argsort(-(unit[0] @ unit[1].T), axis=1)[:, :10]
    answers = found.find(ground.reporting.queries).indices
    slow = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(answers, truth, strict=True)])
    assert found.reported["recall"] == pytest.approx(100 * slow, abs=0.3)
    assert problem.index("flat@full", 0).at().reported["recall"] > 99.5
    misses = ground.reporting.judge(np.full((50, 10), -1))
    assert misses == {"recall": 0.0}


def test_quality_by_class_agrees_with_a_plain_loop():
    problem = known_problem(FORWARD, BACKWARD)
    index = problem.index("flat@2", 0)
    assert index.at().reported["top-1"] > 95
    assert problem.index("flat@2", 0, Representation(64)).at().reported["top-1"] < 40
    judge = index.ground.reporting.judge
    assert judge(np.full((150, 10), -1)) == {"top-1": 0.0, "mAP@10": 0.0}


def test_halves_share_no_query():
    ground = known_problem(FORWARD, BACKWARD).ground(0, NESTED)
    both = np.concatenate([ground.tuning.queries, ground.reporting.queries])
    assert len(np.unique(both, axis=0)) == 300


class Known:
    """Stands for an operation whose quality and cost are given."""

    def __init__(self, tuned, reported, mflops, seconds=0.0):
        self.tuned, self.reported, self.mflops = {"recall": tuned}, {"recall": reported}, mflops
        self.index = SimpleNamespace(
            ground=SimpleNamespace(tuning=Asked(None, None), reporting=Asked(None, None))
        )
        self._seconds = seconds

    def seconds(self, queries):
        return self._seconds


def test_points_are_chosen_with_the_tuning_queries_alone():
    lucky, good, dear = Known(80, 99, 1, 9), Known(90, 70, 2, 5), Known(95, 70, 4, 3)
    tried = [lucky, good, dear]
    assert best(tried, "recall") is dear
    assert best(tried, "recall", budget=2) is good
    assert cheapest(tried, "recall", 90) is good
    assert fastest(tried, "recall", 90) is dear
    assert cheapest(tried, "recall", 99) is dear  # nothing reaches it: the best there is
    assert seconds_in_turn(tried) == [9, 5, 3]


def test_cutting_later_is_told_from_rebuilding():
    assert adanns.needs_no_rebuild(known_problem(FORWARD, BACKWARD), 0)[0] >= 0
    # The entries that separate the classes are last: lists by all entries know it, lists by a prefix do not.
    _, figures = adanns.needs_no_rebuild(known_problem(BACKWARD, FORWARD), 0)
    assert max(map(abs, figures.values())) > 0


def test_only_ordered_vectors_survive_a_cut():
    clearance, figures = adanns.only_nested_vectors_can_be_cut(known_problem(FORWARD, BACKWARD), 0)
    assert clearance > 10
    assert figures["nested at 8"] > 95
    assert adanns.only_nested_vectors_can_be_cut(known_problem(BACKWARD, FORWARD), 0)[0] < -10


def test_equal_vectors_gain_nothing_but_compute():
    clearance, figures = adanns.nested_codes_are_better(known_problem(FORWARD, FORWARD), 0)
    assert clearance == -0.5
    assert figures["top-1 at 8 bytes"] == 0
    _, figures = adanns.cheaper_at_equal_accuracy(known_problem(FORWARD, FORWARD), 0)
    assert figures["MFLOPs, rigid / adaptive (>= 2)"] > 2


def test_all_lists_are_exact():
    problem = text_problem("made", random_texts())
    clearance, figures = adanns.all_lists_are_exact(problem, 0)
    assert clearance >= 0
    assert [name.partition(", ")[2] for name in figures] == [
        "(8, 16)",
        "(16, 16)",
        "(16, 8)",
        "(8, 32)",
    ]


def test_the_whole_vector_finds_its_list():
    problem = known_problem(FORWARD, BACKWARD)
    nested = centroid_recall(problem, 0, [2, 8, 64], 1, rigid=False)
    assert nested[-1] == 1.0
    assert nested[0] > centroid_recall(problem, 0, [2], 1, rigid=True)[0]
    assert centroid_recall(problem, 0, [2], 5, rigid=False)[0] >= nested[0]


def test_contrast_agrees_with_plain_distances():
    ground = text_problem("made", random_texts()).ground(0, NESTED)
    q, x = (cut(each, 8).astype(np.float64) for each in (ground.reporting.queries, ground.rows))
    distances = np.linalg.norm(q[:, None] - x[None], axis=2)
    expected = distances.mean() / distances.min(axis=1).mean()
    # The nearest pairs are near enough for float32 to show.
    assert relative_contrast(ground, 8) == pytest.approx(expected, rel=1e-3)


def test_an_operation_says_what_it_is():
    problem = text_problem("made", random_texts())
    operation = problem.index("ivf8@8 > flat@full", 0).at(16, nprobe=2)
    assert str(operation) == "ivf8@8 > flat@32, cut at 16, nprobe=2"
    assert operation.mflops == pytest.approx((8 * 8 + 2 / 8 * 600 * 16) / 1e6)
    assert problem.index("ivf8@8 > flat@full", 0) is operation.index


def test_checks_stand_in_the_order_in_which_they_are_written():
    checks = Checks()

    @checks.claim("X2", "more", ["one", "two"])
    def first(problem, seed):
        return 1.0 + seed, {"seed": seed}

    @checks.claim("X1", "less", ["two"])
    def second(problem, seed):
        return -1.0, {}

    assert first(None, 1)[0] == 2.0
    claims = measure_checks(checks, {"one": SimpleNamespace(name="One")}, 2, {"two": "it is not here"})
    assert [(claim.id, claim.data, claim.holds) for claim in claims] == [
        ("X2", "One", False),
        ("X2", "", None),
        ("X1", "", None),
    ]
    assert claims[0].figures == {"seed": 0.5}
    assert claims[1].statement == "more: it is not here"


def test_problems_without_their_data_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    monkeypatch.delenv("NESTLING_DATA", raising=False)
    assert list(adanns.problems({"definitions"}, quick=True)) == []
