"""Every layer is compared with every other, by CKA and by RSA; the heat map names them all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nestling.compare import (
    LayerSimilarities,
    compare,
    compare_layers,
    linear_cka,
    plot_layers,
    procrustes,
    rdm,
)
from nestling.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
ONE = {"in": RNG.normal(size=(20, 6)), "out": RNG.normal(size=(20, 9))}
OTHER = {f"block {n}": RNG.normal(size=(20, 5 + n)) for n in range(3)}


def test_every_layer_is_compared_with_every_other() -> None:
    found = compare_layers(ONE, OTHER)
    assert (found.rows, found.columns) == (("in", "out"), ("block 0", "block 1", "block 2"))
    plain = [[linear_cka(one, other) for other in OTHER.values()] for one in ONE.values()]
    np.testing.assert_allclose(found.values, plain)
    near = compare_layers(ONE, OTHER, "procrustes").values
    assert near[1, 2] == pytest.approx(procrustes(ONE["out"], OTHER["block 2"]))
    unbiased = compare_layers(ONE, OTHER, "cka_debiased").values
    assert abs(unbiased).mean() < found.values.mean()  # of patterns that have nothing in common


def test_rsa_of_layers_is_that_of_their_matrices() -> None:
    found = compare_layers(ONE, OTHER, "spearman", metric="euclidean")
    plain = compare(rdm(ONE, "euclidean"), rdm(OTHER, "euclidean"), "spearman")
    np.testing.assert_allclose(found.values, plain)
    assert found.quantity == "spearman of euclidean distances"


def test_a_model_against_itself() -> None:
    found = compare_layers(OTHER)
    np.testing.assert_allclose(np.diag(found.values), 1)
    np.testing.assert_allclose(found.values, found.values.T)


def test_the_picture_names_every_layer() -> None:
    axes = Figure().add_subplot()
    plot_layers(compare_layers(ONE, OTHER), axes, names=("A", "B"))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["in", "out"]
    assert [text.get_text() for text in axes.get_xticklabels()] == list(OTHER)
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == (
        "layer of A",
        "layer of B",
        "linear CKA",
    )
    assert len(axes.texts) == 6
    assert axes.get_ylim()[0] < axes.get_ylim()[1]  # the first layer is at the bottom


def test_a_table_of_ones_own_is_drawn(tmp_path: Path) -> None:
    plot_layers(LayerSimilarities(np.eye(2), ("a", "b"), ("c", "d")), tmp_path / "layers.pdf")
    assert (tmp_path / "layers.pdf").read_bytes().startswith(b"%PDF")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"shape \(2, 3\) do not belong to 2 and 2 layers"):
        LayerSimilarities(np.zeros((2, 3)), ("a", "b"), ("c", "d"))
    with pytest.raises(DataError, match="layer 'late' has 19 rows and layer 'in' 20"):
        compare_layers(ONE, {"late": OTHER["block 0"][1:]})
    with pytest.raises(DataError, match="no layers"):
        compare_layers({})
    with pytest.raises(ConfigError, match="unknown method 'ckaa'; did you mean 'cka'"):
        compare_layers(ONE, OTHER, "ckaa")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be two"):
        plot_layers(compare_layers(ONE), tmp_path / "a.png", names="AB")
