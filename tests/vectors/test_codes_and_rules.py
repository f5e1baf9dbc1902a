"""Codes fit one rule; half precision, indexing of bit planes, and manifests that were altered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.bits import BitCode, halved
from nestling.cut import RAW, CutRule, cut
from nestling.errors import ArtifactError, DataError, NestlingError, PrecisionWarning
from nestling.testing import check_elastic
from nestling.vectors.formats import from_format, to_format
from nestling.vectors.planes import BitPlanes
from nestling.vectors.stored import StoredVectors
from samples import examples

RULES = [CutRule(before, after) for before in ("none", "layer_norm") for after in ("none", "l2")]


def vectors(rows: int = 400, dim: int = 20, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (draw.normal(size=(rows, dim)) / np.sqrt(np.arange(1, dim + 1)) + 0.05).astype(np.float32)


@pytest.mark.parametrize("made", RULES, ids=str)
@pytest.mark.parametrize("used", RULES, ids=str)
def test_a_code_fits_the_rule_that_it_was_calibrated_under_alone(made: CutRule, used: CutRule) -> None:
    code = made.calibrated(vectors()).code
    if made == used:
        assert replace(used, code=code).code == code
        return
    with pytest.raises(DataError, match="calibrated for another rule"):
        replace(used, code=code)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_code_follows_its_rule_through_extraction_and_folders(rule: CutRule, tmp_path) -> None:
    stored = StoredVectors(vectors(), "dim=5,13,20", rule).calibrated()
    check_elastic(stored, np.arange(20))
    small = stored.extract("dim=13,bits=4", tmp_path / "small")
    assert np.allclose(small.matrix(), stored.matrix("dim=13,bits=4"), atol=1e-6)
    stored.save(tmp_path / "all")
    assert StoredVectors.load(tmp_path / "all").rule == stored.rule


def test_a_code_of_raw_vectors_is_none_of_unit_vectors() -> None:
    x = vectors()
    with pytest.raises(DataError, match="another rule"):
        CutRule(code=BitCode.calibrate(x))
    unit = cut(x, 20)
    assert CutRule(code=BitCode.calibrate(unit)) == CutRule().calibrated(x)


@pytest.mark.filterwarnings("ignore::nestling.errors.CalibrationWarning")
@pytest.mark.parametrize("lengths", [[1], [1] * 300, [2, 4]])
def test_a_code_of_equal_vectors_is_refused(lengths: list[int]) -> None:
    with pytest.raises(DataError, match="all equal"):
        CutRule().calibrated(vectors()[:1] * np.array(lengths)[:, None])


@pytest.mark.parametrize("sample", [[["a", "b"]], np.ones((300, 4), complex), np.ones((300, 4), bool)])
def test_a_calibration_needs_real_numbers(sample: Any) -> None:
    with pytest.raises(DataError, match="numbers"):
        BitCode.calibrate(sample)


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 3e4, 1e9])
def test_half_precision_of_unit_vectors_does_not_depend_on_their_scale(scale: float) -> None:
    stored, scaled = (StoredVectors(vectors() * s, "dim=5,20").calibrated() for s in (1, np.float32(scale)))
    for at in ("dim=20,bits=16", "dim=5,bits=16"):
        assert np.allclose(scaled.matrix(at), stored.matrix(at), atol=1e-3)
        assert np.array_equal(scaled.extract(at).matrix(), scaled.matrix(at))


def test_values_that_half_precision_cannot_hold_are_refused(tmp_path) -> None:
    stored = StoredVectors(vectors() * np.float32(1e6), "dim=5,20", RAW).calibrated()
    actions: list[Callable[[], Any]] = [
        lambda: stored.matrix("dim=20,bits=16"),
        lambda: stored.extract("dim=20,bits=16"),
        lambda: stored.extract("dim=20,bits=16", tmp_path / "small"),
        lambda: to_format(stored.values, "float16"),
        lambda: cut(stored.values, 20, RAW, bits=16),
        lambda: halved(stored.values),
    ]
    for action in actions:
        with pytest.raises(DataError, match="beyond 65,504"):
            action()
    with pytest.warns(PrecisionWarning, match="few digits"):
        to_format(vectors() * np.float32(1e-7), "float16")


def test_32_bits_of_float64_are_32_bits() -> None:
    stored = StoredVectors(vectors().astype(np.float64), "dim=5,20").calibrated()
    assert stored.cost("bits=32").output_bytes == 4 * 20 == stored.extract("bits=32").values[0].nbytes
    assert stored([0], at="bits=32").dtype == np.float32
    assert StoredVectors(vectors().astype(np.float64), "dim=5,20").extract(5).values.dtype == np.float64
    check_elastic(stored, np.arange(20))


ROWS = st.one_of(
    st.integers(-7, 6), st.slices(7), st.lists(st.integers(-7, 6), max_size=5), st.just(np.arange(7) % 2 == 0)
)
ENTRIES = st.one_of(st.integers(-11, 10), st.slices(11), st.just([3, 1, 10]), st.just(np.arange(11) > 4))


@settings(max_examples=examples(150))
@given(ROWS, ENTRIES, st.sampled_from(["rows", "both", "entries", "ellipsis"]))
def test_planes_are_indexed_like_the_matrix_of_their_values(rows: Any, entries: Any, form: str) -> None:
    stored = StoredVectors(vectors(300, 11), "dim=5,11").calibrated().extract("dim=11,bits=4")
    planes = stored.values.part(np.arange(7))
    keys = {"rows": rows, "both": (rows, entries), "entries": (..., entries), "ellipsis": (rows, ...)}
    matrix = np.asarray(planes)
    try:
        wanted = matrix[keys[form]]
    except IndexError:
        with pytest.raises(IndexError):
            planes[keys[form]]
        return
    assert np.array_equal(planes[keys[form]], wanted)


def test_planes_are_iterated_by_row() -> None:
    planes = StoredVectors(vectors(300, 11), "dim=11").calibrated().extract("dim=11,bits=4").values
    assert isinstance(planes, BitPlanes)
    assert np.array_equal(np.stack(list(planes)), np.asarray(planes))
    for key in ((None, 0), (0, 0, 0), ([[0]], 0), (..., ...)):
        with pytest.raises(IndexError, match="rows and entries"):
            planes[key]
    with pytest.raises(IndexError):
        planes[300]


def altered(change: Callable[[dict[str, Any]], Any], kind: str) -> Any:
    return pytest.param(change, id=kind)


CHANGES = [
    altered(lambda m: m["settings"].update(bits="4"), "bits of text"),
    altered(lambda m: m["settings"].update(bits=0), "no bits"),
    altered(lambda m: m["settings"].update(bits=True), "a flag as bits"),
    altered(lambda m: m["settings"].update(bits=[4]), "a list of bits"),
    altered(lambda m: m["settings"].pop("bits"), "without bits"),
    altered(lambda m: m["cut"].pop("code"), "without a code"),
    altered(lambda m: m["cut"].update(code="x"), "a code of text"),
    altered(lambda m: m["cut"].update(code=[]), "a code of nothing"),
    altered(lambda m: m["cut"].update(extra=1), "one more step"),
    altered(lambda m: m["cut"].update(after="l3"), "another step"),
    altered(lambda m: m["cut"].update(after="none"), "another rule"),
    altered(lambda m: m["cut"]["code"].pop("full"), "without full"),
    altered(lambda m: m["cut"]["code"].update(extra=1), "one more key"),
    altered(lambda m: m["cut"]["code"].update(full="20"), "a size of text"),
    altered(lambda m: m["cut"]["code"].update(full=3), "a smaller size"),
    altered(lambda m: m["cut"]["code"].update(encoder=3), "an encoder of numbers"),
    altered(lambda m: m["cut"]["code"].update(centre=["a"] * 20), "centre of text"),
    altered(lambda m: m["cut"]["code"].update(centre=None), "without a centre"),
    altered(lambda m: m["cut"]["code"]["centre"].__setitem__(0, float("nan")), "NaN"),
    altered(lambda m: m["cut"]["code"]["centre"].pop(), "a short centre"),
    altered(lambda m: [m["cut"]["code"][name].pop() for name in ("centre", "spread")], "a short code"),
    altered(lambda m: m["cut"]["code"]["spread"].__setitem__(0, -1.0), "a negative spread"),
    altered(lambda m: m.update(nesting="dim=5,13 x bits=1,2,3,4"), "a nesting that ends before"),
    altered(lambda m: m.update(nesting="dim=5,13,20 x bits=1,2,3,4,8"), "a nesting of more bits"),
    altered(lambda m: m.update(nesting="dim=abc"), "no nesting"),
    altered(lambda m: m.update(nesting="layer=2"), "a nesting of layers"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_manifest_is_an_error_of_ours(change: Callable[[dict[str, Any]], Any], tmp_path) -> None:
    stored = StoredVectors(vectors(), "dim=5,13,20").calibrated()
    stored.extract("dim=20,bits=4", tmp_path / "v")
    manifest = tmp_path / "v" / "nestling.json"
    content = json.loads(manifest.read_text())
    change(content)
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError):
        StoredVectors.load(tmp_path / "v")


@pytest.mark.parametrize("dim", ["13", 13.0, 0, 99])
def test_the_entries_of_packed_bits_are_a_whole_number(dim: Any) -> None:
    with pytest.raises(NestlingError, match=r"dim=|entries"):
        from_format(np.zeros((3, 2), np.uint8), "ubinary", dim=dim)


@pytest.mark.parametrize("ranges", ["abc", [[1]], [["a"], ["b"]], None, [1 + 2j, 3]])
def test_ranges_are_numbers(ranges: Any) -> None:
    with pytest.raises(DataError, match="ranges"):
        from_format(np.zeros((3, 2), np.int8), "int8", ranges=ranges)
