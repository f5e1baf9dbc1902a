"""Columns named by their part, in plans and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestling.data.tables.roles import PAIR_ROLES, SCORED_ROLES, read_roles
from nestling.domains.text.retrieval import read_data
from nestling.domains.text.train_plan import read_plan
from nestling.errors import ConfigError, DataError


def test_parts_are_read() -> None:
    assert read_roles(" query = a b ,document=c", PAIR_ROLES) == {"query": "a b", "document": "c"}
    assert read_roles(None, PAIR_ROLES) == read_roles("", PAIR_ROLES) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b", "columns are named as in 'first=COLUMN,second=COLUMN'; got 'a'"),
        ("frist=a", "did you mean 'first'"),
        ("first=", "got 'first='"),
        ("first=a,first=b", "twice"),
    ],
)
def test_what_is_no_part_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_roles(text, SCORED_ROLES)


def test_a_plan_names_the_columns_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(
        "sku,name,blurb,shop\n1,red boat,it floats,x\n2,blue lamp,it shines,y\n", encoding="utf-8"
    )
    columns = "query=name,document=blurb,group=shop"
    pairs = read_data(read_plan(None, {"pairs": str(path), "columns": columns}).data)
    assert (pairs.queries, pairs.documents) == (("red boat", "blue lamp"), ("it floats", "it shines"))
    assert pairs.groups == ("x", "y")
    with pytest.raises(DataError, match="did you mean 'blurb'"):
        read_data(read_plan(None, {"pairs": str(path), "columns": "query=name,document=blurp"}).data)
