"""Speech recognition by a language model that reads as many tokens of sound and of lips as are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import Real, checked
from nestling.arguments.paths import home_path
from nestling.domains.prefix import PrefixBatch, PrefixLM
from nestling.domains.prefix.batches import AtRows
from nestling.domains.speech.connectors import Projection, connector
from nestling.domains.speech.encoders import StreamEncoder
from nestling.domains.speech.pretrained import Parts
from nestling.domains.speech.recordings import (
    Recordings,
    check_seconds,
    common_seconds,
    cut,
    lower_cased,
    recordings,
)
from nestling.errors import ArtifactError, ConfigError, DataError, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.device import fastest_device
from nestling.nn.lora import ScaleAdapters, Strategy
from nestling.nn.tokens import SequencePool
from nestling.storage.artifact import read_folder, write_folder

PROMPTS = {
    "audio": "Transcribe speech to text.",
    "video": "Transcribe video to text.",
    "audio+video": "Transcribe speech and video to text.",
}
_KIND = "recogniser"
_MODEL, _LANGUAGE = "model", "language_model"


class Recogniser:
    """A :class:`~nestling.domains.prefix.model.PrefixLM` with recordings in and transcripts out.

    Its streams are those of its encoders, ``audio`` and ``video``; one of them may be left out at any use.
    Inputs are checked in seconds.

    Args:
        model: its encoders are of :class:`~nestling.domains.speech.encoders.StreamEncoder`, and its
            connectors begin with a :class:`~nestling.nn.tokens.sequence_pool.SequencePool`.
        prompts: the prompt by the streams that are given: ``"audio"``, ``"video"`` and ``"audio+video"``.
        parts: names of the models that it is made around, which ``save`` writes down for ``open``.

    Source: Llama-MTSK, arXiv 2503.06362.
    """

    def __init__(
        self, model: PrefixLM, prompts: Mapping[str, str] = PROMPTS, parts: Parts | None = None
    ) -> None:
        self.model, self.prompts, self.parts = model, dict(prompts), parts
        self.streams: tuple[str, ...] = model.streams.names
        for stream in self.streams:
            if not isinstance(self.pool(stream), SequencePool):
                raise ConfigError(f"the connector of {stream} must begin with a SequencePool")
            if not isinstance(self.encoder(stream), StreamEncoder):
                raise ConfigError(f"the encoder of {stream} must be a StreamEncoder, which knows its rate")

    @classmethod
    def around(
        cls,
        lm: nn.Module,
        tokenizer: Any,
        encoders: Sequence[StreamEncoder],
        rates: Mapping[str, Sequence[int]],
        *,
        strategy: Strategy | None = "ss",
        rank: int = 64,
        alpha: float = 8.0,
        mode: Literal["mean", "stack"] = "mean",
        projection: Projection = "scale",
        hidden: int = 2048,
        nesting: Nesting | str | None = None,
        prompts: Mapping[str, str] = PROMPTS,
        decoding: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Self:
        """Frozen encoders and a frozen language model, with connectors and adapters to be trained.

        Args:
            lm: a causal language model of transformers; changed, see
                :class:`~nestling.nn.lora.ScaleAdapters`.
            tokenizer: of it.
            encoders: one or several.
            rates: vectors per token, by stream.
            strategy: of the adapters; None trains none.
            rank: of an adapter.
            alpha: an adapter is scaled by ``alpha / rank``.
            mode: see :func:`connector`.
            projection: see :func:`connector`.
            hidden: see :func:`connector`.
            nesting: the granularities that are trained; all combinations of the rates by default.
            prompts: see :class:`Recogniser`.
            decoding: of :class:`~nestling.domains.prefix.model.PrefixLM`; saved with the model.
            seed: of the adapters.
        """
        by_stream = {encoder.stream: encoder for encoder in encoders}
        if set(by_stream) != set(rates) or len(by_stream) != len(encoders):
            raise ConfigError(
                f"each stream needs one encoder and its rates, but the encoders are of "
                f"{', '.join(encoder.stream for encoder in encoders)} and rates names {', '.join(rates)}"
            )
        for module in (lm, *encoders):
            module.requires_grad_(False)
        table: Any = lm.get_input_embeddings()  # type: ignore[operator]
        width = table.weight.shape[1]
        connectors = {
            stream: connector(encoder, rates[stream], width, mode=mode, projection=projection, hidden=hidden)
            for stream, encoder in by_stream.items()
        }
        if len(tokenizer) > table.weight.shape[0]:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and the language model {table.weight.shape[0]} "
                "embeddings; new tokens need lm.resize_token_embeddings, and their rows have to be trained, "
                "or use a tokenizer without new tokens"
            )
        settings: dict[str, Any] = {"tokenizer": tokenizer, "decoding": decoding, "nesting": nesting}
        bare = PrefixLM(by_stream, connectors, lm, **settings)
        if strategy is None:
            return cls(bare, prompts)
        adapters = ScaleAdapters(lm, bare.nesting, strategy, rank=rank, alpha=alpha, seed=seed)
        return cls(PrefixLM(by_stream, connectors, lm, adapters=adapters, **settings), prompts)

    @property
    def nesting(self) -> Nesting:
        """The granularities that are trained."""
        return self.model.nesting

    def encoder(self, stream: str) -> Any:
        """The encoder of a stream."""
        return self.model.streams.encoder(stream).encoder

    def pool(self, stream: str) -> SequencePool:
        """The pooling of a stream, which knows the rate of each size."""
        first: Any = self.model.streams.connector(stream).parts[0]
        return first  # type: ignore[no-any-return]

    def at_rates(self, **rates: int) -> Granularity:
        """The granularity of vectors per token, by stream: ``at_rates(audio=16, video=5)``.

        Streams that are not named are used in full.

        Raises:
            GranularityError: for a rate that is not of the model.
            ConfigError: for a stream that it does not have.
        """
        return self.model.nesting.resolve(self.sizes(**rates))

    def sizes(self, **rates: int) -> Granularity:
        """The granularity of rates, also of those that are not trained.

        Raises:
            GranularityError: for a rate that a pool is not made for.
            ConfigError: for a stream that the model does not have.
        """
        for stream in rates:
            if stream not in self.streams:
                raise ConfigError(unknown("stream", stream, self.streams))
        found: dict[str, int] = {}
        for stream, rate in rates.items():
            found |= dict(self.pool(stream).at_rate(rate))
        return Granularity(**found)

    def batch(
        self,
        texts: Sequence[str] | None = None,
        *,
        audio: Any = None,
        video: Any = None,
        sample_rate: int | None = None,
        at: At = None,
        strict: bool = True,
        trim: bool = False,
    ) -> PrefixBatch:
        """Recordings, and texts to learn from, as a batch of the model.

        Args:
            texts: lower-cased; None to transcribe.
            audio: recordings from -1 to 1: ``Float[batch, samples]``, or a list of ``Float[samples]``; None
                drops the stream.
            video: clips ``[batch, frames, height, width]``, or a list of ``[frames, height, width]``.
            sample_rate: of the sound; must be that of the encoder.
            at: the granularity whose tokens the recordings must be long enough for; by default the coarsest.
            strict: refuse a granularity that was not trained; else warn once.
            trim: cut sound and video to the same length, if they differ by more than a token.

        Raises:
            DataError: for recordings that are too short, of different lengths, or of another sample rate, or
                empty texts.
        """
        grain = self.model.nesting[0] if at is None else self.model.resolve(at, strict=strict)
        return self._batch(texts, {"audio": audio, "video": video}, sample_rate, grain, trim)

    def _batch(
        self,
        texts: Sequence[str] | None,
        streams: Mapping[str, Any],
        sample_rate: int | None,
        grain: Granularity,
        trim: bool,
    ) -> PrefixBatch:
        """See :meth:`batch`; ``grain`` may be no member of the nesting, but has sizes of it."""
        given = {name: each for name, each in streams.items() if each is not None}
        for stream in given:
            if stream not in self.streams:
                raise DataError(f"{unknown('stream', stream, self.streams)}; leave {stream} out")
        if not given:
            raise DataError(f"there is nothing to transcribe; give {' or '.join(self.streams)}")
        self._check_sample_rate(sample_rate, given)
        items = {stream: recordings(each, stream) for stream, each in given.items()}
        if len({len(each.lengths) for each in items.values()}) > 1:
            counts = ", ".join(f"{len(each.lengths)} of {stream}" for stream, each in items.items())
            raise DataError(f"each row needs one recording of each stream, but there are {counts}")
        if len(items) > 1:
            items = self._aligned(items, grain, trim)
        self._check_lengths(items, grain)
        rows = len(next(iter(items.values())).lengths)
        return self.model.batch(
            [self._prompt(items)] * rows,
            None if texts is None else lower_cased(texts),
            **{stream: each._asdict() for stream, each in items.items()},
        )

    @checked(drop=Real(least=0, most=1))
    def collate(
        self, texts: Sequence[str], *, drop: float = 0.0, **streams: Any
    ) -> Callable[[list[int]], PrefixBatch]:
        """Batches of rows, for ``fit(model, model.objective(), range(len(texts)), collate=...)``.

        Args:
            texts: of all rows.
            drop: share of the batches that lose one of their streams at random (modality dropout), so that
                the model learns to do without.
            streams: the recordings of all rows, see :meth:`batch`.
        """
        items = {stream: recordings(each, stream) for stream, each in streams.items()}
        for stream, each in items.items():
            if stream not in self.streams:
                raise DataError(f"{unknown('stream', stream, self.streams)}; leave {stream} out")
            if len(each.lengths) != len(texts):
                raise DataError(f"{len(texts)} texts need as many {stream}, not {len(each.lengths)}")

        def batch(rows: list[int]) -> PrefixBatch:
            kept = list(items)
            if len(kept) > 1 and float(torch.rand(())) < drop:
                del kept[int(torch.randint(len(kept), ()))]
            chosen: dict[str, Any] = {
                stream: Recordings(*(each[rows] for each in items[stream])) for stream in kept
            }
            return self.batch([texts[row] for row in rows], **chosen)

        return batch

    def transcribe(
        self,
        *,
        audio: Any = None,
        video: Any = None,
        sample_rate: int | None = None,
        at: AtRows = None,
        strict: bool = True,
        trim: bool = False,
        **decoding: Any,
    ) -> list[str]:
        """The texts of recordings; see :meth:`batch`.

        Args:
            audio: recordings.
            video: clips.
            sample_rate: of the sound.
            at: the granularity, or a list with one for each recording; see also :meth:`at_rates` and
                :meth:`sizes`.
            strict: refuse granularities that were not trained; else warn once.
            trim: cut both streams to the same length.
            decoding: in the place of the decoding that was saved with the model.
        """
        given: Any = at if isinstance(at, (list, tuple)) else [at]
        wanted = [self.model.resolve(each, strict=strict) for each in given]
        axes = self.model.nesting.axes
        coarsest = Granularity(**{axis: min(g[axis] for g in wanted) for axis in axes})
        batch = self._batch(None, {"audio": audio, "video": video}, sample_rate, coarsest, trim)
        device = next(self.model.lm.parameters()).device
        ids = self.model.generate(batch.moved(device), at, strict=strict, **decoding)
        tokenizer = self.model.template.tokenizer
        return [tokenizer.decode(each, skip_special_tokens=True).strip() for each in ids]

    def extract(self, at: At) -> Recogniser:
        """A copy with the granularities up to ``at``; a single one has its adapters in the weights."""
        small, parts = self.model.extract(at), self.parts
        is_merged = self.model.adapters is not None and small.adapters is None
        if parts is not None and is_merged:
            parts = replace(parts, language_model=None)
        return Recogniser(small, self.prompts, parts)

    def save(self, folder: str | Path, /) -> None:
        """Write the trained parts, the prompts and the decoding as a verified folder."""
        parts = self.parts
        settings = {"prompts": self.prompts, "parts": None if parts is None else asdict(parts)}
        with write_folder(folder, _KIND, nesting=self.nesting, settings=settings) as path:
            self.model.save(path / _MODEL)
            if parts is not None and parts.language_model is None:
                language: tuple[Any, Any] = (self.model.lm, self.model.template.tokenizer)
                for each in language:
                    each.save_pretrained(str(path / _LANGUAGE))

    @classmethod
    def open(cls, folder: str | Path, /) -> Self:
        """What ``save`` wrote, around the models that it names, on a GPU where there is one.

        Raises:
            ArtifactError: if the folder is torn or altered, or names no models.
            DataError: if these are not there.
        """
        parts = read_folder(folder, _KIND).settings.get("parts")
        if parts is None:
            raise ArtifactError(
                f"{folder} names no encoder and language model; use Recogniser.load, or save it with parts="
            )
        named = Parts(**parts)
        lm, tokenizer = named.open_language_model(home_path(folder) / _LANGUAGE)
        found = cls.load(folder, [named.open_encoder()], lm, tokenizer)
        found.model.to(fastest_device())
        found.parts = named
        return found

    @classmethod
    def load(
        cls, folder: str | Path, /, encoders: Sequence[StreamEncoder], lm: nn.Module, tokenizer: Any
    ) -> Self:
        """What ``save`` wrote, around encoders and a language model like those it was made with.

        Raises:
            ArtifactError: if the folder is torn or altered, or its weights do not fit.
        """
        manifest = read_folder(folder, _KIND)
        for module in (lm, *encoders):
            module.requires_grad_(False)
        by_stream = {encoder.stream: encoder for encoder in encoders}
        model = PrefixLM.load(home_path(folder) / _MODEL, by_stream, lm, tokenizer=tokenizer)
        return cls(model, manifest.settings["prompts"])

    def _prompt(self, given: Collection[str]) -> str:
        streams = "+".join(stream for stream in self.streams if stream in given)
        if streams not in self.prompts:
            raise ConfigError(
                f"prompts has none for {streams!r} alone, only for {', '.join(map(repr, self.prompts))}; "
                "give Recogniser a prompt for it too"
            )
        return self.prompts[streams]

    def _check_sample_rate(self, sample_rate: int | None, given: Mapping[str, Any]) -> None:
        if sample_rate is None or "audio" not in given:
            return
        wanted = self.encoder("audio").sample_rate
        if sample_rate != wanted:
            raise DataError(
                f"sound of sample_rate={sample_rate} was given, and the encoder takes {wanted} samples a "
                "second; resample it first"
            )

    def _per_second(self, stream: str) -> int:
        """Samples or frames of an input in a second."""
        encoder = self.encoder(stream)
        return int(encoder.sample_rate if stream == "audio" else encoder.per_second)

    def _seconds(self, items: Mapping[str, Recordings]) -> dict[str, Tensor]:
        """The length of each item of each stream."""
        return {stream: each.lengths / self._per_second(stream) for stream, each in items.items()}

    def _aligned(self, items: dict[str, Recordings], at: Granularity, trim: bool) -> dict[str, Recordings]:
        """Sound and video of equal lengths, up to a token, or cut to that."""
        token = min(self.pool(s).rate(self._own(s, at)) / self.encoder(s).per_second for s in items)
        shortest = common_seconds(self._seconds(items), token, trim)
        if shortest is None:
            return items
        return {
            stream: cut(each, torch.round(shortest * self._per_second(stream)).long())
            for stream, each in items.items()
        }

    def _check_lengths(self, items: Mapping[str, Recordings], at: Granularity) -> None:
        for stream, seconds in self._seconds(items).items():
            rate = self.pool(stream).rate(self._own(stream, at))
            check_seconds(stream, seconds, rate, rate / self.encoder(stream).per_second)

    def _own(self, stream: str, at: Granularity) -> Granularity:
        return self.model.streams.own(stream, at)
