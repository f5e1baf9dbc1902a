"""Layouts that tables store and give back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.cut import CutRule
from nestling.errors import ArtifactError, ConfigError, GranularityError
from nestling.granularity import Nesting
from nestling.search.stores import Layout


@given(
    sizes=st.sets(st.integers(1, 4000), min_size=1, max_size=6),
    data=st.data(),
    rule=st.builds(CutRule, st.sampled_from(["none", "layer_norm"]), st.sampled_from(["none", "l2"])),
    metric=st.sampled_from(["dot", "euclidean"]),
    ids=st.sampled_from(["int", "str"]),
    encoder=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_layout_comes_back_from_its_text(
    sizes: set[int], data: Any, rule: CutRule, metric: Any, ids: Any, encoder: str
) -> None:
    ordered = sorted(sizes)
    first = data.draw(st.sampled_from(ordered))
    between = tuple(size for size in ordered if size >= first and data.draw(st.booleans()))
    layout = Layout(Nesting.chain(dim=ordered), first, between, rule, metric, ids, encoder)
    assert Layout.from_text(layout.to_text(), "here") == layout
    assert layout.dims == tuple(sorted({first, *between, ordered[-1]}))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shortlist_dim": 12}, GranularityError, "12"),
        ({"rerank_dims": (20,)}, GranularityError, "20"),
        ({"rerank_dims": (8,)}, GranularityError, "below"),
        ({"nesting": Nesting.grid(dim=(8, 16), layer=(1, 2))}, GranularityError, "the axis dim, not layer"),
        ({"metric": "cosine"}, ConfigError, "dot, euclidean"),
        ({"ids": "uuid"}, ConfigError, "int, str"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    fields = {"nesting": Nesting.chain(dim=(8, 16, 32)), "shortlist_dim": 16} | change
    with pytest.raises(error, match=message):
        Layout(**fields)


@pytest.mark.parametrize("text", [None, "", "notes of somebody", "[1]", "{}", '{"nestling_store": "1"}'])
def test_a_table_of_others_is_none_of_ours(text: str | None) -> None:
    with pytest.raises(ArtifactError, match="the table here"):
        Layout.from_text(text, "the table here")
