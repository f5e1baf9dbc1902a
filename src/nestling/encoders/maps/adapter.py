"""A learned map that makes existing vectors nested, as a scikit-learn transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nestling.arguments.paths import home_path
from nestling.bits import MOST_ROWS, BitCode
from nestling.cut import CutRule
from nestling.elastic import Cost
from nestling.encoders.maps.examples import Examples
from nestling.encoders.maps.fit_report import FitReport, compare_with_truncation
from nestling.encoders.maps.vector_map import VectorMap, check_is_fitted, check_rule
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder
from nestling.training import TrainConfig, TrainLog
from nestling.vectors.matrix import Sizes, Vectors, read_sizes

if TYPE_CHECKING:
    from nestling.encoders.maps.training import AdapterSettings
    from nestling.nn.adapter import AffineLayer

_KIND = "nested_adapter"
_MODULE = "map"


class NestedAdapter(VectorMap):
    """A map of existing vectors, learned so that every prefix of the result is a good embedding.

    It starts as :class:`~nestling.encoders.maps.pca.PCARotation` and is trained with a nested loss. It keeps
    the weights with the smallest loss on held-out rows, including the start, so it is never worse there
    than the principal axes. ``fit`` takes vectors alone, pairs that belong together, or labels.

    Args:
        nesting: sizes on the axis ``dim``; by default 8, 16, ... up to the full size.
        hidden: width of a hidden layer beside the linear map; None for no hidden layer. It fits the training
            data more closely: measure whether that helps on yours.
        orthogonal: train a rotation, which keeps every inner product and cosine at full size. None rotates
            if there are only vectors and the map keeps their size; see the guide for figures.
        loss: the loss at one size, in place of the default; called as ``loss(z, targets=)`` for vectors
            alone, ``loss(x, y)`` for pairs, ``loss(z, labels=)`` for labels. A
            :class:`~nestling.losses.nested.Nested` is used as it is, with its weights and schedule. If that
            is over ``bits`` too, ``rule`` gets a code of the mapped vectors (of ``pairs``, if given).
        temperature: of the default loss. None is 0.5 for vectors alone and 1 for labels, both in standard
            deviations of the cosines, and 0.05 for pairs.
        epochs: passes over the vectors.
        max_steps: steps, in place of ``epochs`` when given.
        batch_size: rows that one loss sees.
        lr: the highest learning rate.
        seed: of the held-out rows, the start of the hidden layer and the order of rows.
        config: all settings of the training, in place of the five before.
        rule: applied to vectors after a cut; None is L2 normalisation, for cosines.

    Attributes:
        report_: the map against plain truncation at every size, on a tenth of the rows that was used
            neither for training nor to choose weights: a
            :class:`~nestling.encoders.maps.fit_report.FitReport`, empty if a tenth is fewer than 50 rows. A
            warning names the sizes at which the map is not shown to be better.
        module_: the map as a torch module, :class:`nestling.nn.adapter.Adapter`.
        losses_before_: loss on the held-out rows at each size, of the principal axes.
        losses_after_: the same, of the map.
        log_: of the training.

    >>> x = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    >>> adapter = NestedAdapter("dim=4,16", orthogonal=True, epochs=1).fit(x)
    >>> z = adapter.transform(x)
    >>> bool(np.allclose(z @ z.T, x @ x.T, atol=1e-4)), adapter(x, at="dim=4").shape
    (True, (64, 4))
    """

    def __init__(
        self,
        nesting: Sizes = None,
        *,
        hidden: int | None = None,
        orthogonal: bool | None = None,
        loss: Callable[..., Any] | None = None,
        temperature: float | None = None,
        epochs: int = 10,
        max_steps: int | None = None,
        batch_size: int = 512,
        lr: float = 3e-3,
        seed: int = 0,
        config: TrainConfig | None = None,
        rule: CutRule | None = None,
    ) -> None:
        self.nesting = nesting
        self.hidden = hidden
        self.orthogonal = orthogonal
        self.loss = loss
        self.temperature = temperature
        self.epochs = epochs
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed
        self.config = config
        self.rule = rule

    def fit(
        self,
        X: Any,  # noqa: N803 - scikit-learn's name
        y: Any = None,
        *,
        pairs: Any = None,
        groups: Any = None,
        folder: str | Path | None = None,
    ) -> Self:
        """Learn the map from ``Float[n, features]``, an array or a memory map.

        Args:
            X: the vectors.
            y: labels, ``Int[n]`` or strings: vectors of one label should be near each other.
            pairs: ``Float[n, features]``: row i belongs with row i of ``X``, such as documents with
                queries. Without ``y`` and ``pairs``, every prefix should keep the neighbours that
                the vectors have in full.
            groups: one integer or string a row; rows of a group are held out together or not at all.
            folder: for checkpoints and the log; an interrupted fit with the same arguments resumes.

        Raises:
            DataError: for another shape or type, rows with NaN or infinity (named), fewer than 4
                rows or 2 groups, or labels that say nothing. Rows of zeros are named in a warning.
            GranularityError: for sizes that the vectors do not have, or fewer than all with ``orthogonal``.
            ConfigError: for ``y`` and ``pairs`` at once, or settings that are not possible.
        """
        from nestling.encoders.maps.training import train_adapter  # torch

        if y is not None and pairs is not None:
            raise ConfigError("give labels (y) or pairs, not both")
        check_rule(self.rule)
        x = self._read(X, reset=True)
        other = None if pairs is None else self._read(pairs, reset=False, what="pairs")
        nesting = self._read_nesting()
        examples = Examples.read(x, other, y, groups)
        trained = train_adapter(self._settings(), examples, nesting, folder)
        self.module_, self.log_, self.nesting_ = trained.module, trained.log, nesting
        self.losses_before_, self.losses_after_ = trained.losses_before, trained.losses_after
        self.code_ = self._calibrated(x if other is None else other) if trained.over_bits else None
        held = examples.at(trained.reporting)
        self.report_ = compare_with_truncation(self.transform, held, nesting, self.rule)
        self.report_.warn(type(self).__name__, self.n_features_in_)
        return self

    def extract(self, at: At) -> NestedAdapter:
        """The map to the leading outputs alone."""
        nesting = self.nesting.up_to(self.nesting.resolve(at))
        small = NestedAdapter(**{**copy.deepcopy(self.get_params()), "nesting": nesting})
        small.module_, small.log_ = self.module_.extract(at), self.log_
        small.report_ = self.report_.up_to(nesting)
        for name in ("losses_before_", "losses_after_"):
            found = {g: loss for g, loss in getattr(self, name).items() if g.replace(bits=None) in nesting}
            setattr(small, name, found)
        small.code_ = self.code_ if nesting == self.nesting else None
        return small._fitted_at(nesting, self)

    def cost(self, at: At = None) -> Cost:
        """Cost of one vector at one size."""
        check_is_fitted(self)
        return self.module_.cost(at)

    def affine_layers(self) -> list[AffineLayer]:
        """The map as plain layers of torch, as a stock Dense computes them."""
        check_is_fitted(self)
        return self.module_.affine_layers()

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder; a ``loss`` of one's own and the log are not kept."""
        check_is_fitted(self)
        settings = {name: value for name, value in self.get_params().items() if name not in _NOT_KEPT}
        settings["config"] = None if self.config is None else asdict(self.config)
        for name in ("losses_before", "losses_after"):
            settings[name] = {str(g): value for g, value in getattr(self, f"{name}_").items()}
        settings["report"] = self.report_.to_json()
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            self.module_.save(path / _MODULE)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Load a saved adapter."""
        from nestling.nn.adapter import Adapter  # torch

        manifest = read_folder(folder, _KIND)
        nesting, settings = manifest.read_nesting(), dict(manifest.settings)
        losses = [
            {Granularity.parse(g): value for g, value in settings.pop(name).items()}
            for name in ("losses_before", "losses_after")
        ]
        report = FitReport.from_json(settings.pop("report", None))
        if settings["config"] is not None:
            settings["config"] = TrainConfig(**settings["config"])
        rule = manifest.read_cut()
        adapter = cls(nesting, rule=rule.without_code, **settings)
        adapter.code_ = rule.code
        adapter.module_, adapter.log_ = Adapter.load(home_path(folder) / _MODULE), TrainLog()
        adapter.losses_before_, adapter.losses_after_ = losses
        adapter.report_ = report
        adapter.nesting_, adapter.n_features_in_ = nesting, adapter.module_.input_dim
        return adapter

    def _settings(self) -> AdapterSettings:
        from nestling.encoders.maps.training import AdapterSettings  # torch

        config = self.config or TrainConfig(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=self.seed,
        )
        return AdapterSettings(config, self.hidden, self.orthogonal, self.loss, self.temperature)

    def _calibrated(self, x: Vectors) -> BitCode:
        """The code of some vectors under the map."""
        rule = self.rule.without_code
        return rule.calibrated(self.transform(x[:: -(-len(x) // MOST_ROWS)])).needed_code

    def _read_nesting(self) -> Nesting:
        nesting = read_sizes(self.__dict__["nesting"], self.n_features_in_)
        if self.orthogonal and nesting.full["dim"] != self.n_features_in_:
            raise GranularityError(
                f"an orthogonal map keeps all {self.n_features_in_} dims, but the nesting {nesting} ends at "
                f"{nesting.full['dim']}; end it at {self.n_features_in_}, or cut the result with extract()"
            )
        if self.orthogonal and self.hidden is not None:
            raise ConfigError("a map with a hidden layer is not orthogonal; give hidden or orthogonal")
        return nesting

    def _map(self, x: Vectors, dim: int) -> Vectors:
        import torch

        weight = self.module_.linear.weight
        dtype = torch.float64 if x.dtype.itemsize > 4 else torch.float32
        module = self.module_ if weight.dtype == dtype else copy.deepcopy(self.module_).to(dtype)
        with torch.no_grad():
            rows = torch.from_numpy(np.array(x)).to(weight.device, dtype)
            found: Vectors = module(rows, at=dim).cpu().numpy()
        return found


_NOT_KEPT = ("nesting", "rule", "loss", "config")
