"""Masked texts in two views: a low masking rate for the encoder, a high one for the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, Whole, checked
from nestling.cut import name_rows
from nestling.data.tables.text_checks import check_texts
from nestling.errors import ConfigError, DataError

Ints = NDArray[np.int64]
IGNORED = -100
"""The label of positions that are not predicted."""

_SPECIAL = -1
_SHARE_MASKED, _SHARE_RANDOM = 0.8, 0.1


_RATE = Real(above=0, below=1)


@dataclass(frozen=True, eq=False)
@checked(encoder_rate=_RATE, decoder_rate=_RATE, max_length=Whole(3))
class MaskedTexts:
    """Draws masks over whole words.

    The words that the decoder does not see hold those that the encoder does not see. Of the tokens of
    masked words 80 % become the mask, 10 % another token, and 10 % stay; special tokens are never masked.

    Args:
        tokenizer: a fast tokenizer of Hugging Face with a mask and a first token.
        encoder_rate: share of the words that the encoder does not see.
        decoder_rate: share of the words that the decoder does not see.
        max_length: tokens of a text; longer ones are cut at random places.

    Raises:
        ConfigError: for rates outside (0, 1), a decoder's below the encoder's, or a tokenizer that lacks
            one of these tokens.

    Source: Starbucks, arXiv 2410.13230, pre-training; its rates are 0.2 and 0.4.
    """

    tokenizer: Any
    encoder_rate: float = 0.2
    decoder_rate: float = 0.4
    max_length: int = 512

    def __post_init__(self) -> None:
        if self.decoder_rate < self.encoder_rate:
            raise ConfigError(
                f"decoder_rate={self.decoder_rate} is below encoder_rate={self.encoder_rate}; the decoder "
                "must see less than the encoder"
            )
        for name in ("mask_token_id", "cls_token_id"):
            if getattr(self.tokenizer, name, None) is None:
                token = name.removesuffix("_token_id")
                raise ConfigError(f"the tokenizer has no {token} token; use a model for masked words")
        if not getattr(self.tokenizer, "is_fast", False):
            raise ConfigError("whole words need a fast tokenizer; load the model with use_fast=True")

    def batch(self, texts: Sequence[str], generator: np.random.Generator) -> dict[str, Ints]:
        """Masked texts: ``Int64[texts, tokens]`` each.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels`` (the words at masked positions, -100 elsewhere),
            and as the decoder sees them ``decoder_input_ids`` and ``decoder_labels``.

        Raises:
            DataError: for texts without a word to mask, no strings or no whole Unicode; their rows are named.
        """
        encoded = self.tokenizer(check_texts(texts, may_be_blank=True), verbose=False)
        rows = [
            self._row(np.array(ids, np.int64), encoded.word_ids(row), generator)
            for row, ids in enumerate(encoded["input_ids"])
        ]
        empty = [row for row, found in enumerate(rows) if (found["labels"] == IGNORED).all()]
        if empty:
            raise DataError(f"the texts of {name_rows(empty)} have no words to mask; leave them out")
        longest = max(len(row["input_ids"]) for row in rows)
        filled = dict.fromkeys(rows[0], IGNORED) | {"attention_mask": 0}
        filled |= dict.fromkeys(("input_ids", "decoder_input_ids"), self.tokenizer.pad_token_id or 0)

        def padded(row: Ints, value: int) -> Ints:
            return np.pad(row, (0, longest - len(row)), constant_values=value)

        return {name: np.stack([padded(row[name], value) for row in rows]) for name, value in filled.items()}

    def _row(self, ids: Ints, words: Sequence[int | None], generator: np.random.Generator) -> dict[str, Ints]:
        """One text, cut to the room there is, with the words of either mask."""
        place = np.array([_SPECIAL if word is None else word for word in words], np.int64)
        body = np.flatnonzero(place != _SPECIAL)
        if len(ids) > self.max_length:
            room = self.max_length - (len(ids) - len(body))
            start = int(generator.integers(len(body) - room + 1))
            kept = np.sort(np.concatenate([np.flatnonzero(place == _SPECIAL), body[start : start + room]]))
            ids, place = ids[kept], place[kept]
        order = generator.permutation(np.unique(place[place != _SPECIAL]))
        row = {"attention_mask": np.ones(len(ids), np.int64)}
        for prefix, rate in (("", self.encoder_rate), ("decoder_", self.decoder_rate)):
            hidden = np.isin(place, order[: max(1, round(rate * len(order)))])
            row[f"{prefix}labels"] = np.where(hidden, ids, IGNORED)
            row[f"{prefix}input_ids"] = self._masked(ids, hidden, generator)
        return row

    def _masked(self, whole: Ints, hidden: NDArray[np.bool_], generator: np.random.Generator) -> Ints:
        drawn = generator.random(len(whole))
        others = generator.integers(len(self.tokenizer), size=len(whole))
        shown = np.where(hidden & (drawn < _SHARE_MASKED), self.tokenizer.mask_token_id, whole)
        random = hidden & (drawn >= _SHARE_MASKED) & (drawn < _SHARE_MASKED + _SHARE_RANDOM)
        return np.where(random, others, shown).astype(np.int64)
