"""Text encoders: any sentence-transformers model as an elastic model, cut in dims and in layers."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nestling.arguments.paths import home_path
from nestling.cut import CutRule, cut_each
from nestling.elastic import Cost, Origin, resolve_each
from nestling.encoders.bundled import WORDLLAMA_DIMS, minilm_folder, wordllama
from nestling.encoders.config_sizes import declared_dims, write_dims
from nestling.encoders.text.depth import embeddings_each, shallower
from nestling.encoders.text.export import (
    absorb_rule,
    check_stock,
    cut_model,
    last_dense,
    stock_modules,
    width_of,
)
from nestling.encoders.text.mapped import Adaptable, put_together, take_apart
from nestling.encoders.text.origin import TrainedFrom, origin_of
from nestling.encoders.text.preparation import Pooling, check_nesting, check_rest, prepare, usual_rule
from nestling.encoders.text.pretrained import quiet_unless_terminal, read_model
from nestling.encoders.text.serving_compatibility import prepare_for_servers, warn_of_others
from nestling.encoders.text.workers.pool import encode_apart
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
from nestling.nn.inference import evaluating, multiply_adds
from nestling.storage.artifact import MANIFEST, read_folder, write_folder
from nestling.vectors.matrix import usual_sizes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_KIND = "text_encoder"


class TextEncoder(nn.Module):
    """A sentence-transformers model that is cut at the moment of use: in dims, and in layers.

    With ``layer=3`` exactly three layers run (early exit), and their hidden states are pooled as those of
    the last layer. The encoder runs once for all granularities; a model that ends in a Dense computes only
    the requested entries. It starts in ``eval()``; call ``train()`` before training.

    Args:
        model: computes the vectors before the cut. Its modules are shared, not copied. A final
            normalisation becomes part of ``rule``; the layer norm of ``rule`` becomes part of ``model``.
        nesting: sizes on the axis ``dim``, or on ``dim`` and ``layer``, at most the width and depth of the
            model. By default the dims declared in the model's config (``matryoshka_dimensions``), else
            8, 16, ... up to the full size. The latter is an assumption: smaller sizes then warn.
        rule: applied around the cut. By default L2 normalisation after it, or none for a model without
            normalisation that is meant for dot products or distances.

    Raises:
        GranularityError: for a nesting on other axes, or wider or deeper than the model.
        ConfigError: for a nesting with layers, if the layers of the model are not found.
        MissingExtraError: if sentence-transformers is not installed.
    """

    def __init__(
        self, model: SentenceTransformer, nesting: AnyNesting | None = None, rule: CutRule | None = None
    ) -> None:
        super().__init__()
        rule = usual_rule(model) if rule is None else rule
        full = min(width_of(model), model.truncate_dim or width_of(model))
        dims = declared_dims(model.config, full) if nesting is None else None
        self.nesting_is_assumed = nesting is None and dims is None
        self.nesting = Nesting.of(nesting or dims or usual_sizes(full))
        check_nesting(self.nesting, model)
        self.model = absorb_rule(model, rule)
        self.rule = rule.of_encoder(self.nesting.full["dim"])
        self.trained_from = TrainedFrom()
        self._counted: dict[int | None, float] = {}
        self.eval()

    @classmethod
    def open(
        cls,
        name: str | Path,
        nesting: AnyNesting | None = None,
        rule: CutRule | None = None,
        *,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        device: str | None = None,
    ) -> Self:
        """An encoder by name.

        Args:
            name: ``"wordllama"`` (static vectors of 256 dims, nested at 64, 128, 256), ``"minilm"``
                (all-MiniLM-L6-v2, 384 dims), a folder, or the name of a model on the Hugging Face hub.
                The first two are part of Python packages and need no download.
            nesting: see :class:`TextEncoder`.
            rule: see :class:`TextEncoder`.
            pooling: the pooling of token vectors, in place of the model's own.
            max_length: tokens read of a text; by default the maximum of the model.
            device: as torch names it; by default a GPU where there is one.

        Raises:
            DataError: if there is no such model, or it cannot be read.
            ArtifactError: if a folder saved by nestling is damaged.
            ConfigError: for a pooling or a length that the model does not support, or a device that is not
                there.
        """
        folder = minilm_folder() if name == "minilm" else home_path(name)
        dims: tuple[int, ...] | None = WORDLLAMA_DIMS
        if (folder / MANIFEST).is_file():
            saved = cls.load(folder, device=device)
            if (nesting, rule, pooling, max_length) == (None,) * 4:
                return saved
            model, nesting, rule = saved.model, nesting or saved.nesting, rule or saved.rule
        elif name == "wordllama":
            model = wordllama(device)
        else:
            model, dims = read_model(str(folder if folder.is_dir() else name), device)
        return cls(prepare(model, pooling, max_length), nesting or dims, rule)

    def forward(self, texts: Sequence[str], /, at: At = None) -> Tensor:
        """Vectors ``Float[texts, dim]`` of one pass over ``texts``; ``encode`` goes batch by batch.

        Args:
            texts: none of them empty.
            at: the granularity.
        """
        granularity = self._resolve(at)
        return self._vectors(check_texts(texts), [granularity], prompt_of(self.model))[granularity]

    def views(
        self, texts: Sequence[str], rests: Iterable[Granularity] = (Granularity(),)
    ) -> dict[Granularity, Tensor]:
        """Vectors ``Float[texts, width]`` before any cut or normalisation, the input of a nested loss.

        Args:
            texts: none of them empty.
            rests: such as ``nesting.rests``; each names a ``layer``, or nothing for the last layer.

        Returns:
            The vectors at every rest, from one pass of the encoder.

        Raises:
            GranularityError: for another axis than ``layer``, or a layer that the model does not have.
        """
        wanted = {rest: check_rest(rest).get("layer") for rest in rests}
        features = self._features(check_texts(texts), prompt_of(self.model))
        found = embeddings_each(self.model, features, wanted.values())
        return {rest: found[depth] for rest, depth in wanted.items()}

    def forward_each(
        self, texts: Sequence[str], /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Vectors at several sizes from one pass of the encoder."""
        wanted = resolve_each(self.nesting, granularities)
        self._warn_if_assumed(wanted)
        return self._vectors(check_texts(texts), wanted, prompt_of(self.model))

    def encode(
        self,
        texts: Sequence[str],
        at: At = None,
        *,
        batch_size: int = 64,
        prompt: str | None = None,
        prompt_name: str | None = None,
        devices: Sequence[str] = (),
        first_row: int = 0,
    ) -> NDArray[np.float32]:
        """Vectors ``Float32[texts, dim]`` of any number of texts, in batches of similar length.

        Args:
            texts: none of them empty.
            at: the granularity.
            batch_size: texts encoded at a time.
            prompt: put before every text; by default the model's default prompt, if any.
            prompt_name: the name of one of the model's prompts, in place of ``prompt``.
            devices: encode on these in parallel, one process with a copy of the model each, such as
                ``["cuda:0", "cuda:1"]`` or ``["cpu"] * 4``.
            first_row: the number of the first text in errors, if these are part of a larger set.

        Raises:
            DataError: for no texts, or texts that are empty, no strings, or have no tokens; the rows
                are named.
            WorkerError: with ``devices``, if a process cannot start or is killed.
            ConfigError: with ``devices``, for a model that cannot be saved.
        """
        granularity = self._resolve(at)
        prompt = prompt_of(self.model, prompt, prompt_name)
        if not devices:
            return self._encode_each(texts, [granularity], batch_size, prompt, first_row)[granularity]
        rows = check_texts(texts, first_row)
        alone = TextEncoder(self._stock(granularity), Nesting.chain(dim=(granularity["dim"],)), self.rule)
        return encode_apart(alone._write, rows, granularity["dim"], devices, batch_size, prompt, first_row)

    def encode_each(
        self, texts: Sequence[str], granularities: Iterable[At] | None = None, *, batch_size: int = 64
    ) -> dict[Granularity, NDArray[np.float32]]:
        """Vectors of any number of texts at several granularities, from one pass over each batch."""
        wanted = resolve_each(self.nesting, granularities)
        self._warn_if_assumed(wanted)
        return self._encode_each(texts, wanted, batch_size, prompt_of(self.model), 0)

    def _encode_each(
        self,
        texts: Sequence[str],
        wanted: Sequence[Granularity],
        batch_size: int,
        prompt: str | None,
        first_row: int,
    ) -> dict[Granularity, NDArray[np.float32]]:
        def encode(batch: list[str], _: NDArray[np.int64]) -> dict[Granularity, NDArray[np.float32]]:
            vectors = self._vectors(batch, wanted, prompt)
            return {g: some.float().cpu().numpy() for g, some in vectors.items()}

        with evaluating(self):
            found = encode_batches(encode, texts, wanted, batch_size=batch_size, first_row=first_row)
        for matrix in found.values():
            check_found(matrix, self.rule, first_row + np.arange(len(matrix)))
        return found

    def extract(self, at: At) -> TextEncoder:
        """A smaller encoder of stock modules that shares nothing with this one.

        Unused layers are removed, and the model's config has the new depth. If the model ends in a Dense or
        in static vectors, its matrix is cut; otherwise a Dense of identity rows is added, so that plain
        sentence-transformers computes the small vectors too.
        """
        granularity = self._resolve(at)
        small = copy.deepcopy(self._stock(granularity))
        rule = self.rule if granularity == self.nesting.full else self.rule.without_code
        encoder = TextEncoder(small, self.nesting.up_to(granularity), rule)
        encoder.nesting_is_assumed, encoder.trained_from = self.nesting_is_assumed, self.trained_from
        return encoder.train(self.training)

    def with_adapter(self, adapter: Adaptable) -> TextEncoder:
        """This encoder followed by the map of an adapter, as stock Dense modules.

        The input of the adapter are the full-size vectors of ``encode``. The result has the nesting of the
        adapter, its rule if any, and shares the weights of this encoder.

        Raises:
            DataError: if the adapter takes vectors of another size.
        """
        return put_together(self, self._stock(self.nesting.full), adapter)

    def origin(self) -> Origin:
        """The encoder that this was trained from, if known."""
        return origin_of(self, TextEncoder.open)

    def under_map(self, modules: int) -> Origin:
        """The encoder of the first modules of the model, with the other modules as a map of its vectors."""
        return take_apart(self, modules)

    def cost(self, at: At = None) -> Cost:
        """Cost of one text at one size.

        The multiply-adds are those that torch counts in one pass over a text of 32 common words (a
        longer text costs more), plus one addition for each entry of a static vector that is looked up.
        """
        granularity = self.nesting.resolve(at)
        dim, dense = granularity["dim"], last_dense(self.model)
        depth = granularity.get("layer")
        weights = list((self.model if depth is None else shallower(self.model, depth)).parameters())
        whole = Cost(
            flops=self._flops(depth),
            parameters=sum(weight.numel() for weight in weights),
            size_bytes=sum(weight.nbytes for weight in weights),
            output_bytes=4 * dim,
        )
        if dense is None:
            return whole
        skipped = dense.out_features - dim
        unread = skipped * (dense.in_features + dense.bias)
        return replace(
            whole,
            flops=whole.flops - skipped * dense.in_features,
            parameters=whole.parameters - unread,
            size_bytes=whole.size_bytes - unread * dense.linear.weight.element_size(),
        )

    def fingerprint(self) -> str:
        """Digest of weights, cut rule, default prompt and maximum length, in hex."""
        weights = (
            (
                f"{name} {value.dtype} {value.shape}",
                value.detach().cpu().reshape(-1).view(torch.uint8).numpy(),
            )
            for name, value in self.model.state_dict().items()
            if isinstance(value, Tensor)
        )
        return fingerprint_of(self.model, self.rule, self.model.max_seq_length, weights)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder that plain sentence-transformers (6 or newer) loads with the same vectors.

        The folder also has the files that inference servers read. A ``ServingWarning`` says why a server
        would give other vectors; see :func:`~nestling.encoders.text.serving_compatibility.served_by`.

        Raises:
            ConfigError: if the model has modules that plain sentence-transformers would not load.
        """
        self._write(folder)
        warn_of_others(folder)

    def _write(self, folder: str | Path) -> None:
        check_stock(self.model)
        stock = self._stock(self.nesting.full)
        settings = {"nesting_is_assumed": self.nesting_is_assumed, **self.trained_from.to_settings()}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            with quiet_unless_terminal():
                stock.save(str(path), create_model_card=False)
            prepare_for_servers(path, stock.max_seq_length)
            if not self.nesting_is_assumed:
                write_dims(path, self.nesting.sizes("dim"))

    @classmethod
    def load(cls, folder: str | Path, /, at: At = None, *, device: str | None = None) -> Self:
        """Load a saved encoder after verifying every file.

        Args:
            folder: of the encoder.
            at: the largest granularity to be used; weights of layers above it are not read.
            device: as torch names it; by default a GPU where there is one.
        """
        manifest = read_folder(folder, _KIND)
        nesting = manifest.read_nesting()
        largest = nesting.resolve(at)
        model, _ = read_model(str(folder), device, depth=None if at is None else largest.get("layer"))
        encoder = cls(model, nesting.up_to(largest), manifest.read_cut())
        encoder.nesting_is_assumed = bool(manifest.settings.get("nesting_is_assumed"))
        encoder.trained_from = TrainedFrom.of(manifest.settings)
        return encoder

    def _vectors(
        self, texts: list[str], wanted: Iterable[Granularity], prompt: str | None
    ) -> dict[Granularity, Tensor]:
        """The vectors of one pass at several granularities, in their order."""
        wanted, dims = list(wanted), defaultdict(list)
        for granularity in wanted:
            dims[granularity.get("layer")].append(granularity["dim"])
        largest = max(granularity["dim"] for granularity in wanted)
        whole = embeddings_each(self.model, self._features(texts, prompt), dims, largest)
        prefixes = {depth: cut_each(x, dims[depth], self.rule) for depth, x in whole.items()}
        return {g: prefixes[g.get("layer")][g["dim"]] for g in wanted}

    def _features(self, texts: list[str], prompt: str | None) -> dict[str, Any]:
        """Tokenised texts on the device of the weights."""
        from sentence_transformers.util import batch_to_device

        return batch_to_device(self.model.preprocess(texts, prompt=prompt), self.model.device)

    def _stock(self, granularity: Granularity) -> SentenceTransformer:
        """A model of stock modules that computes the vectors of one granularity; weights are shared."""
        depth = granularity.get("layer")
        model = self.model if depth is None else shallower(self.model, depth)
        return cut_model(model, granularity["dim"], self.rule)

    def _resolve(self, at: At) -> Granularity:
        granularity = self.nesting.resolve(at)
        self._warn_if_assumed((granularity,))
        return granularity

    def _warn_if_assumed(self, wanted: Iterable[Granularity]) -> None:
        if self.nesting_is_assumed:
            warn_if_smaller(wanted, self.nesting)

    def _flops(self, depth: int | None) -> float:
        """Multiply-adds of one pass over the sample text, through ``depth`` layers."""
        if depth not in self._counted:
            self._counted[depth] = self._count_flops(depth)
        return self._counted[depth]

    def _count_flops(self, depth: int | None) -> float:
        features = self._features([SAMPLE_TEXT], None)
        with evaluating(self):
            counted = multiply_adds(lambda: embeddings_each(self.model, features, [depth]))
        static = [m for m in self.model.modules() if isinstance(m, stock_modules().StaticEmbedding)]
        return counted + float(sum(features["input_ids"].numel() * table.embedding_dim for table in static))
