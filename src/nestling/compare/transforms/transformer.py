"""Base class of RDM transforms: scikit-learn's transformer interface."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.rdms import RDMs, as_rdms
from nestling.errors import ConfigError, require, unknown

Vectors = NDArray[np.floating[Any]]


class MatrixTransformer:
    """Base of transforms that treat every dissimilarity matrix by itself and so learn nothing.

    They take ``Float[m, pairs]`` or :class:`~nestling.compare.rdms.rdms.RDMs` and give back the same kind,
    and
    have what scikit-learn asks of a transformer without needing it. As nothing is learned they may be used
    without ``fit``, and no held-out matrix leaks into others.

    A subclass keeps its arguments under their names, checks them in ``_check``, computes in ``_map`` and says
    in ``_kind`` what becomes of the metric.
    """

    _kind: ClassVar[str]

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Check the arguments and the matrices; there is nothing to learn.

        Args:
            X: ``Float[m, pairs]`` or RDMs.
            y: not used.

        Raises:
            ConfigError: for arguments that are not allowed.
            DataError: for anything but RDMs.
        """
        self._check()
        self.n_features_in_ = as_rdms(X).vectors.shape[1]
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """The transformed matrices, of the kind given: ``Float[m, pairs]``, or RDMs with their labels.

        Args:
            X: ``Float[m, pairs]`` or RDMs; never changed.

        Raises:
            ConfigError: for arguments that are not allowed.
            DataError: for matrices that cannot be used.
        """
        self._check()
        rdms = as_rdms(X)
        found = self._map(rdms)
        if not isinstance(X, RDMs):
            return found
        return rdms.replace(vectors=found, metric=f"{self._kind} {rdms.metric}".strip())

    def fit_transform(self, X: Any, y: object = None) -> Any:  # noqa: N803 - scikit-learn's name
        """The same as ``transform``."""
        return self.fit(X, y).transform(X)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor, as given."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Change arguments of the constructor.

        Raises:
            ConfigError: for a name that is none of them.
        """
        names = self.get_params()
        for name, value in params.items():
            if name not in names:
                raise ConfigError(unknown("parameter", name, names))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def _check(self) -> None:
        raise NotImplementedError

    def _map(self, rdms: RDMs) -> Vectors:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = require("sklearn.utils", "sklearn")
        return tags.Tags(
            estimator_type=None,
            target_tags=tags.TargetTags(required=False),
            transformer_tags=tags.TransformerTags(preserves_dtype=["float64", "float32"]),
            input_tags=tags.InputTags(allow_nan=True),
            requires_fit=False,
        )
