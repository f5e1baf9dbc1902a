"""Nested losses for the trainer of sentence-transformers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nestling.arguments.constraints import Whole, checked
from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError, require
from nestling.granularity import AnyNesting, Granularity, Nesting
from nestling.losses.alignment import Alignment
from nestling.losses.contrastive import InfoNCE
from nestling.losses.gradient_cache import GradientCache
from nestling.losses.nested import Nested
from nestling.losses.prefix import PrefixLosses
from nestling.losses.quantisation import Quantisation
from nestling.nn.early_exit import states_each
from nestling.schedules import Every, RandomSome, Reduction, Schedule

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Features = dict[str, Any]
_EMBEDDING = "sentence_embedding"


class NestedLoss(nn.Module):
    """A nested loss for ``SentenceTransformerTrainer``, to use in place of ``MatryoshkaLoss``.

    Each text column is encoded once per step, and ``loss`` sees the cut embeddings; nothing is patched.
    ``MultipleNegativesRankingLoss`` on cosines computes all sizes in one pass over the coordinates.
    Cached losses keep their gradient caching.

    ``MatryoshkaLoss`` normalises every prefix, even the full one. This loss leaves lengths alone: cosine
    losses are the same either way, and losses on dot products or distances see the true lengths.
    ``rule=CutRule()`` normalises as ``MatryoshkaLoss`` does. The settings of ``loss`` are read once, here.

    Args:
        model: the model to train.
        loss: a loss of sentence-transformers made for ``model``, or a loss on embeddings such as those of
            nestling; its ``labels=`` or ``scores=`` then takes the label column of the data set.
        matryoshka_dims: sizes in any order, or a nesting of dims, or of dims and layers or bits. It should
            include the full size of the model. One forward pass serves all layers.
        matryoshka_weights: the importance of each size, in the order of ``matryoshka_dims``; 1 by default.
        n_dims_per_step: number of sizes that one step trains, 1 or more: the full one, and others at random,
            weighted so that the expected loss stays the same. -1 trains all. (``MatryoshkaLoss`` may leave
            out the full size, and its loss shrinks.)
        reduction: ``"sum"`` as in the paper, or ``"mean"`` over the weights.
        rule: applied around the cut to the embeddings, and to labels that are embeddings.
        align: a self-distillation term (``losses.alignment``) that pulls small granularities to the full one.
        deep_documents: take all columns but the first from the full layer.
        quantisation: rounding of embeddings at granularities with ``bits``.
        seed: of the draws of ``n_dims_per_step``.

    Raises:
        GranularityError: for sizes below 1, repeated, or larger than the model.
        ConfigError: for weights that do not fit, or a ``loss`` that cannot be nested; the message names
            an alternative.
        MissingExtraError: if sentence-transformers is not installed.

    Source: MRL, arXiv 2205.13147, equation 1.
    """

    @checked(n_dims_per_step=Whole(-1, hint="-1 trains all sizes in every step"))
    def __init__(
        self,
        model: SentenceTransformer,
        loss: Callable[..., Tensor],
        matryoshka_dims: AnyNesting,
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
        *,
        reduction: Reduction = "sum",
        rule: CutRule = RAW,
        align: Alignment | None = None,
        deep_documents: bool = False,
        quantisation: Quantisation = Quantisation(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        require("sentence_transformers", "text")
        nesting, self.weights = _read_sizes(matryoshka_dims, matryoshka_weights)
        nesting.within("the model", dim=model.get_embedding_dimension(), layer=None, bits=None)
        self.model, self.loss, self.n_dims_per_step = model, loss, n_dims_per_step
        self.nested = Nested(
            _base_of(loss, model, rule),
            nesting,
            weights=self.weights,
            schedule=_schedule(n_dims_per_step, len(nesting)),
            reduction=reduction,
            rule=rule,
            align=align,
            deep_documents=deep_documents,
            quantisation=quantisation,
            seed=seed,
        )

    @property
    def nesting(self) -> Nesting:
        """The sizes that are trained."""
        return self.nested.nesting

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The weighted loss of a batch over the sizes of this step.

        Args:
            sentence_features: the output of the model's ``preprocess`` for each text column.
            labels: the label column, if the data set has one.
        """
        columns, base = list(sentence_features), self.nested.base
        if isinstance(base, _OnCachedEmbeddings):
            cache = GradientCache(self._embed, self.nested, chunk_size=base.loss.mini_batch_size)
            return cache(*map(_Rows, columns), labels=labels)
        embeddings = [self._embed(features) for features in columns]
        if isinstance(base, _OnGivenEmbeddings):
            full = embeddings[0][self.nesting.full.rest].shape[-1]
            rest = {"features": columns, "labels": labels, "full": full}
        else:
            rest = _label_argument(base, labels)
        loss: Tensor = self.nested(*embeddings, **rest)
        return loss

    def _embed(self, features: Features) -> dict[Granularity, Tensor]:
        """Embeddings ``Float[batch, dim]`` at every rest of the nesting, from one pass."""
        depths = {rest: rest["layer"] for rest in self.nesting.rests if "layer" in rest}
        if not depths:
            # A copy: the model adds entries to its input.
            return {Granularity(): self.model(dict(features))[_EMBEDDING]}
        if isinstance(self.model, DistributedDataParallel):
            raise ConfigError(
                "a nesting with layers trains on one process here: DistributedDataParallel can only run the "
                "whole model. To train on several processes, use nestling.training.fit on a TextEncoder"
            )
        found = states_each(next(self.model.children()), features, depths.values())
        return {rest: self._after_layers(found[depth]) for rest, depth in depths.items()}

    def _dims(self) -> list[int] | str:
        dims_alone = self.nesting.axes == ("dim",)
        return list(self.nesting.sizes("dim")) if dims_alone else str(self.nesting)

    def _after_layers(self, features: Features) -> Tensor:
        for module in list(self.model.children())[1:]:
            features = module(features)
        embedding: Tensor = features[_EMBEDDING]
        return embedding

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "loss": type(self.loss).__name__,
            "matryoshka_dims": self._dims(),
            "matryoshka_weights": self.weights,
            "n_dims_per_step": self.n_dims_per_step,
            "rule": self.nested.rule.to_json(),
        }

    @property
    def citation(self) -> str:
        """BibTeX of the method, for the model card."""
        return """
@inproceedings{kusupati2022matryoshka,
    title = {Matryoshka Representation Learning},
    author = {Kusupati, Aditya and Bhatt, Gantavya and Rege, Aniket and Wallingford, Matthew and
        Sinha, Aditya and Ramanujan, Vivek and Howard-Snyder, William and Chen, Kaifeng and
        Kakade, Sham and Jain, Prateek and Farhadi, Ali},
    booktitle = {Advances in Neural Information Processing Systems},
    year = {2022},
    eprint = {2205.13147},
    archivePrefix = {arXiv},
}
"""


def _read_sizes(dims: AnyNesting, weights: Sequence[float] | None) -> tuple[Nesting, list[float]]:
    """The sizes as a nesting, and their weights in its order."""
    if isinstance(dims, str):
        dims = Nesting.parse(dims)
    values = [1.0] * len(dims) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(dims):
        raise ConfigError(f"{len(values)} matryoshka_weights are given for {len(dims)} matryoshka_dims")
    if isinstance(dims, Nesting):
        return dims, values
    increasing = sorted(range(len(dims)), key=lambda place: dims[place])
    nesting = Nesting.chain(dim=[dims[place] for place in increasing])
    return nesting, [values[place] for place in increasing]


def _schedule(n_dims_per_step: int, sizes: int) -> Schedule:
    if n_dims_per_step == 0:
        raise ConfigError("n_dims_per_step=0 trains nothing; give -1 for all sizes, or at least 1")
    return Every() if n_dims_per_step < 0 or n_dims_per_step >= sizes else RandomSome(n_dims_per_step - 1)


def _label_argument(base: Callable[..., Tensor], labels: Tensor | None) -> dict[str, Any]:
    """The label column, under the argument name of a loss on embeddings."""
    if labels is None:
        return {}
    parameters = inspect.signature(base.forward if isinstance(base, nn.Module) else base).parameters
    for name in ("labels", "scores"):
        if name in parameters:
            return {name: labels}
    raise DataError(
        f"{type(base).__name__} takes neither labels nor scores, but the data set has a column of them; "
        "remove that column, or use a loss that takes it"
    )


def _base_of(loss: Callable[..., Tensor], model: SentenceTransformer, rule: CutRule) -> Callable[..., Tensor]:
    """The loss as one on embeddings."""
    from sentence_transformers import SentenceTransformer

    name = type(loss).__name__
    if name in _CANNOT:
        raise ConfigError(f"{name} cannot be nested: {_CANNOT[name]}")
    if not isinstance(loss, nn.Module) or not any(isinstance(m, SentenceTransformer) for m in loss.modules()):
        return loss
    if all(part is not model for part in loss.modules()):
        raise ConfigError(f"this {name} was made for another model; make it for the model given here")
    if getattr(loss, "projection", None) is not None:
        raise ConfigError(
            f"the projection of this {name} reads vectors of one size; give teacher embeddings of the "
            "model's size and no projection_dim"
        )
    if getattr(loss, "uses_gradient_cache", False):
        return _OnCachedEmbeddings(loss)
    return _OnGivenEmbeddings(loss, model, rule)


_INNER = "give NestedLoss the loss inside it"
_FIXED_WIDTH = "it has weights that read vectors of one size"
_SECOND_MODEL = "it also trains a second model; use MultipleNegativesRankingLoss on each text twice"
_CANNOT = {
    "MatryoshkaLoss": _INNER,
    "Matryoshka2dLoss": _INNER,
    "AdaptiveLayerLoss": _INNER,
    "NestedLoss": _INNER,
    "Nested": _INNER,
    "SoftmaxLoss": f"{_FIXED_WIDTH}; use CoSENTLoss on graded labels, or MultipleNegativesRankingLoss",
    "DenoisingAutoEncoderLoss": f"{_FIXED_WIDTH}; use MultipleNegativesRankingLoss on each text twice",
    "ContrastiveTensionLoss": _SECOND_MODEL,
    "ContrastiveTensionLossInBatchNegatives": _SECOND_MODEL,
    "CachedGISTEmbedLoss": "it embeds in its own way; use GISTEmbedLoss, or a cached ranking loss",
}


class _Precomputed(nn.Module):
    """Replaces the model inside a loss: the features already hold the embedding."""

    def forward(self, features: Features, **_: Any) -> Features:
        return features


class _OnEmbeddings(nn.Module):
    """A loss of sentence-transformers on embeddings.

    Args:
        loss: of sentence-transformers.
        twin: the loss of nestling with the same values, if there is one.
    """

    def __init__(self, loss: Any, twin: InfoNCE | None) -> None:
        super().__init__()
        self.loss, self.twin = loss, twin

    def prefix_losses(
        self, *embeddings: Tensor, dims: Sequence[int], weights: Sequence[float], **_: Any
    ) -> PrefixLosses | None:
        """The losses of all sizes at once, where the loss is InfoNCE under another name."""
        # In a distributed run InfoNCE gathers candidates from all processes, and this loss may not.
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if self.twin is None or len(embeddings) < 2 or not alone:
            return None
        return self.twin.prefix_losses(*embeddings, dims=dims, weights=weights)


class _OnGivenEmbeddings(_OnEmbeddings):
    """A loss of sentence-transformers, which takes texts, as a loss on embeddings."""

    def __init__(self, loss: nn.Module, model: nn.Module, rule: CutRule) -> None:
        super().__init__(_without_model(loss, model), _twin(loss))
        self.rule = rule

    def forward(
        self, *prefixes: Tensor, features: list[Features], labels: Tensor | None, full: int
    ) -> Tensor:
        """The loss at the size of ``prefixes``; labels as wide as the embeddings are embeddings too."""
        if labels is not None and labels.ndim in (2, 3) and labels.shape[-1] == full:
            labels = cut(labels, prefixes[0].shape[-1], self.rule)
        given = [{**column, _EMBEDDING: x} for column, x in zip(features, prefixes, strict=True)]
        value = self.loss(given, labels)
        return torch.stack(list(value.values())).sum() if isinstance(value, dict) else value


class _OnCachedEmbeddings(_OnEmbeddings):
    """A cached loss of sentence-transformers on embeddings; the caching is done outside of it."""

    def __init__(self, loss: Any) -> None:
        if getattr(loss, "mini_batch_num_tokens", None) is not None:
            raise ConfigError("mini_batch_num_tokens is not supported here; set mini_batch_size instead")
        super().__init__(loss, _twin(loss))

    def forward(self, *prefixes: Tensor, labels: Tensor | None) -> Tensor:
        """The loss at the size of ``prefixes``."""
        value: Tensor = self.loss.calculate_loss([[prefix] for prefix in prefixes], labels)
        return value


def _without_model(loss: nn.Module, model: nn.Module) -> nn.Module:
    """A copy of ``loss`` whose model returns given embeddings; other weights and models are shared."""
    holders = [part for part in loss.modules() if any(inner is model for inner in part.modules())]
    shared: list[Any] = [part for part in loss.modules() if all(part is not holder for holder in holders)]
    shared += [tensor for part in holders for tensor in (*part.parameters(False), *part.buffers(False))]
    memo = {id(part): part for part in shared}
    return copy.deepcopy(loss, memo | {id(model): _Precomputed()})


def _twin(loss: Any) -> InfoNCE | None:
    """The loss of nestling with the same values, which computes all sizes at once; None without one."""
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import cos_sim

    same = (
        losses.MultipleNegativesRankingLoss,
        losses.MultipleNegativesSymmetricRankingLoss,
        losses.CachedMultipleNegativesRankingLoss,
        losses.CachedMultipleNegativesSymmetricRankingLoss,
    )
    if type(loss) not in same or loss.similarity_fct is not cos_sim or not 0 < loss.scale <= 100:
        return None
    if loss.hardness_mode is not None and loss.hardness_strength > 0:
        return None
    both_ways = set(loss.directions) == {"query_to_doc", "doc_to_query"}
    if set(loss.directions) == {"query_to_doc"} or (both_ways and loss.partition_mode == "per_direction"):
        return InfoNCE(1 / loss.scale, symmetric=both_ways)
    return None


class _Rows:
    """The features of a text column, sliced by rows."""

    def __init__(self, features: Features) -> None:
        self.features, self.count = features, len(features["input_ids"])
        for name, value in features.items():
            if isinstance(value, Tensor) and name != "prompt_length" and len(value) != self.count:
                raise DataError(
                    f"gradient caching needs one row of {name!r} for each text, but got {tuple(value.shape)} "
                    f"for {self.count} texts; use a loss that is not cached for this kind of input"
                )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> Features:
        return {
            name: value[rows] if isinstance(value, Tensor) and name != "prompt_length" else value
            for name, value in self.features.items()
        }
