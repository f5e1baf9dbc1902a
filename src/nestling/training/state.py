"""Nested states split into tensors, for safetensors, and plain values, for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nestling.arguments.formatting import type_of
from nestling.errors import ConfigError

_PLAIN = (bool, int, float, str, type(None))


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON value and named tensors from which :func:`unpack` makes ``tree`` again.

    The tree may nest dicts (of any plain keys, as the states of optimisers have), lists and tuples;
    its leaves are tensors, numbers, text and None.

    Raises:
        ConfigError: for a leaf of another type, which only pickle could save; the message has its path.

    >>> value, tensors = pack({"step": 3, 0: (1.5, None)})
    >>> unpack(value, tensors)
    {'step': 3, 0: (1.5, None)}
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, (), tensors), tensors


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of :func:`pack`."""
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    items = [unpack(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def _pack(tree: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        name = "/".join(path)
        while name in tensors:
            name += "'"
        # A clone, because safetensors refuses tensors that share memory, as tied weights do.
        tensors[name] = tree.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(tree, Mapping):
        return {"dict": [[key, _pack(item, (*path, str(key)), tensors)] for key, item in tree.items()]}
    if isinstance(tree, (list, tuple)):
        items = [_pack(item, (*path, str(place)), tensors) for place, item in enumerate(tree)]
        return {"tuple" if isinstance(tree, tuple) else "list": items}
    if isinstance(tree, _PLAIN):
        return tree
    raise ConfigError(
        f"the state holds {type_of(tree)} at {'/'.join(path) or 'its root'}, which only pickle "
        "could save; let get_extra_state() return tensors, numbers, text, or dicts and lists of them"
    )
