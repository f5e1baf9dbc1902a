"""A language model with a prefix of tokens, whose number is chosen at the moment of use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, checked
from nestling.domains.prefix import files
from nestling.domains.prefix.batches import (
    IGNORED,
    AtRows,
    PrefixBatch,
    answers_of,
    check_batch,
    place_of,
    sizes_of,
)
from nestling.domains.prefix.flops import cost_of
from nestling.domains.prefix.language import (
    answer_losses,
    check_adapters,
    check_length,
    generated,
    logits_at,
    read_decoding,
    width_of,
)
from nestling.domains.prefix.sequences import Sequences, assembled, places_of
from nestling.domains.prefix.streams import Order, Streams
from nestling.domains.prefix.template import Template, Text, check_streams
from nestling.elastic import Cost, Trained, resolve_each
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.losses.one_encoding import OneEncoding
from nestling.nn.inference import evaluating
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.tokens import Tokens

Padding = Literal["left", "right"]
Encoded: TypeAlias = dict[str, Tokens | None]


class PrefixLM(nn.Module):
    r"""A causal language model that reads tokens of pictures, sound or video among its text.

    Encoders give vectors, connectors make as few tokens of them as are asked for, and the language model
    takes these as embeddings. The model is elastic on the axes of its connectors: ``tokens``, or ``audio``
    and ``video``. It starts in ``eval()``.

    Args:
        encoders: for each stream, such as ``"image"``, a model of transformers or timm or a function; wrap it
            in :class:`Features` to read a hidden state or to drop a class token.
        connectors: for each stream, from the width of its encoder to that of the language model; each has an
            axis of its own.
        lm: a causal language model of transformers that takes ``inputs_embeds``.
        tokenizer: of transformers; None if prompts and answers are ids.
        template: ``{prompt}`` and the places of items, such as ``"<image>\n{prompt}"``; all places and then
            the prompt by default.
        nesting: the granularities that are trained; all combinations of the connectors' sizes by default.
            Others of the connectors are used with ``strict=False``.
        adapters: of ``lm``, switched with the granularity.
        padding: side of a batch on which short rows are padded.
        order: of the tokens of an item. With ``"reversed"`` the first is next to the text that follows, at
            any size; choose it where fewer tokens are the first of more, as those of a resampler are.
        decoding: arguments of ``generate`` of transformers, saved with the model; greedy by default.

    Raises:
        ConfigError: for streams without encoder or connector, wrong widths, or two connectors on one axis.
        GranularityError: for a nesting that the connectors do not allow.

    Source: M3, arXiv 2405.17430; MQT, arXiv 2405.19315; Llama-MTSK, arXiv 2503.06362.
    """

    @checked(padding=OneOf(get_args(Padding)), order=OneOf(get_args(Order)))
    def __init__(
        self,
        encoders: Mapping[str, Callable[..., Any]],
        connectors: Mapping[str, Compressor],
        lm: nn.Module,
        *,
        tokenizer: Any = None,
        template: str = "",
        nesting: Nesting | str | None = None,
        adapters: ScaleAdapters | None = None,
        padding: Padding = "left",
        order: Order = "forward",
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.streams = Streams(encoders, connectors, width_of(lm), order)
        self.lm, self.adapters, self.padding = lm, adapters, padding
        check_adapters(adapters, lm, self.streams.attainable)
        self.nesting = self.streams.attainable if nesting is None else self.streams.within(nesting)
        self._trained = Trained(self.nesting)
        self.template = Template(self.streams.names, template, tokenizer)
        self.decoding = dict(decoding or {})
        read_decoding(lm, self.decoding)
        self.eval()

    def batch(
        self, prompts: Sequence[Text], answers: Sequence[Text] | None = None, /, **items: Any
    ) -> PrefixBatch:
        """Prompts, and answers to learn from, as a batch.

        Args:
            prompts: texts, or lists of ids; their own places, as in ``"<image> or <image>?"``, replace those
                of the template.
            answers: one a prompt.
            items: of each stream: None; a tensor with one item a prompt; or a list with an item, a list of
                items, or None for each prompt.

        Raises:
            DataError: if numbers of prompts, answers, places and items differ.
        """
        return self.template.batch(prompts, answers, items)

    def forward(self, batch: PrefixBatch, /, at: AtRows = None, *, strict: bool = True) -> Tensor:
        """Logits ``Float[batch, length, vocabulary]``: at each id, of the one that follows it.

        At a place they follow its last token. They are zero for padding, and where nothing is read before.

        Args:
            batch: text and items.
            at: a granularity, or a list with one for each row.
            strict: refuse granularities that were not trained; else warn once.
        """
        rows = self._rows(batch, at, strict)
        return self._logits(batch, self._text(batch), self.streams.tokens(self.encode(batch), rows), rows)

    def forward_each(
        self, batch: PrefixBatch, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Logits at several granularities; items are encoded, and text embedded, once."""
        wanted = resolve_each(self.nesting, granularities)
        tokens, text = self.streams.tokens(self.encode(batch), wanted), self._text(batch)
        return {g: self._logits(batch, text, tokens, [g] * len(batch.ids)) for g in wanted}

    def encode(self, batch: PrefixBatch) -> Encoded:
        """The vectors of each stream, before its connector; None for a stream without items.

        Raises:
            DataError: if there are not as many items as places.
        """
        self._check(batch)
        check_streams(batch.items, self.streams.names)
        encoded: Encoded = {}
        for number, name in enumerate(self.streams.names):
            given = batch.items.get(name)
            found = encoded[name] = None if given is None else self.streams.encoder(name)(given)
            places = len(places_of(batch.ids, batch.mask, place_of(number)))
            if found is not None and len(found.values) != places:
                raise DataError(
                    f"the batch has {places} places for {name} and {len(found.values)} items of it; give an "
                    "item for each place"
                )
        return encoded

    def loss(self, batch: PrefixBatch, at: AtRows = None, *, strict: bool = True) -> Tensor:
        """The mean cross-entropy of the ids of answers.

        Raises:
            DataError: for a batch without answers.
        """
        return self._loss(batch, self.encode(batch), self._rows(batch, at, strict), self.active)

    def loss_of(self, features: Encoded, batch: PrefixBatch, at: At = None) -> Tensor:
        """The loss from what :meth:`encode` gave, inside of ``active(at)``, as a training step needs it."""
        rows = [self.nesting.resolve(at)] * len(batch.ids)
        return self._loss(batch, features, rows, lambda _: nullcontext())

    def objective(self, **settings: Any) -> OneEncoding:
        """The nested loss, for :func:`nestling.training.fit` of this model on batches.

        Args:
            settings: of :class:`~nestling.losses.OneEncoding`: ``weights``, ``schedule``, ``reduction``,
                ``seed``.
        """
        return OneEncoding(
            lambda model, batch: model.encode(batch),
            lambda model, features, batch, at: model.loss_of(features, batch, at),
            self.nesting,
            context=self.active,
            **settings,
        )

    def active(self, at: At = None) -> AbstractContextManager[Any]:
        """A block in which the adapters of a granularity are active; those of the nearest if it has none."""
        return nullcontext() if self.adapters is None else self.adapters.at(self.adapted(at))

    def generate(
        self, batch: PrefixBatch, /, at: AtRows = None, *, strict: bool = True, **decoding: Any
    ) -> list[list[int]]:
        """The ids that follow each row, up to the end of text.

        Args:
            batch: text and items, without answers.
            at: a granularity, or a list with one for each row.
            strict: refuse granularities that were not trained; else warn once.
            decoding: in the place of :attr:`decoding`; arguments of ``generate`` of transformers.

        Raises:
            ConfigError: for arguments that contradict one another.
            DataError: for a batch with answers, or rows too long for the language model.
        """
        settings = read_decoding(self.lm, self.decoding, decoding)
        if batch.labels is not None and bool((batch.labels != IGNORED).any()):
            raise DataError("the batch holds answers, which the model would read; leave them out to generate")
        rows = self._rows(batch, at, strict)
        found: list[list[int]] = [[] for _ in rows]
        with evaluating(self):
            text, tokens = self._text(batch), self.streams.tokens(self.encode(batch), rows)
            for places, sequences, g in self._runs(batch, text, tokens, rows, at_end=True):
                check_length(self.lm, sequences, settings.get("max_new_tokens") or 0, g)
                with self.active(g):
                    made = generated(self.lm, sequences, settings)
                for place, ids in zip(places, made, strict=True):
                    found[place] = ids
        return found

    def answer(
        self, prompts: Sequence[str], /, at: AtRows = None, *, strict: bool = True, **given: Any
    ) -> list[str]:
        """The texts that follow prompts.

        Args:
            prompts: texts.
            at: a granularity, or a list with one for each prompt.
            strict: refuse granularities that were not trained; else warn once.
            given: items by stream, as :meth:`batch` takes them; all else is for generation.
        """
        tokenizer = self.template.tokenizer
        if tokenizer is None:
            raise ConfigError("answers as text need a tokenizer; give PrefixLM(..., tokenizer=...)")
        items = {name: given.pop(name) for name in self.streams.names if name in given}
        batch = self.batch(prompts, **items).moved(next(self.lm.parameters()).device)
        made = self.generate(batch, at, strict=strict, **given)
        return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in made]

    def extract(self, at: At) -> PrefixLM:
        """A copy with the granularities up to ``at``: smaller connectors, and no other adapters."""
        nesting = self.nesting.up_to(self.nesting.resolve(at))
        scales = None if self.adapters is None else Nesting(tuple({self.adapted(g): 0 for g in nesting}))
        lm, adapters = files.copied_language(self.lm, self.adapters, scales)
        encoders, connectors = self.streams.copied(nesting.full, self.lm, lm)
        small = PrefixLM(
            encoders,
            connectors,
            lm,
            tokenizer=self.template.tokenizer,
            template=self.template.text,
            nesting=nesting,
            adapters=adapters,
            padding=self.padding,
            order=self.streams.order,
            decoding=self.decoding,
        )
        return small.train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Of one item of each stream, without text and without the encoders' multiply-adds.

        The output is the prefix that the language model reads, held as float32.
        """
        return cost_of(self, self.nesting.resolve(at))

    def save(self, folder: str | Path, /) -> None:
        """Write the trained parts as a verified folder: connectors, adapters, and weights that are trained.

        Frozen encoders and a frozen language model are not written.
        """
        files.save(self, folder)

    @checked(form=OneOf(get_args(files.Form)))
    def export(self, folder: str | Path, /, at: At = None, *, form: files.Form = "merged") -> None:
        """Write one granularity for others to serve.

        Args:
            folder: gets ``connectors/``, and ``language_model/`` or ``adapter/``.
            at: the granularity.
            form: ``"merged"``, a plain language model of transformers with the adapters in its weights;
                ``"adapter"``, one plain adapter of peft.

        Raises:
            ConfigError: for an adapter of a model without.
        """
        files.export(self, folder, self.nesting.resolve(at), form)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        /,
        encoders: Mapping[str, Callable[..., Any]],
        lm: nn.Module,
        *,
        tokenizer: Any = None,
    ) -> Self:
        """The model that ``save`` wrote, around encoders and a language model like those it was made with.

        Raises:
            ArtifactError: if the folder is torn or altered, or its weights do not fit.
        """
        return cls(encoders, lm=lm, tokenizer=tokenizer, **files.load(folder, encoders, lm))

    def _rows(self, batch: PrefixBatch, at: AtRows, strict: bool) -> list[Granularity]:
        """The granularity of each row."""
        self._check(batch)
        return [self.resolve(size, strict=strict) for size in sizes_of(at, len(batch.ids))]

    def resolve(self, at: At, *, strict: bool = True) -> Granularity:
        """The granularity that ``at`` names.

        Args:
            at: of the nesting, or with ``strict=False`` of any sizes of the connectors.
            strict: refuse granularities that were not trained; else warn once.

        Raises:
            GranularityError: naming those that are allowed.
        """
        return self._trained.resolve(at, self.streams.attainable.resolve, strict=strict)

    def adapted(self, at: At) -> Granularity:
        """The granularity whose adapters are used at another one."""
        assert self.adapters is not None
        return self.adapters.nearest(self.streams.attainable.resolve(at))

    def _check(self, batch: PrefixBatch) -> None:
        table: Any = self.lm.get_input_embeddings()  # type: ignore[operator]
        check_batch(batch, len(self.streams.names), len(table.weight))

    def _text(self, batch: PrefixBatch) -> Tensor:
        table: Any = self.lm.get_input_embeddings()  # type: ignore[operator]
        found: Tensor = table(batch.ids.clamp(min=0))
        return found

    def _runs(
        self,
        batch: PrefixBatch,
        text: Tensor,
        tokens: Mapping[str, Mapping[Granularity, Tokens]],
        rows: Sequence[Granularity],
        *,
        at_end: bool | None = None,
    ) -> Iterator[tuple[list[int], Sequences, Granularity]]:
        """Rows that the language model reads together, their sequences, and the adapters that they need."""
        groups: dict[Any, list[int]] = {}
        for row, g in enumerate(rows):
            groups.setdefault(None if self.adapters is None else self.adapted(g), []).append(row)
        at_end = self.padding == "left" if at_end is None else at_end
        for own, chosen in groups.items():
            ids, mask = batch.ids[chosen], batch.mask[chosen]
            filled = list(self.streams.filled(batch, tokens, rows, chosen))
            sequences = assembled(ids, mask, text[chosen], filled, at_end=at_end)
            yield chosen, sequences, own or rows[chosen[0]]

    def _logits(
        self,
        batch: PrefixBatch,
        text: Tensor,
        tokens: Mapping[str, Mapping[Granularity, Tokens]],
        rows: Sequence[Granularity],
    ) -> Tensor:
        found: list[Tensor] = []
        order: list[int] = []
        for chosen, sequences, g in self._runs(batch, text, tokens, rows):
            check_length(self.lm, sequences, 0, g)
            with self.active(g):
                found.append(logits_at(self.lm, sequences, batch.mask[chosen]))
            order += chosen
        if len(found) == 1:
            return found[0]
        logits = torch.cat(found)
        return torch.empty_like(logits).index_copy(0, torch.tensor(order, device=logits.device), logits)

    def _loss(
        self,
        batch: PrefixBatch,
        features: Encoded,
        rows: Sequence[Granularity],
        active: Callable[[Granularity], AbstractContextManager[Any]],
    ) -> Tensor:
        labels = answers_of(batch)
        text, tokens = self._text(batch), self.streams.tokens(features, rows)
        losses, count = [], 0
        for chosen, sequences, g in self._runs(batch, text, tokens, rows):
            check_length(self.lm, sequences, 0, g)
            with active(g):
                loss, number = answer_losses(self.lm, sequences, labels[chosen])
            losses.append(loss)
            count += number
        if not count:
            raise DataError("each answer is the first id of its row, with nothing before it to learn it from")
        return torch.stack(losses).sum() / count
