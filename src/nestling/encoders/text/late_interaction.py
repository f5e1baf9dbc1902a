"""Late interaction: any sentence-transformers model as an encoder of token vectors."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import OneOf, Whole, check, checked
from nestling.arguments.paths import home_path
from nestling.cut import CutRule, cut_each
from nestling.elastic import Cost, Trained, resolve_each
from nestling.encoders.bundled import minilm_folder
from nestling.encoders.text.export import check_stock
from nestling.encoders.text.pretrained import quiet_unless_terminal, read_model
from nestling.encoders.texts import SAMPLE_TEXT, check_texts, prompt_of
from nestling.errors import ConfigError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.nn.inference import evaluating, multiply_adds
from nestling.nn.tokens.budget_pool import BudgetMode, BudgetPool
from nestling.nn.tokens.tokens import Tokens
from nestling.process.blocks import blocks
from nestling.process.progress import Progress
from nestling.storage.artifact import MANIFEST, read_folder, write_folder
from nestling.vectors.token_vectors import TokenVectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Key = TypeVar("Key", bound=Hashable)
_KIND = "token_encoder"
_RULE = CutRule()
_LONGEST = 512  # tokens, of a model that names no maximum
_TOKENS, _NAME = "token_embeddings", "the token encoder"


class TokenEncoder(nn.Module):
    """The token vectors of texts, of which documents keep at most ``n``, chosen at the moment of use.

    A document's token vectors are scaled to length 1, pooled by
    :class:`~nestling.nn.tokens.budget_pool.BudgetPool`, cut to ``dim`` entries and scaled again; pooling is
    not trained. Queries keep all their tokens: encode them with :attr:`queries`. Compare both by
    :func:`~nestling.search.max_sim.max_sim`. It starts in ``eval()``.

    Args:
        model: gives token vectors, special tokens included. Its modules are shared, not copied.
        nesting: sizes on ``tokens``, or on ``tokens`` and ``dim``. By default 1, 2, 4, ... up to the longest
            text that the model reads.
        mode: of the pool: ``"cluster"`` of similar vectors, ``"mean"`` of equal runs, or ``"stride"``.

    Raises:
        GranularityError: for a nesting on other axes, or of larger sizes than the model's.
        ConfigError: for a model that has no token vectors, such as one of static vectors.
        MissingExtraError: if sentence-transformers is not installed.

    Source: Khattab and Zaharia 2020, arXiv 2004.12832 (late interaction); Clavié, Chaffin and Adams 2024,
    arXiv 2409.14683 (token pooling).
    """

    rule = _RULE

    @checked(mode=OneOf(get_args(BudgetMode)))
    def __init__(
        self, model: SentenceTransformer, nesting: AnyNesting | None = None, *, mode: BudgetMode = "cluster"
    ) -> None:
        super().__init__()
        width, longest = _token_width(model), model.max_seq_length
        wanted = Nesting.doubling(1, longest or _LONGEST, axis="tokens") if nesting is None else nesting
        self.nesting = Nesting.of(wanted).within(_NAME, needs=("tokens",), tokens=longest, dim=width)
        self.model, self.mode, self.width = model, mode, width
        self.pool = BudgetPool(width, self.nesting.sizes("tokens"), mode=mode)
        self._trained, self._longest = Trained(self.nesting), longest
        self.eval()

    @classmethod
    def open(
        cls,
        name: str | Path,
        nesting: AnyNesting | None = None,
        *,
        mode: BudgetMode = "cluster",
        device: str | None = None,
    ) -> Self:
        """An encoder by name.

        Args:
            name: ``"minilm"``, a folder, or the name of a model on the Hugging Face hub.
            nesting: see :class:`TokenEncoder`.
            mode: see :class:`TokenEncoder`. A folder that nestling saved keeps its own.
            device: as torch names it; by default a GPU where there is one.

        Raises:
            DataError: if there is no such model, or it cannot be read.
            ArtifactError: if a folder saved by nestling is damaged.
        """
        folder = minilm_folder() if name == "minilm" else home_path(name)
        if (folder / MANIFEST).is_file() and nesting is None:
            return cls.load(folder, device=device)
        model, _ = read_model(str(folder if folder.is_dir() else name), device)
        return cls(model, nesting, mode=mode)

    def forward(self, texts: Sequence[str], /, at: At = None, *, strict: bool = True) -> Tokens:
        """The token vectors ``Float[texts, n, dim]`` of documents, with a mask."""
        granularity = self.resolve(at, strict=strict)
        return self._documents(check_texts(texts), [granularity])[granularity]

    def forward_each(
        self, texts: Sequence[str], /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tokens]:
        """The token vectors of documents at several granularities, from one pass of the encoder."""
        return self._documents(check_texts(texts), resolve_each(self.nesting, granularities))

    def encode(
        self, texts: Sequence[str], at: At = None, *, strict: bool = True, batch_size: int = 64
    ) -> TokenVectors:
        """The token vectors of any number of documents, in batches of similar length.

        Args:
            texts: of the documents.
            at: a granularity.
            strict: refuse sizes that are not of the nesting; else warn once.
            batch_size: texts that are encoded together.

        Raises:
            DataError: for no texts, or texts that are empty or no strings; the rows are named.
        """
        granularity = self.resolve(at, strict=strict)
        return self._encoded(texts, [granularity], batch_size)[granularity]

    def encode_each(
        self, texts: Sequence[str], granularities: Iterable[At] | None = None, *, batch_size: int = 64
    ) -> dict[Granularity, TokenVectors]:
        """The token vectors of documents at several granularities, from one pass over each batch."""
        return self._encoded(texts, resolve_each(self.nesting, granularities), batch_size)

    def resolve(self, at: At, *, strict: bool = True) -> Granularity:
        """The granularity that ``at`` names.

        Args:
            at: of the nesting, or with ``strict=False`` of any size that the model allows.
            strict: refuse sizes that are not of the nesting; else warn once.

        Raises:
            GranularityError: naming those that are allowed.
        """

        def attainable(at: At) -> Granularity:
            named = Nesting((self.nesting.named(at),))
            return named.within(_NAME, tokens=self._longest, dim=self.width).full

        return self._trained.resolve(at, attainable, strict=strict)

    @property
    def queries(self) -> QueryEncoder:
        """The encoder of queries, with the same weights."""
        return QueryEncoder(self)

    def extract(self, at: At) -> TokenEncoder:
        """An encoder that has only the granularities up to ``at`` and shares nothing with this one."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        return TokenEncoder(copy.deepcopy(self.model), kept, mode=self.mode).train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Cost of one document: the multiply-adds of 32 common words, and the most bytes that it takes."""
        granularity, weights = self.nesting.resolve(at), list(self.model.parameters())
        return Cost(
            flops=self._flops,
            parameters=sum(weight.numel() for weight in weights),
            size_bytes=sum(weight.nbytes for weight in weights),
            output_bytes=4 * granularity["tokens"] * self._dim(granularity),
        )

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder, which plain sentence-transformers loads as the model that was given.

        Raises:
            ConfigError: if the model has modules that plain sentence-transformers would not load.
        """
        check_stock(self.model)
        settings = {"mode": self.mode}
        written = write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings)
        with written as path, quiet_unless_terminal():
            self.model.save(str(path), create_model_card=False)

    @classmethod
    def load(cls, folder: str | Path, /, *, device: str | None = None) -> Self:
        """Load a saved encoder after verifying every file."""
        manifest = read_folder(folder, _KIND)
        model, _ = read_model(str(home_path(folder)), device)
        return cls(model, manifest.read_nesting(), mode=manifest.settings["mode"])

    def whole(self, texts: list[str]) -> Tokens:
        """All token vectors ``Float[texts, n, width]`` of texts, of length 1, with a mask."""
        features = _features(self.model, texts, prompt_of(self.model))
        return Tokens(F.normalize(features[_TOKENS], dim=-1), features["attention_mask"].bool())

    def _encoded(
        self, texts: Sequence[str], wanted: Sequence[Granularity], batch_size: int
    ) -> dict[Granularity, TokenVectors]:
        with evaluating(self):
            return _encoded(lambda batch: self._documents(batch, wanted), texts, batch_size)

    def _documents(self, texts: list[str], wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        sizes: dict[int, list[int]] = defaultdict(list)
        for granularity in wanted:
            sizes[granularity["tokens"]].append(self._dim(granularity))
        # The pool can make any number of tokens, also those of no nesting.
        pooled = self.pool.each(self.whole(texts), [Granularity(tokens=size) for size in sizes])
        cut = {g["tokens"]: _cut_each(tokens, sizes[g["tokens"]]) for g, tokens in pooled.items()}
        return {g: cut[g["tokens"]][self._dim(g)] for g in wanted}

    def _dim(self, granularity: Granularity) -> int:
        return granularity.get("dim", self.width)

    @cached_property
    def _flops(self) -> float:
        """Multiply-adds of one pass over the sample text."""
        with evaluating(self):
            return multiply_adds(lambda: self.whole([SAMPLE_TEXT]))


@dataclass(frozen=True)
class QueryEncoder:
    """The token vectors of queries: all of them at every granularity, cut to its ``dim``.

    Args:
        encoder: of the documents.
    """

    encoder: TokenEncoder

    def encode(
        self, texts: Sequence[str], at: At = None, *, strict: bool = True, batch_size: int = 64
    ) -> TokenVectors:
        """The token vectors of any number of queries, in batches of similar length."""
        granularity = self.encoder.resolve(at, strict=strict)
        return self._encoded(texts, [granularity], batch_size)[granularity]

    def encode_each(
        self, texts: Sequence[str], granularities: Iterable[At] | None = None, *, batch_size: int = 64
    ) -> dict[Granularity, TokenVectors]:
        """The token vectors of queries at several granularities, from one pass over each batch."""
        return self._encoded(texts, resolve_each(self.encoder.nesting, granularities), batch_size)

    def _encoded(
        self, texts: Sequence[str], wanted: Sequence[Granularity], batch_size: int
    ) -> dict[Granularity, TokenVectors]:
        dims = {g: g.get("dim", self.encoder.width) for g in wanted}
        with evaluating(self.encoder):
            found = _encoded(
                lambda batch: _cut_each(self.encoder.whole(batch), dims.values()), texts, batch_size
            )
        return {g: found[dim] for g, dim in dims.items()}


def _encoded(
    encode: Callable[[list[str]], Mapping[Key, Tokens]], texts: Sequence[str], batch_size: int
) -> dict[Key, TokenVectors]:
    """The token vectors of any number of texts, in batches of similar length, with progress."""
    check("batch_size", batch_size, Whole(1))
    rows = check_texts(texts)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
    found: dict[Key, dict[int, NDArray[np.float32]]] = defaultdict(dict)
    with Progress("encoding", len(rows), "texts") as progress:
        for some in blocks(len(order), batch_size):
            batch = order[some]
            for key, tokens in encode([rows[row] for row in batch]).items():
                masks = [slice(None)] * len(batch) if tokens.mask is None else tokens.mask.cpu().numpy()
                values = tokens.values.float().cpu().numpy()
                found[key] |= {row: x[mask] for row, x, mask in zip(batch, values, masks, strict=True)}
            progress.update(len(batch))
    return {key: TokenVectors.of(items[row] for row in range(len(rows))) for key, items in found.items()}


def _cut_each(tokens: Tokens, dims: Iterable[int]) -> dict[int, Tokens]:
    """The vectors cut to several sizes, by the rule of all token encoders."""
    cut = cut_each(tokens.values, dims, _RULE)
    return {dim: Tokens(values, tokens.mask) for dim, values in cut.items()}


def _features(model: SentenceTransformer, texts: list[str], prompt: str | None) -> dict[str, Tensor]:
    """What the modules of a model compute of texts.

    Raises:
        ConfigError: for a model that has no token vectors.
    """
    from sentence_transformers.util import batch_to_device

    features: dict[str, Tensor] = model(batch_to_device(model.preprocess(texts, prompt=prompt), model.device))
    if _TOKENS not in features:
        raise ConfigError(
            f"the model starts with {type(next(model.children())).__name__}, which gives no token vectors; "
            "use a transformer"
        )
    return features


def _token_width(model: SentenceTransformer) -> int:
    with evaluating(model):
        return int(_features(model, [SAMPLE_TEXT], None)[_TOKENS].shape[-1])
