"""Vectors of texts to search in: definitions of WordNet and docstrings, by two encoders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nestling.cut import cut
from nestling.data.pairs import TextPairs
from nestling.data.sets.source import data_folder
from nestling.encoders.maps import NestedAdapter
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import DataError, NoGainWarning
from nestling.papers.problems.labelled import Floats

# Where WordNet lies if neither WordNet's own variable nor NESTLING_DATA says so: Debian's wordnet-base.
_WORDNET_FOLDER = Path("/usr/share/wordnet")
_PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
_EXAMPLE = '; "'
_FEW_ROWS = 10_000
_QUICK, _QUICK_DIM = (300, 100), 32


@dataclass(frozen=True, eq=False)
class Texts:
    """Vectors of texts. Every seed draws its own rows and queries from them.

    Args:
        name: in the report.
        rows: ``Float[n, dim]``, searched.
        asked: ``Float[m, dim]``, the queries; None holds out some of ``rows`` as queries.
        counts: rows and queries of one seed.
        nesting: learned for every seed on its rows alone; None where the encoder is nested itself.
    """

    name: str
    rows: Floats
    asked: Floats | None
    counts: tuple[int, int]
    nesting: str | None = None

    def fewer(self) -> Texts:
        """The same texts, of which only a few are searched: for indexes that take long to build."""
        rows, queries = self.counts
        few = min(rows, _FEW_ROWS)
        return replace(self, name=f"{few:,} of the {self.name}", counts=(few, queries))

    def draw(self, seed: int) -> tuple[Floats, Floats]:
        """The rows and the queries of one seed."""
        draw, (rows, queries) = np.random.default_rng([23, seed]), self.counts
        order = draw.permutation(len(self.rows))
        database = self.rows[order[:rows]]
        if self.asked is None:
            asked = self.rows[order[rows:][:queries]]
        else:
            asked = self.asked[draw.permutation(len(self.asked))[:queries]]
        if self.nesting is None:
            return database, asked
        # A rotation keeps every cosine of the full size, and so what an exact search finds.
        # Where it pays is what the study itself measures.
        with warnings.catch_warnings(action="ignore", category=NoGainWarning):
            adapter = NestedAdapter(self.nesting, orthogonal=True, seed=seed).fit(database)
        return adapter.transform(database), adapter.transform(asked)


def wordnet_folder() -> Path | None:
    """The folder of WordNet's dictionary files, or None."""
    own = data_folder()
    places = [Path(os.environ.get("WNSEARCHDIR", _WORDNET_FOLDER)), *([own / "wordnet"] if own else [])]
    return next((place for place in places if (place / "data.noun").is_file()), None)


def read_definitions(folder: Path) -> tuple[str, ...]:
    r"""The distinct definitions of WordNet, without their examples.

    Args:
        folder: holds ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv``.

    Raises:
        DataError: if a file is missing or is no dictionary file.
    """
    found: dict[str, None] = {}
    for part in _PARTS_OF_SPEECH:
        file = folder / f"data.{part}"
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read as part of WordNet: {error}") from error
        entries = [line for line in lines if not line.startswith("  ")]  # two spaces begin the licence
        if not entries or not all(" | " in line for line in entries):
            raise DataError(
                f"{file} is no dictionary file of WordNet: every entry ends in a bar and its meaning"
            )
        for line in entries:
            meaning = line.partition(" | ")[2].strip()
            found.setdefault(meaning.partition(_EXAMPLE)[0].strip())
    return tuple(text for text in found if text)


def definitions(folder: Path, encoder: TextEncoder, quick: bool) -> Texts:
    """WordNet's definitions; those held out are the queries."""
    texts = read_definitions(folder)
    counts = _QUICK if quick else (100_000, 2_000)
    rows = _encode(texts[: sum(counts)] if quick else texts, encoder, quick)
    return Texts("WordNet definitions, wordllama", rows, None, _fit(counts, len(rows)))


def docstring_search(pairs: TextPairs, encoder: TextEncoder, quick: bool) -> Texts:
    """Descriptions of functions; names and parameters are the queries."""
    counts = _QUICK if quick else (40_000, 2_000)
    order = np.random.default_rng(0).permutation(len(pairs))[: sum(counts)]
    rows = _encode([pairs.documents[row] for row in order], encoder, quick)
    asked = _encode([pairs.queries[row] for row in order[: counts[1]]], encoder, quick)
    return Texts("docstrings, wordllama", rows, asked, _fit(counts, len(rows)))


def adapted_docstrings(pairs: TextPairs, encoder: TextEncoder, quick: bool) -> Texts:
    """Descriptions by a transformer whose vectors are not nested; a rotation makes them nested."""
    counts = _QUICK if quick else (3_000, 500)
    order = np.random.default_rng(0).permutation(len(pairs))[: sum(counts)]
    rows = _encode([pairs.documents[row] for row in order], encoder, quick)
    full = rows.shape[1]
    return Texts("docstrings, MiniLM turned", rows, None, _fit(counts, len(rows)), f"dim={full // 8}..{full}")


def _encode(texts: Sequence[str], encoder: TextEncoder, quick: bool) -> Floats:
    vectors = encoder.encode(texts)
    return cut(vectors, _QUICK_DIM) if quick else vectors


def _fit(counts: tuple[int, int], available: int) -> tuple[int, int]:
    """``counts``, or as many rows as there are beside the queries."""
    rows, queries = counts
    return min(rows, available - queries), queries
