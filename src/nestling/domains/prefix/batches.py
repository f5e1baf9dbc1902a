"""Batches of text with places for pictures, clips or utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from nestling.arguments.formatting import shown, type_of
from nestling.errors import DataError, GranularityError
from nestling.granularity import At
from nestling.nn.tokens.tokens import Tokens

IGNORED = -100
"""The label of what is not part of an answer."""

Ids: TypeAlias = list[int]
AtRows: TypeAlias = At | Sequence[At]
"""A granularity for all rows, or a list with one for each."""


class PrefixBatch(NamedTuple):
    """Texts as ids, with places for items, and the items.

    A place is a negative id: -1 for an item of the first stream, -2 for one of the second, and so on. Items
    fill the places of their stream row by row, from left to right. A row may have any number of places, or
    none. The places of a stream without items are left out.

    Args:
        ids: ``Int[batch, length]``.
        mask: ``Bool[batch, length]``, False for padding.
        items: the inputs of each encoder, by stream: one item a place; None drops the stream.
        labels: ``Int[batch, length]``, the ids of answers, and -100 elsewhere; None without answers. Those at
            places and at padding do not count.
    """

    ids: Tensor
    mask: Tensor
    items: dict[str, Any]
    labels: Tensor | None = None

    def moved(self, device: torch.device | str) -> PrefixBatch:
        """The batch with all tensors on a device."""
        moved: PrefixBatch = tree_map(
            lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, self
        )
        return moved


def place_of(number: int) -> int:
    """The id of a place of stream ``number``."""
    return -1 - number


def check_batch(batch: PrefixBatch, streams: int, vocabulary: int) -> None:
    """Refuse a batch whose tensors do not fit together, or whose ids are none of a language model.

    Args:
        batch: of any make.
        streams: their number.
        vocabulary: the number of ids of the language model.

    Raises:
        DataError: naming the field.
    """
    if not isinstance(batch, PrefixBatch):
        raise DataError(f"a batch is a PrefixBatch, as batch(prompts, ...) makes it, not {type_of(batch)}")
    _check_ids("ids", batch.ids, place_of(streams - 1), vocabulary)
    if not isinstance(batch.mask, Tensor) or batch.mask.dtype != torch.bool:
        raise DataError(f"mask must be Bool[batch, length], False for padding, not {_described(batch.mask)}")
    if batch.labels is not None:
        _check_ids("labels", batch.labels, IGNORED, vocabulary)
    for name, given in (("mask", batch.mask), ("labels", batch.labels)):
        if given is not None and given.shape != batch.ids.shape:
            raise DataError(f"{name} has the shape {tuple(given.shape)}, and ids {tuple(batch.ids.shape)}")


def sizes_of(at: AtRows, rows: int) -> list[At]:
    """The size of each row.

    Raises:
        DataError: for a list of another length.
        GranularityError: for several sizes in one row.
    """
    each: list[At] = list(at) if isinstance(at, (list, tuple)) else [at] * rows  # type: ignore[list-item]
    if len(each) != rows:
        raise DataError(f"at is a list of {len(each)} for {rows} rows; give one a row, or one for all")
    for row, size in enumerate(each):
        if isinstance(size, (list, tuple)):
            raise GranularityError(
                f"at={shown(size)} of row {row} is a list, but all items of a row have one size; put items "
                "of different sizes into different rows"
            )
    return each


def answers_of(batch: PrefixBatch) -> Tensor:
    """The labels ``Int[batch, length]`` of what can be learned: text, and neither padding nor places.

    Raises:
        DataError: if there are none.
    """
    labels = None
    if batch.labels is not None:
        labels = batch.labels.masked_fill(~batch.mask | (batch.ids < 0), IGNORED)
    if labels is None or not bool((labels != IGNORED).any()):
        raise DataError(
            "the batch has no answer to learn from; make it with batch(prompts, answers, ...), or give "
            "labels that are not all -100"
        )
    return labels


def padded(rows: Sequence[tuple[Ids, Ids]], items: dict[str, Any], *, has_labels: bool) -> PrefixBatch:
    """Rows of ids and labels as a batch, padded at the end."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for number, (row, answer) in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        labels[number, : len(row)] = torch.tensor(answer, dtype=torch.long)
        mask[number, : len(row)] = True
    return PrefixBatch(ids, mask, items, labels if has_labels else None)


def read_items(stream: str, given: Any, rows: int) -> tuple[Any, list[int]]:
    """The items of a stream as its encoder takes them, and their number in each row.

    Args:
        stream: its name.
        given: None; one item a row as a tensor, array, ``Tokens`` or mapping of them; or a list with an item,
            None or a list of items for each row.
        rows: of the batch.

    Raises:
        DataError: for another number of rows, or items of different shapes.
    """
    if given is None:
        return None, [0] * rows
    if isinstance(given, np.ndarray):
        given = torch.from_numpy(given)
    if isinstance(given, (Tensor, Tokens, Mapping)):
        count = _rows_of(given)
        if count != rows:
            raise DataError(f"{stream} holds {count} items for {rows} prompts; give one a prompt, or a list")
        return given, [1] * rows
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise DataError(
            f"{stream} must be a tensor with one item a prompt, or a list with an item, a list of items or "
            f"None for each prompt, not {type_of(given)}"
        )
    if len(given) != rows:
        raise DataError(f"{stream} is a list of {len(given)} for {rows} prompts; give an entry a prompt")
    listed = [list(_items_of(stream, entry)) for entry in given]
    counts = [len(each) for each in listed]
    items = [item for each in listed for item in each]
    return (_stacked(stream, items) if items else None), counts


def _rows_of(given: Tensor | Tokens | Mapping[str, Any]) -> int:
    first = given.values if isinstance(given, Tokens) else given
    if isinstance(first, Mapping):
        first = next(iter(first.values()))
    return len(first)


def _items_of(stream: str, entry: Any) -> Iterator[Tensor]:
    """The items of one row."""
    if entry is None:
        return
    for each in entry if isinstance(entry, (list, tuple)) else [entry]:
        if not isinstance(each, (Tensor, np.ndarray)):
            raise DataError(
                f"an item of {stream} must be a tensor or an array, not {shown(each)}; read and preprocess "
                "files first"
            )
        yield torch.as_tensor(each)


def _stacked(stream: str, items: list[Tensor]) -> Tensor | Tokens:
    """Items in one tensor; sequences of vectors of different lengths are padded, with a mask."""
    shapes = {tuple(item.shape) for item in items}
    if len(shapes) == 1:
        return torch.stack(items)
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise DataError(
            f"the items of {stream} have the shapes {', '.join(map(str, sorted(shapes)))}; give items of one "
            "shape, or vectors [frames, width] of one width, which are padded"
        )
    lengths = torch.tensor([len(item) for item in items])
    values = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
    return Tokens(values, torch.arange(values.shape[1]) < lengths[:, None])


def _check_ids(name: str, given: Any, least: int, vocabulary: int) -> None:
    """Refuse anything but ``Int[batch, length]`` from ``least`` to the last id of the vocabulary."""
    if not isinstance(given, Tensor) or given.ndim != 2 or given.dtype not in (torch.int32, torch.int64):
        raise DataError(f"{name} must be Int[batch, length], not {_described(given)}")
    for each in (int(given.min()), int(given.max())) if given.numel() else ():
        if not least <= each < vocabulary:
            raise DataError(
                f"{name} hold {each}, but the language model has the ids 0 to {vocabulary - 1}, and {least} "
                "is the lowest that stands for something else; use the tokenizer of the model"
            )


def _described(given: Any) -> str:
    return f"{given.dtype} of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type_of(given)
