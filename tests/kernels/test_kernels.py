"""Scan kernels lose nothing, agree with numpy at every level, and are built or refused clearly."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling import kernels
from nestling.errors import ConfigError
from nestling.kernels import dispatch, library
from nestling.kernels.scans import native
from nestling.kernels.scans import numpy as twin
from nestling.search.certified.scan import CertifiedScan
from samples import examples

LEVELS = library.levels()
ROOT = Path(__file__).resolve().parents[2]


def random_codes(rng: np.random.Generator, rows: int, dim: int, bits: int) -> np.ndarray:
    return rng.integers(0, 1 << bits, (rows, dim)).astype(np.uint8)


@given(
    rows=st.integers(1, 70), dim=st.integers(1, 150), bits=st.sampled_from([1, 2, 4, 8]), seed=st.integers(0)
)
@settings(max_examples=examples(60))
def test_packing_loses_nothing(rows: int, dim: int, bits: int, seed: int) -> None:
    codes = random_codes(np.random.default_rng(seed), rows, dim, bits)
    packed = kernels.pack(codes, bits)
    assert packed.shape == (kernels.padded(rows) // 16, kernels.count_lines(dim, bits), 64)
    opened = kernels.unpack(packed, bits)
    np.testing.assert_array_equal(opened[:rows, :dim], codes)
    assert not opened[rows:].any()
    assert not opened[:, dim:].any()


@given(rows=st.integers(1, 40), dim=st.integers(1, 600), seed=st.integers(0))
@settings(max_examples=examples(40))
def test_packing_row_by_row_loses_nothing(rows: int, dim: int, seed: int) -> None:
    codes = random_codes(np.random.default_rng(seed), rows, dim, 2)
    opened = kernels.unpack_rows(kernels.pack_rows(codes))
    np.testing.assert_array_equal(opened[:, :dim], codes)
    assert not opened[:, dim:].any()


def some_packed(rng: np.random.Generator, rows: int, dim: int, bits: int, biased: bool) -> kernels.Packed:
    full = kernels.padded(rows)
    blocks = kernels.pack(random_codes(rng, rows, dim, bits), bits)
    scale, radius, bias = rng.random((3, full), np.float32)
    return kernels.Packed(rows, bits, blocks, scale, radius, bias if biased else None)


def some_queries(rng: np.random.Generator, count: int, packed: kernels.Packed, dim: int) -> np.ndarray:
    width = packed.blocks.shape[1] * 32 // packed.bits
    queries = np.zeros((count, width), np.int8)
    queries[:, :dim] = rng.integers(-127, 128, (count, dim))
    return queries


@pytest.mark.skipif(
    not LEVELS, reason="the kernels were not compiled: there is nothing to compare with numpy"
)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (15, 7, 2), (16, 16, 5), (300, 130, 7), (9000, 33, 3)], ids=str)
def test_a_scan_agrees_with_numpy(level: str, bits: int, shape: tuple[int, int, int]) -> None:
    rows, dim, count = shape
    rng = np.random.default_rng(bits)
    packed = some_packed(rng, rows, dim, bits, biased=rows % 2 == 0)
    queries = some_queries(rng, count, packed, dim)
    factors = rng.standard_normal((count, 4)).astype(np.float32) * np.float32(1e-3)
    for threshold in (-np.inf, 0.4, np.inf):
        factors[:, 3] = threshold
        ours, theirs = native.scan(level, packed, queries, factors), twin.scan(packed, queries, factors)
        for (rows_a, bounds_a), (rows_b, bounds_b) in zip(ours, theirs, strict=True):
            if threshold == 0.4:  # a bound at the threshold may round to either side of it
                assert len(set(rows_a) ^ set(rows_b)) <= 1 + rows // 1000
                continue
            np.testing.assert_array_equal(rows_a, rows_b)
            np.testing.assert_allclose(bounds_a, bounds_b, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(
    not LEVELS, reason="the kernels were not compiled: there is nothing to compare with numpy"
)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_sums_of_the_largest_codes_do_not_overflow(level: str, bits: int) -> None:
    dim = 4096
    codes = np.full((16, dim), (1 << bits) - 1, np.uint8)
    ones = np.ones(16, np.float32)
    packed = kernels.Packed(16, bits, kernels.pack(codes, bits), ones, ones)
    for value in (127, -127):
        queries = np.full((1, dim), value, np.int8)
        factors = np.array([[1, 0, 0, -np.inf]], np.float32)
        bounds = native.scan(level, packed, queries, factors)[0][1]
        assert set(bounds) == {np.float32(((1 << bits) - 1) * value * dim)}


def test_scan_estimates_are_inner_products_of_the_codes() -> None:
    """Independent of both: the sum that the documentation of the codes states."""
    rng = np.random.default_rng(0)
    packed = some_packed(rng, 50, 20, 4, biased=True)
    queries = some_queries(rng, 2, packed, 20)
    factors = np.array([[0.5, 0.25, 2, -np.inf]] * 2, np.float32)
    steps = 2 * kernels.unpack(packed.blocks, 4).astype(int) - 15
    expected = packed.scale * (0.5 * (queries.astype(int) @ steps.T) + 0.25) + 2 * packed.radius + packed.bias
    for (rows, bounds), row in zip(kernels.scan(packed, queries, factors), expected, strict=True):
        np.testing.assert_array_equal(rows, np.arange(50))
        np.testing.assert_allclose(bounds, row[:50], rtol=1e-5)


@pytest.mark.parametrize("level", ["off", *LEVELS])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
@pytest.mark.parametrize("dim", [1, 7, 8, 31, 33, 256, 771])
def test_exact_scores_agree_with_float64(
    level: str, dtype: type, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NESTLING_KERNELS", level)
    rng = np.random.default_rng(dim)
    wide = (rng.standard_normal((60, dim + 3)) * 20).astype(dtype)
    values, query = wide[:, :dim], rng.standard_normal(dim)  # a prefix: rows are longer than what is read
    rows = rng.integers(0, 60, 40)
    exact = values[rows].astype(np.float64)
    scale = rng.random(60)
    for vectors, expected in [
        (kernels.StoredRows(values), exact @ query),
        (kernels.StoredRows(values, scale), exact @ query * scale[rows]),
        (kernels.StoredRows(values, None, True), -np.square(exact - query).sum(axis=1)),
    ]:
        np.testing.assert_allclose(kernels.score(vectors, query, rows), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("level", ["off", *LEVELS])
def test_half_precision_is_read_to_the_last_bit(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All finite halves, denormals and both zeros among them."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)][:, None]
    scores = kernels.score(kernels.StoredRows(every), np.ones(1), np.arange(len(every)))
    np.testing.assert_array_equal(scores, every[:, 0].astype(np.float64))


@pytest.mark.skipif(
    not LEVELS, reason="the kernels were not compiled: there is nothing to compare with numpy"
)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_a_search_agrees_with_numpy(level: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few queries, which are pursued one by one, and many, for which codes are unpacked."""
    from nestling.cut import RAW

    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((9_100, 70), dtype=np.float32)
    queries = vectors[:37] + rng.standard_normal((37, 70), dtype=np.float32)
    allowed = rng.random(9_100) < 0.7
    scan = CertifiedScan.build(vectors, rule=RAW, metric=metric)
    for count, confidence in itertools.product((3, 8, 37), (1.0, 0.99)):
        answers = {}
        for name in ("off", level):
            monkeypatch.setenv("NESTLING_KERNELS", name)
            answers[name] = scan.search(queries[:count], 9, confidence=confidence, allowed=allowed, workers=1)
        if confidence == 1:
            np.testing.assert_array_equal(answers[level].indices, answers["off"].indices)
            np.testing.assert_allclose(answers[level].scores, answers["off"].scores, rtol=1e-6)
        else:  # both look through a likely set, in another order
            assert (answers[level].indices == answers["off"].indices).mean() > 0.95


def test_the_level_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NESTLING_KERNELS", raising=False)
    assert kernels.level() == (LEVELS[-1] if LEVELS else "off")
    assert kernels.available() == bool(LEVELS)
    for name in ("off", *LEVELS):
        monkeypatch.setenv("NESTLING_KERNELS", name)
        assert kernels.level() == name
    monkeypatch.setenv("NESTLING_KERNELS", "avx")
    with pytest.raises(ConfigError, match=r"did you mean 'avx2'.*Allowed: off, plain, avx2, avx512, neon"):
        kernels.level()


def test_a_level_that_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "levels", lambda: ("plain",))
    monkeypatch.setenv("NESTLING_KERNELS", "avx512")
    with pytest.raises(ConfigError, match="has only off, plain"):
        kernels.level()


def test_without_a_library_numpy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NESTLING_KERNELS", raising=False)
    monkeypatch.setattr(library, "library", lambda: None)
    assert not kernels.available()
    assert kernels.level() == "off"
    vectors = np.random.default_rng(0).standard_normal((40, 6), dtype=np.float32)
    np.testing.assert_array_equal(
        CertifiedScan.build(vectors).search(vectors, 1).indices[:, 0], np.arange(40)
    )


def test_a_library_of_another_machine_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_kernels.so").write_bytes(b"\x7fELF of another machine")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library.library.cache_clear()
    try:
        assert library.library() is None
    finally:
        library.library.cache_clear()


def test_an_install_without_a_compiler_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hook's own function, on a copy of the sources, with and without a compiler that works."""
    monkeypatch.syspath_prepend(str(ROOT))
    import hatch_build

    target = tmp_path / hatch_build.LIBRARY
    target.parent.mkdir(parents=True)
    (target.parent / "cpp").symlink_to(ROOT / hatch_build.SOURCES)
    said: list[str] = []
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there")
    assert not hatch_build.compile_kernels(tmp_path, said.append)
    assert "no C++ compiler" in said[-1]
    monkeypatch.setenv("CXX", sys.executable)
    assert not hatch_build.compile_kernels(tmp_path, said.append)
    assert "did not compile" in said[-1]
    assert not target.exists()


def test_the_wheel_is_for_any_python_on_a_platform_that_the_library_runs_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    import hatch_build

    monkeypatch.setattr("sysconfig.get_platform", lambda: "linux-x86_64")
    library = tmp_path / "library.so"
    for holds, tag in (
        (b"GLIBC_2.2.5 GLIBC_2.28 libc.so.6", "manylinux_2_28_x86_64"),
        (b"GLIBC_2.2.5 libc.so.6", "manylinux_2_17_x86_64"),
        (b"GLIBC_2.28 libstdc++.so.6", "linux_x86_64"),
        (b"libc.musl-x86_64.so.1", "linux_x86_64"),
    ):
        library.write_bytes(b"\x7fELF " + holds)
        assert hatch_build.platform_of(library) == tag
    monkeypatch.setattr("sysconfig.get_platform", lambda: "macosx-11.0-arm64")
    assert hatch_build.platform_of(library) == "macosx_11_0_arm64"
    assert inspect.getmodulename(hatch_build.LIBRARY.name) is None or "." in inspect.getmodulename(
        hatch_build.LIBRARY.name
    ), "pkgutil takes it for a module"


def test_importing_the_kernels_needs_no_other_room() -> None:
    code = "import nestling.kernels, sys; print(any(m.startswith('nestling.search') for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its structures may have other fields: numpy is used until the package is installed again."""
    if library.library() is None:
        assert not library.levels()
        return
    monkeypatch.setattr(library, "INTERFACE", library.INTERFACE + 1)
    assert library.library.__wrapped__() is None
