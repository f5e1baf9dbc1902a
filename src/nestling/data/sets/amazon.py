"""Purchases of beauty products on Amazon: the 5-core of 2014 as next-item recommenders use it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.ids import Ids
from nestling.data.interactions.interactions import Interactions
from nestling.data.interactions.reading import read_interactions
from nestling.data.sets.source import locate
from nestling.data.tables.input_file import find_file
from nestling.errors import DataError


@dataclass(frozen=True, eq=False)
class Purchases:
    """What people bought, and what is known of the products.

    Args:
        interactions: the products of each person, in the order of the file; days are not known.
        item_ids: ``Int64[items]``.
        asins: the product numbers of the shop.
        titles: of the products; a few are blank.
        attributes: brand, if it is known, and categories.
        vectors: ``Float32[items, 384]`` of :attr:`texts`, by all-MiniLM-L6-v2, of unit length.
    """

    interactions: Interactions
    item_ids: Ids
    asins: tuple[str, ...]
    titles: tuple[str, ...]
    attributes: tuple[tuple[str, ...], ...]
    vectors: NDArray[np.float32]

    @property
    def texts(self) -> list[str]:
        """Title and categories of each product in one text."""
        pairs = zip(self.titles, self.attributes, strict=True)
        return [f"Title: {title}\nCategories: {', '.join(attributes)}" for title, attributes in pairs]


def amazon_beauty() -> Purchases:
    """22,363 people, 12,101 beauty products, 198,502 purchases; nobody buys a product twice.

    Purchases of one day stand in order of the product number, so gains from the order of events may be an
    artefact of the file.

    Raises:
        DataError: if the files cannot be found, or are not what they should be.

    Source: McAuley et al. 2015, as S3-Rec, P5 and others use it.
    """
    return read_purchases(locate("amazon-beauty"))


def read_purchases(folder: Path) -> Purchases:
    """Purchases in a folder of ``sequences.txt.gz``, ``items.jsonl.gz`` and ``minilm.npy``.

    Raises:
        DataError: if a file is missing or damaged, or they do not fit together.
    """
    path = folder / "items.jsonl.gz"
    with find_file(path).open_text(newline="") as stream:
        try:
            items = [json.loads(line) for line in stream]
            ids = np.array([item["id"] for item in items], np.int64)
            asins, titles = (tuple(str(item[name]) for item in items) for name in ("asin", "title"))
            attributes = tuple(tuple(map(str, item["attributes"])) for item in items)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); get it again") from error
    vectors = np.asarray(np.load(folder / "minilm.npy"), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(f"{folder} has {len(ids)} items and vectors of shape {vectors.shape}; get it again")
    interactions = read_interactions(folder / "sequences.txt.gz")
    interactions.rows_in(ids)
    return Purchases(interactions, ids, asins, titles, attributes, vectors)
