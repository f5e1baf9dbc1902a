"""Text encoders: any sentence-transformers model as an elastic thing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from nestling.artifact import MANIFEST, read_folder, write_folder
from nestling.cut import RAW, CutRule, check_vectors, cut_each, name_rows
from nestling.elastic import Cost, resolve_each
from nestling.encoders.bundled import WORDLLAMA_DIMS, minilm_folder, wordllama
from nestling.encoders.export import (
    EMBEDDING,
    absorb_rule,
    append,
    check_stock,
    cut_model,
    first_entries,
    last_dense,
    linear_module,
    modules_of,
    stock_modules,
    width_of,
    with_modules,
    write_dims,
)
from nestling.encoders.inference import evaluating, multiply_adds
from nestling.encoders.pretrained import declared_dims, quiet_unless_terminal, read_model
from nestling.errors import ConfigError, DataError, GranularityError, UntrainedGranularityWarning, unknown
from nestling.granularity import At, Granularity, Nesting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_KIND = "text_encoder"
_SMALLEST_DIM = 8
_SAMPLE_TEXT = " ".join(["word"] * 32)


class Adaptable(Protocol):
    """A map on vectors that a chain of plain layers can express, such as a fitted ``NestedAdapter``."""

    @property
    def nesting(self) -> Nesting:
        """The sizes of its output."""
        ...

    def affine_layers(self) -> Sequence[tuple[Tensor, Tensor | None, nn.Module | None]]:
        """Weight, bias and activation of each layer: ``activation(x @ weight.T + bias)``."""
        ...


class TextEncoder(nn.Module):
    """A sentence-transformers model whose vectors are cut at the moment of use.

    The encoder runs once whatever the size; a model that ends in a Dense computes only the entries that
    are asked for. It starts in ``eval()``; call ``train()`` before training.

    Args:
        model: gives the vectors before the cut. Its modules are shared, not copied. A normalisation at
            its end becomes part of ``rule``, and a layer norm asked for by ``rule`` part of ``model``.
        nesting: sizes on the axis ``dim``, the full one at most the model's width. By default those
            the model's config declares (``matryoshka_dimensions``), or 8, 16, ... up to the full size;
            the latter is an assumption: using a smaller size then warns.
        rule: what happens around the cut. By default L2 normalisation after it, or nothing for a model
            that does not normalise and is meant for dot products or distances.

    Raises:
        GranularityError: for a nesting on other axes, or wider than the model.
        MissingExtraError: if sentence-transformers is not installed.
    """

    def __init__(
        self, model: SentenceTransformer, nesting: Nesting | None = None, rule: CutRule | None = None
    ) -> None:
        super().__init__()
        rule = _usual_rule(model) if rule is None else rule
        full = min(width_of(model), model.truncate_dim or width_of(model))
        dims = declared_dims(model.config, full) if nesting is None else None
        self.nesting_is_assumed = nesting is None and dims is None
        self.nesting = nesting or Nesting.chain(dim=dims or _usual_dims(full))
        _check_nesting(self.nesting, width_of(model))
        self.model = absorb_rule(model, rule)
        self.rule = CutRule("none", rule.after)
        self.eval()

    @classmethod
    def open(
        cls,
        name: str | Path,
        nesting: Nesting | None = None,
        rule: CutRule | None = None,
        *,
        device: str | None = None,
    ) -> Self:
        """An encoder by name.

        Args:
            name: ``"wordllama"`` (static vectors of 256 dims, nested at 64, 128, 256), ``"minilm"``
                (all-MiniLM-L6-v2, 384 dims), a folder, or the name of a model on the Hugging Face hub.
                The first two come inside Python packages and need no download.
            nesting: see :class:`TextEncoder`.
            rule: see :class:`TextEncoder`.
            device: as torch names it; by default a GPU where there is one.

        Raises:
            DataError: if there is no such model, or it cannot be read.
            ArtifactError: if a folder saved by nestling is torn or altered.
        """
        if name == "wordllama":
            return cls(wordllama(device), nesting or Nesting.chain(dim=WORDLLAMA_DIMS), rule)
        folder = minilm_folder() if name == "minilm" else Path(name)
        if (folder / MANIFEST).is_file():
            saved = cls.load(folder, device=device)
            return saved if nesting is None and rule is None else saved._with(nesting, rule)
        model, dims = read_model(str(folder if folder.is_dir() else name), device)
        return cls(model, Nesting.chain(dim=dims) if nesting is None and dims else nesting, rule)

    def forward(self, texts: Sequence[str], /, at: At = None) -> Tensor:
        """Vectors ``Float[texts, dim]`` of one pass over ``texts``; ``encode`` goes batch by batch."""
        granularity = self._resolve(at)
        return self._vectors(check_texts(texts), [granularity["dim"]], self._prompt())[granularity["dim"]]

    def forward_each(
        self, texts: Sequence[str], /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Vectors at several sizes from one pass of the encoder."""
        wanted = resolve_each(self.nesting, granularities)
        self._warn_if_assumed(wanted)
        found = self._vectors(check_texts(texts), [g["dim"] for g in wanted], self._prompt())
        return {g: found[g["dim"]] for g in wanted}

    def encode(
        self,
        texts: Sequence[str],
        at: At = None,
        *,
        batch_size: int = 64,
        prompt: str | None = None,
        prompt_name: str | None = None,
        first_row: int = 0,
    ) -> NDArray[np.float32]:
        """Vectors ``Float32[texts, dim]`` of any number of texts, in batches of like length.

        Args:
            texts: none of them empty.
            at: the granularity.
            batch_size: texts encoded at a time.
            prompt: put before every text; by default the model's default prompt, if it has one.
            prompt_name: one of the model's prompts by name, in place of ``prompt``.
            first_row: the number of the first text in errors, if these are a part of many.

        Raises:
            DataError: for no texts, or texts that are empty, no strings, or have no tokens; the rows
                are named.
        """
        rows, dim = check_texts(texts, first_row), self._resolve(at)["dim"]
        prompt = self._prompt(prompt, prompt_name)
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
        found = np.empty((len(rows), dim), np.float32)
        with (
            evaluating(self),
            tqdm(total=len(rows), unit=" texts", leave=False, disable=None, delay=1) as progress,
        ):
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                vectors = self._vectors([rows[row] for row in batch], [dim], prompt)[dim]
                found[batch] = vectors.float().cpu().numpy()
                progress.update(len(batch))
        check_vectors(found, "the vectors of these texts")
        zero = np.flatnonzero(~found.any(axis=1))
        if len(zero) and self.rule.after == "l2":
            raise DataError(
                f"{name_rows(zero + first_row)} of the texts have no tokens or a vector of zeros, which "
                "has no direction; remove them"
            )
        return found

    def extract(self, at: At) -> TextEncoder:
        """A smaller encoder of stock modules that shares nothing with this one.

        Where the model ends in a Dense or in static vectors, its matrix is cut; elsewhere a Dense of
        identity rows follows, so that plain sentence-transformers gives the small vectors too.
        """
        granularity = self._resolve(at)
        small = copy.deepcopy(cut_model(self.model, granularity["dim"], self.rule))
        encoder = TextEncoder(small, self.nesting.up_to(granularity), self.rule)
        encoder.nesting_is_assumed = self.nesting_is_assumed
        return encoder.train(self.training)

    def with_adapter(self, adapter: Adaptable) -> TextEncoder:
        """This encoder followed by the map of an adapter, as stock Dense modules.

        The adapter takes the full-size vectors as ``encode`` gives them. The result has its nesting, its
        rule if it has one, and shares the weights of this encoder.

        Raises:
            DataError: if the adapter takes vectors of another size.
        """
        full = self.nesting.full["dim"]
        model = cut_model(self.model, full, self.rule)
        layers = adapter.affine_layers()
        taken = layers[0][0].shape[1]
        if taken != full:
            raise DataError(
                f"the adapter takes vectors of {taken} dims, but this encoder gives {full}; "
                "fit it on vectors of this encoder"
            )
        modules = modules_of(model)
        append(modules, *(linear_module(*layer) for layer in layers))
        rule = getattr(adapter, "rule", self.rule)
        return TextEncoder(with_modules(model, modules), adapter.nesting, rule)

    def cost(self, at: At = None) -> Cost:
        """Of one text at one size.

        The multiply-adds are those that torch counts in one pass over a text of 32 common words (a
        longer text costs more), plus one addition for each entry of a static vector that is looked up.
        """
        dim, dense = self.nesting.resolve(at)["dim"], last_dense(self.model)
        weights = list(self.model.parameters())
        whole = Cost(
            flops=self._full_flops,
            parameters=sum(weight.numel() for weight in weights),
            size_bytes=sum(weight.nbytes for weight in weights),
        )
        if dense is None:
            return replace(whole, output_bytes=4 * dim)
        skipped = dense.out_features - dim
        unread = skipped * (dense.in_features + dense.bias)
        return Cost(
            flops=whole.flops - skipped * dense.in_features,
            parameters=whole.parameters - unread,
            size_bytes=whole.size_bytes - unread * dense.linear.weight.element_size(),
            output_bytes=4 * dim,
        )

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder that plain sentence-transformers loads too, with the same vectors.

        Raises:
            ConfigError: if the model holds modules that plain sentence-transformers would not load.
        """
        check_stock(self.model)
        stock = cut_model(self.model, self.nesting.full["dim"], self.rule)
        settings = {"nesting_is_assumed": self.nesting_is_assumed}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            with quiet_unless_terminal():
                stock.save(str(path), create_model_card=False)
            if not self.nesting_is_assumed:
                write_dims(path, self.nesting.sizes("dim"))

    @classmethod
    def load(cls, folder: str | Path, /, *, device: str | None = None) -> Self:
        """Read what ``save`` wrote, after every file was verified."""
        manifest = read_folder(folder, _KIND)
        model, _ = read_model(str(folder), device)
        encoder = cls(model, manifest.read_nesting(), manifest.read_cut())
        encoder.nesting_is_assumed = bool(manifest.settings.get("nesting_is_assumed"))
        return encoder

    def _with(self, nesting: Nesting | None, rule: CutRule | None) -> Self:
        return type(self)(self.model, nesting or self.nesting, rule or self.rule)

    def _vectors(self, texts: list[str], dims: list[int], prompt: str | None) -> dict[int, Tensor]:
        """The vectors of one pass at several sizes."""
        from sentence_transformers.util import batch_to_device

        features = batch_to_device(self.model.preprocess(texts, prompt=prompt), self.model.device)
        dense = last_dense(self.model)
        if dense is None or max(dims) == dense.out_features:
            return cut_each(self.model(features)[EMBEDDING], dims, self.rule)
        *trunk, _ = self.model.children()
        for module in trunk:
            features = module(features)
        return cut_each(first_entries(dense, features[EMBEDDING], max(dims)), dims, self.rule)

    def _prompt(self, prompt: str | None = None, name: str | None = None) -> str | None:
        if prompt is not None and name is not None:
            raise ConfigError("give prompt or prompt_name, not both")
        name = self.model.default_prompt_name if name is None else name
        if prompt is not None or name is None:
            return prompt
        if name not in self.model.prompts:
            raise ConfigError(unknown("prompt_name", name, self.model.prompts))
        return self.model.prompts[name]

    def _resolve(self, at: At) -> Granularity:
        granularity = self.nesting.resolve(at)
        self._warn_if_assumed((granularity,))
        return granularity

    def _warn_if_assumed(self, wanted: Iterable[Granularity]) -> None:
        smaller = [str(g) for g in wanted if g != self.nesting.full]
        if self.nesting_is_assumed and smaller:
            warnings.warn(
                f"this model does not say that it was trained for sizes below its full one, so "
                f"{', '.join(smaller)} is plain truncation; train it with nestling.losses.Nested, or give "
                "nesting= to say that you know its sizes",
                UntrainedGranularityWarning,
                stacklevel=4,
            )

    @cached_property
    def _full_flops(self) -> float:
        """Multiply-adds of one pass over the sample text."""
        with evaluating(self):
            counted = multiply_adds(lambda: self._vectors([_SAMPLE_TEXT], [width_of(self.model)], None))
        ids = self.model.preprocess([_SAMPLE_TEXT])["input_ids"]
        static = [m for m in self.model.modules() if isinstance(m, stock_modules().StaticEmbedding)]
        return counted + float(sum(ids.numel() * table.embedding_dim for table in static))


def _usual_rule(model: SentenceTransformer) -> CutRule:
    last = next(reversed(modules_of(model).values()))
    normalises = isinstance(last, stock_modules().Normalize)
    return CutRule() if normalises or model.similarity_fn_name == "cosine" else RAW


def _usual_dims(full: int) -> tuple[int, ...]:
    return Nesting.doubling(min(_SMALLEST_DIM, full), full).sizes("dim")


def _check_nesting(nesting: Nesting, width: int) -> None:
    if nesting.axes != ("dim",):
        raise GranularityError(f"a text encoder is cut on the axis dim alone, not on {nesting}")
    if nesting.full["dim"] > width:
        raise GranularityError(
            f"the nesting {nesting} goes up to {nesting.full['dim']}, but the model gives {width} dims; "
            f"end the nesting at {width}"
        )


def check_texts(texts: Iterable[str], first_row: int = 0) -> list[str]:
    """``texts`` as a list of strings that say something, or an error that names the rows.

    Args:
        texts: to be encoded.
        first_row: the number of the first one, if more came before.

    Raises:
        DataError: for no texts, or texts that are empty or no strings.
    """
    if isinstance(texts, (str, bytes)):
        raise DataError("texts must be a list of strings, not one string; write [text]")
    rows = list(texts)
    if not rows:
        raise DataError("there are no texts to encode; give at least one")
    wrong = np.array([row for row, text in enumerate(rows) if not isinstance(text, str)], np.int64)
    if len(wrong):
        kind, named = type(rows[wrong[0]]).__name__, name_rows(wrong + first_row)
        raise DataError(f"texts must be strings, not {kind} as in {named}; convert or drop those")
    empty = np.array([row for row, text in enumerate(rows) if not text.strip()], np.int64)
    if len(empty):
        raise DataError(f"an empty text has no vector; drop or fill {name_rows(empty + first_row)}")
    return rows
