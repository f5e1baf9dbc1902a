"""Static text encoders without torch: the mean of token vectors, and the layers after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from nestling.arguments.paths import home_path
from nestling.cut import RAW, CutRule, cut, cut_each
from nestling.elastic import Cost, Origin, check_whole, resolve_each
from nestling.encoders.bundled import WORDLLAMA_DIMS, wordllama_files
from nestling.encoders.config_sizes import declared_dims, write_dims
from nestling.encoders.text.names import needs_no_torch
from nestling.encoders.text.origin import TrainedFrom, origin_of
from nestling.encoders.text.static.folder import StaticFolder, read_static, read_tokenizer, write_static
from nestling.encoders.text.static.layers import (
    Dense,
    Floats,
    LayerNorm,
    Normalize,
    cut_model,
    needed,
    width_of,
)
from nestling.encoders.texts import (
    SAMPLE_TEXT,
    check_found,
    check_texts,
    encode_batches,
    fingerprint_of,
    prompt_of,
    warn_if_smaller,
)
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.storage.artifact import MANIFEST, read_folder, write_folder
from nestling.vectors.matrix import usual_sizes

if TYPE_CHECKING:
    from nestling.encoders.text.encoder import TextEncoder
    from nestling.encoders.text.static.layers import Layer, Layers

_KIND = "text_encoder"
_TOKENS_AT_A_TIME = 1 << 13
_ABOUT: Mapping[str, Any] = {
    "model_type": "SentenceTransformer",
    "prompts": {"query": "", "document": ""},
    "default_prompt_name": None,
    "similarity_fn_name": "cosine",
}


class StaticEncoder:
    """A sentence-transformers model of static vectors that is cut at the moment of use, without torch.

    The vector of a text is the mean of its token vectors. Results equal those of
    :class:`~nestling.encoders.text.encoder.TextEncoder` up to rounding; it reads and writes the same
    folders, and starts faster.

    Args:
        parts: the model. A final normalisation becomes part of ``rule``; the layer norm of ``rule`` becomes
            part of the model.
        nesting: sizes on the axis ``dim``; by default those declared in the model's config, else
            8, 16, ... up to the full size. The latter is an assumption: smaller sizes then warn.
        rule: applied around the cut; by default L2 normalisation after it, or none for a model without
            normalisation that is meant for dot products or distances.

    Raises:
        GranularityError: for a nesting on other axes, or wider than the model.
    """

    def __init__(
        self, parts: StaticFolder, nesting: AnyNesting | None = None, rule: CutRule | None = None
    ) -> None:
        layers, about = parts.layers, {**_ABOUT, **parts.about}
        normalises = bool(layers) and isinstance(layers[-1], Normalize)
        if rule is None:
            cosine = about["similarity_fn_name"] in (None, "cosine")
            rule = CutRule() if normalises or cosine else RAW
        if normalises and rule.after == "l2":
            layers = layers[:-1]
        full = width_of(layers, parts.table)
        if rule.before == "layer_norm":
            layers = (*layers, LayerNorm.plain(full))
        declared = declared_dims(parts.config, full) if nesting is None else None
        self.nesting_is_assumed = nesting is None and declared is None
        self.nesting = Nesting.of(nesting or declared or usual_sizes(full))
        _check_nesting(self.nesting, full)
        self.rule = rule.of_encoder(self.nesting.full["dim"])
        self.parts = replace(parts, layers=layers, about=about)
        self.trained_from = TrainedFrom()

    @classmethod
    def open(cls, name: str | Path, nesting: AnyNesting | None = None, rule: CutRule | None = None) -> Self:
        """An encoder by name.

        Args:
            name: ``"wordllama"``, or a folder for which :func:`~.folder.is_static` holds.
            nesting: see :class:`StaticEncoder`.
            rule: see :class:`StaticEncoder`.

        Raises:
            DataError: if a folder cannot be read.
            ArtifactError: if a folder saved by nestling is torn or altered.
            MissingExtraError: if the package tokenizers, or wordllama, is not installed.
        """
        if name == "wordllama":
            weights, vocabulary = wordllama_files()
            # Kept as half floats on disk; sums over tokens want more.
            table = load_file(weights)["embedding.weight"].astype(np.float32)
            parts = StaticFolder(read_tokenizer(vocabulary), table, (), {}, {})
            return cls(parts, nesting or WORDLLAMA_DIMS, rule)
        folder = home_path(name)
        if not (folder / MANIFEST).is_file():
            return cls(read_static(folder), nesting, rule)
        saved = cls.load(folder)
        if nesting is None and rule is None:
            return saved
        return cls(saved.parts, nesting or saved.nesting, rule or saved.rule)

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompts by name."""
        prompts: Mapping[str, str] = self.parts.about["prompts"]
        return prompts

    @property
    def default_prompt_name(self) -> str | None:
        """The name of the default prompt."""
        name: str | None = self.parts.about["default_prompt_name"]
        return name

    def __call__(self, texts: Sequence[str], /, at: At = None) -> Floats:
        """Vectors ``Float32[texts, dim]``."""
        return self.encode(texts, at)

    def forward_each(
        self, texts: Sequence[str], /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Floats]:
        """Vectors at several sizes from one pass over the texts."""
        return self.encode_each(texts, granularities)

    def views(
        self, texts: Sequence[str], rests: Iterable[Granularity] = (Granularity(),)
    ) -> dict[Granularity, Floats]:
        """Vectors ``Float32[texts, width]`` before any cut or normalisation.

        Args:
            texts: none of them empty.
            rests: such as ``nesting.rests``: empty granularities, as static vectors have no axis besides
                ``dim``.

        Raises:
            GranularityError: for a rest that names an axis.
        """
        wanted = check_whole(rests, "an encoder of static vectors")
        prompt = prompt_of(self) or ""
        whole = self._vectors(
            [prompt + text for text in check_texts(texts)], self.parts.layers, self.parts.table
        )
        return dict.fromkeys(wanted, whole)

    def encode(
        self,
        texts: Sequence[str],
        at: At = None,
        *,
        batch_size: int = 64,
        prompt: str | None = None,
        prompt_name: str | None = None,
        first_row: int = 0,
    ) -> Floats:
        """Vectors ``Float32[texts, dim]`` of any number of texts.

        Args:
            texts: none of them empty.
            at: the granularity.
            batch_size: texts encoded at a time.
            prompt: put before every text; by default the model's default prompt, if any.
            prompt_name: the name of one of the model's prompts, in place of ``prompt``.
            first_row: the number of the first text in errors, if these are part of a larger set.

        Raises:
            DataError: for no texts, or texts that are empty, no strings, or have no tokens; the rows
                are named.
        """
        granularity = self.nesting.resolve(at)
        prompt = prompt_of(self, prompt, prompt_name)
        return self._encode_each(texts, [granularity], batch_size, prompt, first_row)[granularity]

    def encode_each(
        self, texts: Sequence[str], granularities: Iterable[At] | None = None, *, batch_size: int = 64
    ) -> dict[Granularity, Floats]:
        """Vectors of any number of texts at several granularities, from one pass over each batch."""
        wanted = resolve_each(self.nesting, granularities)
        return self._encode_each(texts, wanted, batch_size, prompt_of(self), 0)

    def extract(self, at: At) -> StaticEncoder:
        """A smaller encoder of stock modules that shares no weights with this one."""
        granularity = self.nesting.resolve(at)
        self._warn_if_assumed((granularity,))
        layers, table = cut_model(self.parts.layers, self.parts.table, granularity["dim"])
        own = tuple(_own(layer) for layer in layers)
        parts = replace(self.parts, table=np.array(table, order="C"), layers=own)
        small = StaticEncoder(parts, self.nesting.up_to(granularity), self.rule)
        small.nesting_is_assumed, small.trained_from = self.nesting_is_assumed, self.trained_from
        return small

    def origin(self) -> Origin:
        """The encoder that this was trained from, if known."""
        return origin_of(self, _open_origin)

    def under_map(self, modules: int) -> Origin:
        """The encoder of the table and the first layers, and the other layers as a map of its vectors."""
        layers, rest = self.parts.layers[: modules - 1], self.parts.layers[modules - 1 :]
        normalises = bool(layers) and isinstance(layers[-1], Normalize)
        under = replace(self.parts, layers=layers)
        rule = CutRule(after="l2" if normalises else "none")

        def lift(vectors: Floats) -> Floats:
            for layer in rest:
                vectors = layer(vectors)
            return vectors

        return Origin(StaticEncoder(under, [width_of(layers, under.table)], rule), lift)

    def cost(self, at: At = None) -> Cost:
        """Cost of one text at one size.

        The multiply-adds are those of the matrix products for a text of 32 common words (a longer text
        costs more), plus one addition for each entry of a static vector that is read.
        """
        dim = self.nesting.resolve(at)["dim"]
        layers, read = needed(self.parts.layers, self.parts.table, dim)
        flops = len(self._tokens([SAMPLE_TEXT])[0]) * read.shape[1]
        flops += sum(layer.weight.size for layer in layers if isinstance(layer, Dense))
        # The whole table is held, even if only some columns are read.
        held = [self.parts.table, *(w for layer in layers for w in layer.weights.values())]
        return Cost(
            flops=float(flops),
            parameters=sum(values.size for values in held),
            size_bytes=sum(values.nbytes for values in held),
            output_bytes=4 * dim,
        )

    def fingerprint(self) -> str:
        """Digest of tokenizer, weights, cut rule and default prompt, in hex."""
        vocabulary = np.frombuffer(self.parts.tokenizer.to_str().encode(), np.uint8)
        arrays: list[tuple[str, NDArray[Any]]] = [
            (f"{number} {layer.config} {name}", values)
            for number, layer in enumerate(self.parts.layers)
            for name, values in layer.weights.items()
        ]
        arrays += [("table", self.parts.table), ("tokenizer", vocabulary)]
        return fingerprint_of(self, self.rule, None, arrays)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder that plain sentence-transformers loads with the same vectors."""
        layers, table = cut_model(self.parts.layers, self.parts.table, self.nesting.full["dim"])
        ending = (Normalize(),) if self.rule.after == "l2" else ()
        settings = {"nesting_is_assumed": self.nesting_is_assumed, **self.trained_from.to_settings()}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            write_static(path, self.parts.tokenizer, table, (*layers, *ending), self.parts.about)
            if not self.nesting_is_assumed:
                write_dims(path, self.nesting.sizes("dim"))

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Load a folder written by ``save``, here or of a ``TextEncoder``, after verifying every file."""
        manifest = read_folder(folder, _KIND)
        encoder = cls(read_static(home_path(folder)), manifest.read_nesting(), manifest.read_cut())
        encoder.nesting_is_assumed = bool(manifest.settings.get("nesting_is_assumed"))
        encoder.trained_from = TrainedFrom.of(manifest.settings)
        return encoder

    def _encode_each(
        self,
        texts: Sequence[str],
        wanted: Sequence[Granularity],
        batch_size: int,
        prompt: str | None,
        first_row: int,
    ) -> dict[Granularity, Floats]:
        self._warn_if_assumed(wanted)
        dims = [g["dim"] for g in wanted]
        parts = needed(self.parts.layers, self.parts.table, max(dims))

        def encode(batch: list[str], numbers: NDArray[np.int64]) -> dict[Granularity, Floats]:
            whole = self._vectors([(prompt or "") + text for text in batch], *parts)
            for dim in dims:  # before they are normalised, whose error would not name texts
                check_found(cut(whole, dim, RAW), self.rule, numbers)
            prefixes = cut_each(whole, dims, self.rule)
            return {g: prefixes[g["dim"]] for g in wanted}

        return encode_batches(encode, texts, wanted, batch_size=batch_size, first_row=first_row)

    def _vectors(self, texts: list[str], layers: Layers, table: Floats) -> Floats:
        """The vectors before the cut; a text without tokens starts as zeros."""
        vectors = np.zeros((len(texts), table.shape[1]), np.float32)
        for vector, tokens in zip(vectors, self._tokens(texts), strict=True):
            for start in range(0, len(tokens), _TOKENS_AT_A_TIME):
                vector += table[tokens[start : start + _TOKENS_AT_A_TIME]].sum(axis=0)
            vector /= max(1, len(tokens))
        for layer in layers:
            vectors = layer(vectors)
        return vectors

    def _tokens(self, texts: list[str]) -> list[NDArray[np.int64]]:
        encoded = self.parts.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [np.array(each.ids, np.int64) for each in encoded]

    def _warn_if_assumed(self, wanted: Iterable[Granularity]) -> None:
        if self.nesting_is_assumed:
            warn_if_smaller(wanted, self.nesting)


def _open_origin(name: str, nesting: Nesting | None) -> StaticEncoder | TextEncoder:
    """A model of the hub needs torch, even if it is one of static vectors."""
    if needs_no_torch(name):
        return StaticEncoder.open(name, nesting)
    from nestling.encoders.text.encoder import TextEncoder  # torch

    return TextEncoder.open(name, nesting)


def _own(layer: Layer) -> Layer:
    """A copy of a layer with its own weights."""
    if isinstance(layer, Dense):
        return Dense(layer.weight.copy(), None if layer.bias is None else layer.bias.copy(), layer.activation)
    return LayerNorm(layer.scale.copy(), layer.shift.copy()) if isinstance(layer, LayerNorm) else layer


def _check_nesting(nesting: Nesting, full: int) -> None:
    nesting.within("an encoder of static vectors", dim=full)
