"""Files of vectors: those of other programs are read, broken ones are refused."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestling.errors import DataError
from nestling.vectors.opening import open_vectors
from nestling.vectors.parquet import read_other_columns
from samples import examples

N, DIM = 40, 12


def vectors(dtype=np.float32):
    return np.random.default_rng(0).standard_normal((N, DIM)).astype(dtype)


def write_fvecs(path, x):
    with path.open("wb") as stream:
        for row in x:
            np.array([len(row)], "<i4").tofile(stream)
            row.astype("<f4").tofile(stream)


def write_parquet(path, x, kind=None, **columns):
    kind = kind or pa.list_(pa.float32())
    pq.write_table(
        pa.table({"text": [f"t{i}" for i in range(len(x))], "vector": pa.array(list(x), kind), **columns}),
        path,
        row_group_size=7,
    )


def save_archive(path, **arrays):
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


WRITERS = {".npy": np.save, ".fvecs": write_fvecs, ".parquet": write_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_each_kind_of_file(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, vectors())
    stored = open_vectors(path, "dim=4,12", encoder="e")
    np.testing.assert_array_equal(stored.values, vectors())
    assert stored.values.dtype == np.float32
    assert isinstance(stored.values, np.memmap) == (suffix != ".parquet")
    assert stored.encoder == "e"
    np.testing.assert_allclose(np.linalg.norm(stored([5, 1], at=4), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_types_stay(dtype, tmp_path):
    np.save(tmp_path / "x.npy", vectors(dtype))
    stored = open_vectors(tmp_path / "x.npy")
    assert stored.values.dtype == dtype
    stored.save(tmp_path / "saved")
    np.testing.assert_array_equal(open_vectors(tmp_path / "saved").values, vectors(dtype))


def test_columns_by_column_order(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(vectors()))
    stored = open_vectors(tmp_path / "x.npy")
    stored.save(tmp_path / "saved")
    np.testing.assert_array_equal(open_vectors(tmp_path / "saved").values, vectors())


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.list_(pa.float32(), DIM), np.float32),
        (pa.large_list(pa.float64()), np.float64),
        (pa.list_(pa.float16()), np.float16),
        (pa.list_(pa.int8()), np.float32),
    ],
    ids=str,
)
def test_kinds_of_parquet_columns(kind, dtype, tmp_path):
    x = (vectors() * 20).astype(np.int8) if "int8" in str(kind) else vectors(dtype)
    write_parquet(tmp_path / "x.parquet", x, kind)
    stored = open_vectors(tmp_path / "x.parquet", id_column="text")
    assert stored.values.dtype == dtype
    np.testing.assert_array_equal(stored.values, x)
    assert list(stored.ids[:2]) == ["t0", "t1"]


def test_ids_of_a_parquet_file_may_be_numbers(tmp_path):
    write_parquet(tmp_path / "x.parquet", vectors(), number=np.arange(N) * 3)
    assert list(open_vectors(tmp_path / "x.parquet", id_column="number").ids) == list(range(0, 3 * N, 3))
    assert list(open_vectors(tmp_path / "x.parquet", ids=range(N)).ids) == list(range(N))


def test_which_column_must_be_said_where_several_could_be_meant(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, vectors(), other=list(vectors()[:, :3]))
    with pytest.raises(DataError, match=r"2 columns of vectors \(vector, other\)"):
        open_vectors(path)
    assert open_vectors(path, column="other").values.shape == (N, 3)
    with pytest.raises(DataError, match="did you mean 'other'"):
        open_vectors(path, column="othr")
    with pytest.raises(DataError, match="unknown column of vectors 'text'"):
        open_vectors(path, column="text")
    with pytest.raises(DataError, match="did you mean 'text'"):
        open_vectors(path, column="vector", id_column="txt")
    pq.write_table(pa.table({"a": [1, 2]}), path)
    with pytest.raises(DataError, match=r"0 columns .* among a"):
        open_vectors(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [[1.0, 2.0]] * 3 + [[1.0]] + [[1.0, 2.0]] * 20 + [None],
            r"2 rows \(3, 24\) are missing or not of 2",
        ),
        ([[]] * 4, r"4 rows .* not of 1"),
        ([None, [1.0]], "row 0"),
        ([[1.0, 2.0], [1.0, None]], "NaN or infinity in row 1"),
        ([], "no rows"),
    ],
)
def test_rows_of_parquet_that_do_not_fit_are_named(rows, message, tmp_path):
    write_parquet(tmp_path / "x.parquet", rows)
    with pytest.raises(DataError, match=message):
        open_vectors(tmp_path / "x.parquet")


def write_wide(path, names, **columns):
    x = vectors()
    order = np.random.default_rng(1).permutation(DIM)  # columns need not stand in their order
    wide = {names[place]: x[:, place] for place in order}
    pq.write_table(pa.table({**columns, **wide}), path, row_group_size=7)


@pytest.mark.parametrize(
    ("names", "columns", "given"),
    [
        ([f"v{i}" for i in range(DIM)], {}, {}),
        ([f"emb_{i:03d}" for i in range(1, DIM + 1)], {"text": ["a"] * N, "price": np.ones(N)}, {}),
        ([str(i) for i in range(DIM)], {"id": [f"r{i}" for i in range(N)]}, {}),
        ([f"v{i}" for i in range(DIM)], {"w0": np.ones(N), "w1": np.ones(N)}, {"column": "v"}),
        ([f"v{i}" for i in range(DIM)], {"sales_2019": np.ones(N), "sales_2020": np.ones(N)}, {}),
    ],
)
def test_a_column_for_each_entry(names, columns, given, tmp_path):
    write_wide(tmp_path / "x.parquet", names, **columns)
    stored = open_vectors(tmp_path / "x.parquet", **given)
    np.testing.assert_array_equal(stored.values, vectors())
    assert (stored.ids is None) == ("id" not in columns)


def test_columns_of_floats_without_numbers_are_vectors_where_nothing_else_is_there(tmp_path):
    x, path = vectors(), tmp_path / "x.parquet"
    floats = {letter: x[:, place] for place, letter in enumerate("abcdefghijkl")}
    pq.write_table(pa.table({"id": range(N), **floats}), path)
    np.testing.assert_array_equal(open_vectors(path).values, x)
    pq.write_table(pa.table({"title": ["t"] * N, **floats}), path)
    with pytest.raises(DataError, match=r"0 columns of vectors .* among title, a, b"):
        open_vectors(path)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64()])
def test_columns_of_tensors(kind, tmp_path):
    x = vectors(kind.to_pandas_dtype())
    shapes = [[DIM], [3, DIM // 3]]
    for shape in shapes:
        cells = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x.reshape(N, *shape)))
        pq.write_table(
            pa.table({"id": range(N), "image": cells, "price": np.ones(N)}), tmp_path / "x.parquet"
        )
        stored = open_vectors(tmp_path / "x.parquet")
        np.testing.assert_array_equal(stored.values, x)
        assert stored.values.dtype == x.dtype


def test_a_column_called_id_names_the_rows(tmp_path):
    path = tmp_path / "x.parquet"
    for name, ids in [("id", [f"r{i}" for i in range(N)]), ("_id", list(range(N)))]:
        write_parquet(path, vectors(), **{name: ids, "other": ids})
        assert open_vectors(path).ids.tolist() == ids
        assert open_vectors(path, id_column="text").ids[0] == "t0"
        assert open_vectors(path, id_column="").ids is None
        assert open_vectors(path, ids=range(100, 100 + N)).ids[0] == 100
    write_parquet(path, vectors(), id=["twice"] * N)
    with pytest.raises(DataError, match="ids must be different, but id twice occurs"):
        open_vectors(path)


def test_what_else_is_in_the_file(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, vectors(), id=range(N), price=np.arange(N) / 2)
    parts = list(read_other_columns(path))
    assert [value for part in parts for value in part.columns["price"]] == (np.arange(N) / 2).tolist()
    assert all(list(part.columns) == ["text", "price"] for part in parts)
    assert [number for part in parts for number in part.numbers] == list(range(1, N + 1))
    assert list(next(read_other_columns(path, id_column="text")).columns) == ["id", "price"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_homes_and_capitals(suffix, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    WRITERS[suffix](tmp_path / f"x{suffix}", vectors())
    (tmp_path / f"x{suffix}").rename(tmp_path / f"X{suffix.upper()}")
    np.testing.assert_array_equal(open_vectors(f"~/X{suffix.upper()}").values, vectors())
    open_vectors(f"~/X{suffix.upper()}").save(tmp_path / "saved")
    np.testing.assert_array_equal(open_vectors("~/saved").values, vectors())


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_vectors_from_standard_input(suffix, tmp_path):
    WRITERS[suffix](tmp_path / f"x{suffix}", vectors())
    code = (
        "from nestling.vectors.opening import open_vectors\n"
        f"assert open_vectors('-').values.shape == open_vectors('-').values.shape == ({N}, {DIM})"
    )
    with (tmp_path / f"x{suffix}").open("rb") as stream:
        subprocess.run([sys.executable, "-c", code], stdin=stream, check=True, timeout=60)
    wrong = subprocess.run([sys.executable, "-c", code], input=b"a,b", check=False, capture_output=True)
    assert b"unknown kind of vector file 'standard input'" in wrong.stderr


def test_missing_ids_are_named(tmp_path):
    write_parquet(tmp_path / "x.parquet", vectors(), name=[None if i == 20 else str(i) for i in range(N)])
    with pytest.raises(DataError, match="row 20 are missing"):
        open_vectors(tmp_path / "x.parquet", id_column="name")


def test_names_that_lead_nowhere(tmp_path):
    for name, message in [
        ("x.npy", "does not exist"),
        ("x.fvec", "did you mean '.fvecs'"),
        ("x", "Allowed: .npy, .fvecs, .parquet"),
    ]:
        if "exist" not in message:
            (tmp_path / name).touch()
        with pytest.raises(DataError, match=message):
            open_vectors(tmp_path / name)
    np.save(tmp_path / "x.npy", vectors())
    with pytest.raises(DataError, match="for parquet files"):
        open_vectors(tmp_path / "x.npy", column="a")


def test_npy_files_that_are_no_matrix_of_numbers(tmp_path):
    path = tmp_path / "x.npy"

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    for write, message in [
        (lambda: np.save(path, np.array([Trap()], object), allow_pickle=True), "Python objects"),
        (lambda: path.write_bytes(pickle.dumps(Trap())), "write it again"),
        (lambda: save_archive(path, a=vectors(), b=vectors()), "several arrays"),
        (lambda: np.save(path, vectors()[0]), "matrix"),
        (lambda: np.save(path, vectors()[:0]), "empty"),
        (lambda: np.save(path, np.array(["a", "b"])), "floats"),
        (lambda: np.save(path, np.zeros(3, "f4,f4")), "floats"),
        (lambda: path.write_bytes(b""), "empty"),
    ]:
        write()
        with pytest.raises(DataError, match=message):
            open_vectors(path)


def test_fvecs_files_that_are_torn(tmp_path):
    path = tmp_path / "x.fvecs"
    write_fvecs(path, vectors())
    whole = path.read_bytes()
    row = 4 * (DIM + 1)
    for broken, message in [
        (b"", "0 bytes"),
        (whole[:-1], "no whole"),
        (whole[:-row] + b"\0" * row, f"row {N - 1}"),
        (b"\xff\xff\xff\xff" + whole[4:], "first row says -1"),
        (whole[row // 2 :], "no whole"),
    ]:
        path.write_bytes(broken)
        with pytest.raises(DataError, match=message):
            open_vectors(path)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(WRITERS)), st.floats(0, 0.999), st.binary(max_size=4), st.booleans())
@pytest.mark.filterwarnings("ignore:.*")  # numpy warns of odd headers; what counts is what it answers
def test_any_damage_is_an_error_of_ours_or_harmless(tmp_path, suffix, place, noise, cut_off):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, vectors())
    whole = path.read_bytes()
    start = int(place * len(whole))
    path.write_bytes(whole[:start] + noise + (b"" if cut_off else whole[start + len(noise) :]))
    try:
        found = open_vectors(path).matrix()
    except DataError:  # at once, or where a length overflows when it is normalised
        return
    assert np.isfinite(found).all()


def test_the_other_columns_of_a_parquet_file_are_fields(tmp_path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype("f4")
    days = np.arange(40).astype("datetime64[D]")
    columns = {
        "sku": [f"s{row}" for row in range(40)],
        "emb": list(rows),
        "year": list(range(40)),
        "day": days,
    }
    parquet.write_table(arrow.table({**columns, "tags": [["x"]] * 40}), tmp_path / "v.parquet")
    stored = open_vectors(tmp_path / "v.parquet", column="emb", id_column="sku")
    assert stored.fields.kinds == {"year": "int", "day": "text"}  # lists are no field
    assert stored.fields.records(np.array([3])) == [{"year": 3, "day": "1970-01-04"}]
    assert stored.columns == {"vector": "emb", "id": "sku"}
    stored.save(tmp_path / "v")
    again = open_vectors(tmp_path / "v")
    assert (again.fields.records(), again.columns) == (stored.fields.records(), stored.columns)
    assert open_vectors(tmp_path / "v.parquet", column="emb", fields=[]).fields.kinds == {}
    with pytest.raises(DataError, match="did you mean 'year'"):
        open_vectors(tmp_path / "v.parquet", column="emb", fields=["yaer"])
