"""Vectors of queries and documents to be held in few bytes: trained, never nested, and of another field."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.data.sets.emoji import emoji_clip, emoji_pictures
from nestling.data.sets.retrieval_sets import cranfield
from nestling.domains.text.retrieval import TextStudy, read_data
from nestling.domains.text.train_plan import read_plan
from nestling.encoders.text.encoder import TextEncoder
from nestling.measure.precision import Encoded
from nestling.measure.tasks.retrieval import Retrieval
from nestling.papers.problems.labelled import Floats
from nestling.process.blocks import blocks

_TRAINING = {"epochs": 6, "batch_size": 1024, "lr": 3e-3}  # of ``nestling demo``
_TRAINED_DIMS, _MINILM_DIMS = (16, 32, 64, 128, 256), (16, 32, 64, 128, 192, 384)
_CLIP_DIMS, _ASKED_STYLES = (8, 16, 32, 64, 96, 128), 3
_CLIP_MEAN, _CLIP_SD = np.array([[0.78, 0.74, 0.70], [0.30, 0.31, 0.34]], np.float32)
_DOCUMENTS = 3_000  # of MiniLM, a minute to encode
_QUICK = 300

PRECISIONS = (1, 2, 3, 4, 8, 32)

Quality = dict[tuple[int, int], float]
"""nDCG@10 by dims and bits."""


@dataclass(frozen=True, eq=False)
class Search:
    """One seed of a problem: settings are chosen by some queries and judged by others.

    Args:
        choosing: the task to choose by; its inputs are vectors.
        judging: the task to report, of other queries.
        sample: ``Float[n, dim]`` to calibrate codes on.
        dims: the sizes to look at.
    """

    choosing: Retrieval
    judging: Retrieval
    sample: Floats
    dims: tuple[int, ...]

    @cached_property
    def rule(self) -> CutRule:
        """Cosines, with codes calibrated on the sample."""
        return CutRule().calibrated(self.sample)

    @cached_property
    def chosen(self) -> Quality:
        """Qualities for the queries to choose by, at every precision."""
        return self.qualities(self.choosing, PRECISIONS)

    @cached_property
    def judged(self) -> Quality:
        """Qualities for the queries to report, at every precision."""
        return self.qualities(self.judging, PRECISIONS)

    def qualities(self, task: Retrieval, bits: tuple[int, ...]) -> Quality:
        """nDCG@10 at every size and precision of the documents; queries are floats."""
        vectors = {"queries": task.queries, "documents": task.documents}
        encoded, found = Encoded(vectors, self.rule, task.stored, task.stored), Quality()
        for each in bits:
            scored = self.quality(task, encoded.at(each)["documents"])
            found |= {(dim, each): value for dim, value in scored.items()}
        return found

    def quality(self, task: Retrieval, documents: Floats) -> dict[int, float]:
        """nDCG@10 of documents as some code holds them, by size."""
        scores = task.score({"queries": task.queries, "documents": documents}, self.dims, CutRule())
        values = scores.statistic(np.ones((1, len(task.queries))))[0, :, 0]
        return dict(zip(self.dims, map(float, values), strict=True))


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem; its search is made once a seed, though several claims ask for it.

    Args:
        name: in the report.
        draw: the search of a seed.
    """

    name: str
    draw: Callable[[int], Search]


def trained(quick: bool) -> Problem:
    """Docstrings by the model of ``nestling demo``; a seed splits the pairs and trains."""

    @cache
    def draw(seed: int) -> Search:
        with tempfile.TemporaryDirectory() as folder:
            settings = {**_TRAINING, **({"epochs": 1} if quick else {}), "nesting": "dim=16..256+16"}
            plan = read_plan(None, {"encoder": "wordllama", "seed": seed, "folder": folder, **settings})
            pairs = read_data(plan.data).head(_QUICK * 10 if quick else None)
            study = TextStudy(plan, pairs)
            encode = study.train().encode
        first, second = (Retrieval.from_pairs(part) for part in (study.validation, study.test))
        return _search(first, second, encode, _TRAINED_DIMS, encode(study.training.documents[:20_000]))

    return Problem("docstrings, trained nested (256 dims)", draw)


def never_nested(quick: bool) -> Problem:
    """Docstrings by MiniLM, cut as they come; a seed splits the pairs."""
    encode = _remembered(TextEncoder.open("minilm").encode)

    @cache
    def draw(seed: int) -> Search:
        pairs = read_data(read_plan(None, {"encoder": "minilm"}).data)
        count = _QUICK if quick else _DOCUMENTS
        order = np.random.default_rng([31, seed]).permutation(len(pairs))[: 2 * count]
        first, second = (Retrieval.from_pairs(pairs.take(rows)) for rows in np.split(order, [count]))
        return _search(first, second, encode, _MINILM_DIMS)

    return Problem("docstrings, MiniLM as it comes (384 dims)", draw)


def abstracts(quick: bool) -> Problem:
    """Cranfield by MiniLM; a seed halves the questions."""
    encode = _remembered(TextEncoder.open("minilm").encode)

    @cache
    def draw(seed: int) -> Search:
        data = cranfield()
        names = np.random.default_rng([37, seed]).permutation(list(data.qrels))
        halves = np.array_split(names[: _QUICK // 5] if quick else names, 2)
        judged = ({name: data.qrels[name] for name in half} for half in halves)
        first, second = (Retrieval.from_data(replace(data, qrels=each)) for each in judged)
        return _search(first, second, encode, _MINILM_DIMS)

    return Problem("Cranfield, MiniLM as it comes (384 dims)", draw)


def pictures(quick: bool) -> Problem:
    """Emoji by a small CLIP: pictures in three styles look for their concept in the others."""
    vectors = cache(clip_vectors)

    @cache
    def draw(seed: int) -> Search:
        data, chance = emoji_pictures(), np.random.default_rng([43, seed])
        styles = chance.permutation(np.unique(data.styles))[:_ASKED_STYLES]
        stored = np.flatnonzero(~np.isin(data.styles, styles))
        known = np.isin(data.concepts, data.concepts[stored])
        asked = chance.permutation(np.flatnonzero(np.isin(data.styles, styles) & known))
        first, second = (
            Retrieval(vectors()[rows], vectors()[stored], _same(data.concepts, rows, stored))
            for rows in np.array_split(asked[:_QUICK] if quick else asked, 2)
        )
        return Search(first, second, first.documents, _CLIP_DIMS)

    return Problem("emoji pictures, CLIP as it comes (128 dims)", draw)


def clip_vectors() -> Floats:
    """Vectors of all emoji by the model that was trained on some of their styles, ``Float32[n, 128]``."""
    import torch
    from transformers import CLIPModel

    model: Any = CLIPModel.from_pretrained(emoji_clip())
    model.eval()
    images = (emoji_pictures().images / np.float32(255) - _CLIP_MEAN) / _CLIP_SD
    found = []
    with torch.no_grad():
        for rows in blocks(len(images), 512):
            seen = model.vision_model(torch.from_numpy(images[rows]).permute(0, 3, 1, 2)).pooler_output
            found.append(model.visual_projection(seen).numpy())
    return np.concatenate(found)


def _same(labels: NDArray[np.str_], asked: NDArray[np.int64], stored: NDArray[np.int64]) -> list[list[int]]:
    """For each row of ``asked``, the positions in ``stored`` of rows with its label."""
    rows: dict[str, list[int]] = {}
    for position, label in enumerate(labels[stored].tolist()):
        rows.setdefault(label, []).append(position)
    return [rows[label] for label in labels[asked].tolist()]


def timed(quick: bool) -> Problem:
    """Vectors made on the spot, as many as no cache holds, for claims about seconds."""
    rows, queries, dim = (5_000, 100, 256) if quick else (200_000, 500, 256)

    @cache
    def draw(seed: int) -> Search:
        chance = np.random.default_rng([41, seed])
        documents = chance.normal(size=(rows, dim)).astype(np.float32)
        asked = documents[:queries] + chance.normal(size=(queries, dim)).astype(np.float32)
        task = Retrieval(asked, documents, list(range(queries)))
        return Search(task, task, documents, (dim,))

    return Problem(f"{rows:,} made vectors of {dim} dims", draw)


def _search(
    choosing: Retrieval,
    judging: Retrieval,
    encode: Callable[[list[str]], Floats],
    dims: tuple[int, ...],
    sample: Floats | None = None,
) -> Search:
    """The search of two tasks on texts; codes are calibrated on the documents of the first by default."""
    first, second = _encoded(choosing, encode), _encoded(judging, encode)
    return Search(first, second, first.documents if sample is None else sample, dims)


def _encoded(task: Retrieval, encode: Callable[[list[str]], Floats]) -> Retrieval:
    return Retrieval(encode(list(task.queries)), encode(list(task.documents)), task.qrels)


def _remembered(encode: Callable[[list[str]], Floats]) -> Callable[[list[str]], Floats]:
    """An encoder that encodes each text once, as seeds share texts."""
    known: dict[str, Floats] = {}

    def encode_new(texts: list[str]) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    return encode_new


PROBLEMS: Mapping[str, Callable[[bool], Problem]] = {
    "trained": trained,
    "never nested": never_nested,
    "abstracts": abstracts,
    "pictures": pictures,
    "timed": timed,
}
