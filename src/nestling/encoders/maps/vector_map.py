"""Base of all maps of existing vectors: the contracts of scikit-learn and of elastic models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import numpy as np

from nestling.arguments.arrays import as_array
from nestling.bits import BitCode
from nestling.cut import CutRule, check_vectors, cut, cut_each
from nestling.elastic import Origin, resolve_each
from nestling.errors import ConfigError, DataError, require
from nestling.granularity import At, Granularity, Nesting
from nestling.vectors.matrix import Sizes, Vectors, blocks_of

_sklearn: Any = require("sklearn.base", "sklearn")
_validation: Any = require("sklearn.utils.validation", "sklearn")
check_is_fitted = _validation.check_is_fitted


class VectorMap(
    _sklearn.ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    _sklearn.TransformerMixin,  # type: ignore[misc]
    _sklearn.BaseEstimator,  # type: ignore[misc]
):
    """Base of maps that are fitted to vectors and whose leading outputs can be used alone.

    ``transform`` returns all outputs unchanged; a call returns those of one size with ``rule`` applied,
    ready to compare. Matrices may be memory maps: they are read in blocks.

    A subclass sets ``nesting_`` in ``fit`` and computes outputs in ``_map``.
    """

    n_features_in_: int
    nesting_: Nesting
    code_: BitCode | None = None

    # Constructor arguments stay unchanged in __dict__, where scikit-learn looks for them.

    @property
    def nesting(self) -> Nesting:
        """The sizes it was fitted for."""
        check_is_fitted(self)
        return self.nesting_

    @nesting.setter
    def nesting(self, value: Sizes) -> None:
        self.__dict__["nesting"] = value

    @property
    def rule(self) -> CutRule:
        """Applied to vectors after a cut, L2 normalisation by default; with the code of ``fit``, if any."""
        given: CutRule | None = self.__dict__["rule"]
        rule = CutRule() if given is None else given
        return rule if self.code_ is None else replace(rule, code=self.code_)

    @rule.setter
    def rule(self, value: CutRule | None) -> None:
        self.__dict__["rule"] = value

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, as given."""
        return {name: self.__dict__[name] for name in self._get_param_names()}

    def transform(self, X: Any) -> Vectors:  # noqa: N803 - scikit-learn's name
        """All outputs ``Float[n, dim]`` for ``Float[n, features]``, before the cut rule.

        Raises:
            DataError: for another shape or type, or NaN and infinity (rows are named).
        """
        return self._mapped(X, self.nesting.full["dim"])

    def __call__(self, x: Any, /, at: At = None) -> Vectors:
        """Vectors ``Float[n, dim]`` at one size, with ``rule`` applied; other outputs are not computed."""
        dim = self.nesting.resolve(at)["dim"]
        return cut(self._mapped(x, dim), dim, self.rule)

    def forward_each(
        self, x: Any, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Vectors]:
        """Vectors at several sizes, cut from the outputs at the largest of them."""
        wanted = resolve_each(self.nesting, granularities)
        dims = [g["dim"] for g in wanted]
        found = cut_each(self._mapped(x, max(dims)), dims, self.rule)
        return {g: found[g["dim"]] for g in wanted}

    def origin(self) -> Origin:
        """The vectors as they were."""
        return Origin(_as_given)

    def _map(self, x: Vectors, dim: int) -> Vectors:
        """The leading ``dim`` outputs of one block."""
        raise NotImplementedError

    def _mapped(self, x: Any, dim: int) -> Vectors:
        check_is_fitted(self)
        x = self._read(x, reset=False)
        found = np.empty((len(x), dim), x.dtype if x.dtype.itemsize > 2 else np.float32)
        for rows in blocks_of(x):
            found[rows] = self._map(x[rows], dim)
        return found

    def _read(self, x: Any, *, reset: bool, what: str = "X") -> Vectors:
        """``x`` as scikit-learn and ``check_vectors`` want it; ``reset`` in ``fit``."""
        framed = hasattr(x, "iloc") and hasattr(x, "columns")  # scikit-learn keeps the names of a frame
        if not framed and not isinstance(x, np.ndarray):
            x = as_array(x, what)
        try:
            array = _validation.validate_data(self, x, reset=reset, ensure_all_finite=False)
        except ValueError as error:
            raise DataError(str(error)) from error
        return check_vectors(array, what)

    def _fitted_at(self, nesting: Nesting, like: VectorMap) -> Self:
        """Mark as fitted for a part of the sizes of ``like``."""
        self.nesting_, self.n_features_in_ = nesting, like.n_features_in_
        names = getattr(like, "feature_names_in_", None)
        if names is not None:
            self.feature_names_in_ = names
        return self

    @property
    def _n_features_out(self) -> int:
        return self.nesting.full["dim"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _as_given(vectors: Any) -> Any:
    return vectors


def check_rule(rule: CutRule) -> None:
    """Refuse a rule that needs all outputs before a cut, which a map does not compute.

    Raises:
        ConfigError: for such a rule.
    """
    if rule.before != "none":
        raise ConfigError(
            f"a map on vectors computes only the requested outputs, so no step can come before the cut; "
            f"rule.before must be 'none', not {rule.before!r}"
        )
