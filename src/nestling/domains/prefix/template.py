"""The template of a row: where items, the prompt and the answer stand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, TypeAlias

from nestling.arguments.formatting import shown
from nestling.domains.prefix.batches import IGNORED, Ids, PrefixBatch, padded, place_of, read_items
from nestling.errors import ConfigError, DataError, unknown

Text: TypeAlias = str | Sequence[int]
"""Text for the tokenizer, or ids; negative ids are places."""
PROMPT = "{prompt}"


@dataclass(frozen=True)
class Template:
    r"""Makes rows of ids.

    A prompt may hold places of its own, ``<image>`` for a stream ``image``; those of the template for that
    stream are left out then.

    Args:
        streams: their names; the place of each is written ``<name>``.
        text: ``{prompt}`` and the places of items, such as ``"<image>\n{prompt}"``; all places and then
            the prompt by default.
        tokenizer: of transformers; None if prompts and answers are ids.

    Raises:
        ConfigError: if the text does not hold ``{prompt}`` once, or needs a tokenizer.
    """

    streams: tuple[str, ...]
    text: str = ""
    tokenizer: Any = None
    _parts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = self.text or "".join(f"<{name}>" for name in self.streams) + PROMPT
        object.__setattr__(self, "text", text)
        if text.count(PROMPT) != 1:
            raise ConfigError(f"template={text!r} must hold {PROMPT} once, where the prompt stands")
        parts = tuple(part for part in re.split(f"({self._places}|{re.escape(PROMPT)})", text) if part)
        object.__setattr__(self, "_parts", parts)
        if self.tokenizer is None and any(part != PROMPT and not self._is_place(part) for part in parts):
            raise ConfigError(f"template={text!r} holds text, which needs tokenizer=")

    def row(
        self, prompt: Text, answer: Text | None, counts: Mapping[str, int], number: int
    ) -> tuple[Ids, Ids]:
        """The ids of a row and its labels.

        Args:
            prompt: text, or ids.
            answer: text, or ids; the tokenizer's end of text is put behind text.
            counts: the number of items of each stream.
            number: of the row, for errors.

        Raises:
            DataError: if the prompt has another number of places than there are items.
        """
        given = self._ids(prompt)
        ids = self._start() if isinstance(prompt, str) else []
        for part in self._parts:
            if part == PROMPT:
                ids += given
            elif self._is_place(part):
                name, place = part[1:-1], self._place(part[1:-1])
                ids += [place] * (0 if place in given else counts[name])
            else:
                ids += self._tokens(part)
        self._check_places(ids, counts, number)
        if answer is None:
            return ids, [IGNORED] * len(ids)
        answered = self._ids(answer)
        if isinstance(answer, str) and self.tokenizer.eos_token_id is not None:
            answered = [*answered, self.tokenizer.eos_token_id]
        if not answered:
            raise DataError(f"the answer of row {number} is empty, so there is nothing to learn from it")
        if min(answered) < 0:
            raise DataError(f"the answer of row {number} holds a place of an item; answers are text")
        return ids + answered, [IGNORED] * len(ids) + answered

    def batch(
        self, prompts: Sequence[Text], answers: Sequence[Text] | None, items: Mapping[str, Any]
    ) -> PrefixBatch:
        """Rows and their items; see :meth:`PrefixLM.batch`."""
        for name, given in (("prompts", prompts), ("answers", answers)):
            if isinstance(given, str):
                raise DataError(f"{name} must be a list, one a row, not the text {shown(given)}")
        if not prompts:
            raise DataError("there are no prompts; give at least one")
        if answers is not None and len(answers) != len(prompts):
            raise DataError(f"{len(prompts)} prompts need as many answers, not {len(answers)}")
        check_streams(items, self.streams)
        read = {name: read_items(name, items.get(name), len(prompts)) for name in self.streams}
        rows = []
        for number, prompt in enumerate(prompts):
            counts = {name: count[number] for name, (_, count) in read.items()}
            rows.append(self.row(prompt, None if answers is None else answers[number], counts, number))
        given_items = {name: given for name, (given, _) in read.items()}
        return padded(rows, given_items, has_labels=answers is not None)

    @property
    def _places(self) -> str:
        return "|".join(re.escape(f"<{name}>") for name in self.streams)

    def _is_place(self, part: str) -> bool:
        return part in {f"<{name}>" for name in self.streams}

    def _place(self, name: str) -> int:
        return place_of(self.streams.index(name))

    def _ids(self, text: Text) -> Ids:
        """Text as ids, with places."""
        if not isinstance(text, str):
            try:
                ids = [index(each) for each in text]
            except TypeError as error:
                raise DataError(f"{shown(text)} is neither text nor a list of ids") from error
            if ids and min(ids) < place_of(len(self.streams) - 1):
                raise DataError(f"{min(ids)} is no id; {len(self.streams)} streams have places from -1 down")
            return ids
        if self.tokenizer is None:
            raise ConfigError("text needs a tokenizer; give PrefixLM(..., tokenizer=...), or ids")
        ids = []
        for part in re.split(f"({self._places})", text):
            ids += [self._place(part[1:-1])] if self._is_place(part) else self._tokens(part)
        return ids

    def _tokens(self, text: str) -> Ids:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def _start(self) -> Ids:
        """The begin of text, where the tokenizer puts one."""
        first = list(self.tokenizer("").input_ids)[:1]
        return first if first and first[0] == self.tokenizer.bos_token_id else []

    def _check_places(self, ids: Ids, counts: Mapping[str, int], number: int) -> None:
        for name in self.streams:
            places = ids.count(self._place(name))
            if places != counts[name]:
                raise DataError(
                    f"row {number} has {places} places <{name}> and {counts[name]} items of {name}; give an "
                    "item for each place, or a prompt without places, which gets one for each item"
                )


def check_streams(given: Mapping[str, Any], streams: Sequence[str]) -> None:
    """Refuse items of streams that there are not.

    Raises:
        DataError: naming those that there are.
    """
    for name in given:
        if name not in streams:
            raise DataError(unknown("stream", name, streams))
