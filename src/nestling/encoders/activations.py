"""Activations of named layers of any torch module, one row per input."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Whole, check, checked
from nestling.arguments.formatting import type_of
from nestling.arguments.paths import home_path
from nestling.cut import RAW
from nestling.elastic import resolve_each
from nestling.encoders.pools import PoolName
from nestling.encoders.texts import check_texts, prompt_of
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.inference import evaluating
from nestling.process.blocks import blocks
from nestling.process.progress import Progress
from nestling.storage.artifact import open_array, write_folder
from nestling.storage.npy import write_header

Pool: TypeAlias = PoolName | Callable[[Tensor], Tensor] | None
Matrix = NDArray[np.float32]

_KIND = "activations"
_MASK = "attention_mask"
_NAMED_OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
_NEAR = 5


@checked(batch_size=Whole(1))
def activations(
    module: nn.Module,
    inputs: Any,
    layers: str | Iterable[str],
    *,
    batch_size: int = 64,
    pool: Pool = None,
    folder: str | Path | None = None,
) -> dict[str, Matrix]:
    """The outputs of named layers, ``Float32[n, features]`` each, from one pass over the inputs.

    The module runs in evaluation mode and without gradients; afterwards its modes are restored and all hooks
    removed. If a layer runs several times in a pass, its last output counts. From outputs with several
    parts (tuples, dataclasses, mappings) the vectors of texts or tokens are taken, else the first floating
    tensor.

    Args:
        module: anything that takes ``inputs``; a SentenceTransformer takes texts.
        inputs: n of them: an array or tensor, whose numbers are brought to the device and precision of the
            weights; a mapping of such, given as keywords (``input_ids``, ``attention_mask``); or texts.
        layers: names as ``module.named_modules()`` has them, or patterns: ``*`` stands for any part between
            two dots, so ``"blocks.*"`` names the blocks but nothing inside of them. ``""`` is the module.
        batch_size: inputs at a time.
        pool: pooling of one output to one row: ``"flatten"``; ``"mean"`` over positions (the second of three
            axes, or all after the second of more), padding left out where there is an attention mask;
            ``"first"`` position; or a function ``Float[batch, ...] -> Float[batch, features]``. By default
            the mean where there is an attention mask of the output's tokens, and else flat.
        folder: write a verified folder of ``.npy`` files as the inputs pass, and give memory maps of them,
            so that memory holds one batch.

    Returns:
        By name, in the order in which ``named_modules`` lists them.

    Raises:
        ConfigError: for names that match nothing (the nearest are named), or an unknown pool.
        DataError: for no inputs, a layer that did not run, or whose output is not one row of one size for
            each input.
        StorageError: if the folder cannot be written; nothing half-written remains.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> {name: found.shape for name, found in activations(net, np.zeros((5, 4)), ["0", "2"]).items()}
    {'0': (5, 3), '2': (5, 2)}
    """
    names = layer_names(module, layers)
    if isinstance(pool, str):
        check("pool", pool, OneOf(get_args(PoolName)))
    batches = _batches(module, inputs, names, batch_size, pool)
    with evaluating(module):
        if folder is None:
            return _held(batches, len(_rows_of(inputs)))
        return _written(batches, len(_rows_of(inputs)), names, home_path(folder))


def layer_names(module: nn.Module, patterns: str | Iterable[str]) -> tuple[str, ...]:
    """The layers of a module that names or patterns mean, in the order of ``named_modules``.

    Raises:
        ConfigError: for no names, or one that means no layer; the nearest are named.

    >>> layer_names(nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU()), "*")
    ('0', '1')
    """
    asked = [patterns] if isinstance(patterns, str) else list(patterns)
    known = [name for name, _ in module.named_modules()]
    if not asked:
        raise ConfigError(f"name at least one layer, such as {known[-1]!r}")
    found: set[str] = set()
    for pattern in asked:
        matching = {name for name in known if _matches(name, pattern)}
        if not matching:
            near = difflib.get_close_matches(pattern, known, n=_NEAR, cutoff=0.4) or known[1 : 1 + _NEAR]
            raise ConfigError(
                f"no layer is called {pattern!r}; near are {', '.join(map(repr, near))}; "
                f"module.named_modules() has all {len(known)}"
            )
        found |= matching
    return tuple(name for name in known if name in found)


class ModuleLayers:
    """Named layers of any torch module as an axis: ``layer=3`` returns the activations of the third.

    ``sweep(ModuleLayers(model, "blocks.*"), Fidelity(pictures))`` compares each layer with the last.

    Args:
        module: see :func:`activations`.
        layers: names or patterns; they count in the order of ``module.named_modules()``.
        pool: see :func:`activations`.
        batch_size: inputs at a time.

    Raises:
        ConfigError: for names that match nothing.
    """

    rule = RAW

    def __init__(
        self, module: nn.Module, layers: str | Iterable[str], *, pool: Pool = None, batch_size: int = 64
    ) -> None:
        self.module, self.pool, self.batch_size = module, pool, batch_size
        self.layers = layer_names(module, layers)
        self.nesting = Nesting.chain(layer=range(1, len(self.layers) + 1))

    def __call__(self, x: Any, /, at: At = None) -> Matrix:
        """Activations of one layer, ``Float32[n, features]``."""
        granularity = self.nesting.resolve(at)
        return self.forward_each(x, [granularity])[granularity]

    def forward_each(self, x: Any, /, granularities: Iterable[At] | None = None) -> dict[Granularity, Matrix]:
        """Activations of several layers, from one pass over any number of inputs."""
        wanted = resolve_each(self.nesting, granularities)
        names = {g: self.layers[g["layer"] - 1] for g in wanted}
        found = activations(self.module, x, list(names.values()), batch_size=self.batch_size, pool=self.pool)
        return {g: found[name] for g, name in names.items()}

    encode_each = forward_each


def _matches(name: str, pattern: str) -> bool:
    """Whether each part of a dotted name matches that of the pattern; the whole module has no part."""
    parts, patterns = (text.split(".") if text else [] for text in (name, pattern))
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _rows_of(inputs: Any) -> Any:
    """A part of the inputs with one row per input.

    Raises:
        DataError: for none, or for parts of different length.
    """
    parts = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise DataError(f"the parts of the inputs have {sorted(lengths)} rows; give as many of each")
    if not lengths or lengths == {0}:
        raise DataError("there are no inputs; give at least one")
    return parts[0]


def _held(batches: Iterable[tuple[slice, dict[str, Matrix]]], total: int) -> dict[str, Matrix]:
    """All batches in memory."""
    found: dict[str, Matrix] = {}
    for rows, answers in batches:
        for name, part in answers.items():
            if name not in found:
                found[name] = np.empty((total, part.shape[1]), np.float32)
            found[name][rows] = part
    return found


def _written(
    batches: Iterable[tuple[slice, dict[str, Matrix]]], total: int, names: Sequence[str], folder: Path
) -> dict[str, Matrix]:
    """All batches in files, written as streams: a full disk is then an error that can be caught."""
    files = {name: f"{place:03d}-{name.replace('/', '_') or 'all'}.npy" for place, name in enumerate(names)}
    with write_folder(folder, _KIND, settings={"layers": files}) as path, ExitStack() as opened:
        streams = {name: opened.enter_context((path / file).open("wb")) for name, file in files.items()}
        for rows, answers in batches:
            for name, part in answers.items():
                if rows.start == 0:
                    write_header(streams[name], (total, part.shape[1]), np.dtype("<f4"))
                streams[name].write(np.ascontiguousarray(part, "<f4").data)
    return {name: open_array(folder / file) for name, file in files.items()}


def _batches(
    module: nn.Module, inputs: Any, names: Sequence[str], batch_size: int, pool: Pool
) -> Iterator[tuple[slice, dict[str, Matrix]]]:
    """Activations of the layers, batch by batch; checks that the width of each layer is constant."""
    total = len(_rows_of(inputs))
    widths: dict[str, int] = {}
    with Progress("encoding", total, "inputs") as progress:
        for rows in blocks(total, batch_size):
            answers = _answers(module, _arguments(module, inputs, rows), names, rows.stop - rows.start, pool)
            for name, part in answers.items():
                width = widths.setdefault(name, part.shape[1])
                if part.shape[1] != width:
                    raise DataError(
                        f"the layer {name!r} gives {width} features for some inputs and {part.shape[1]} for "
                        'others; pool="mean" makes them as many'
                    )
            yield rows, answers
            progress.update(rows.stop - rows.start)


def _answers(
    module: nn.Module,
    given: tuple[tuple[Any, ...], dict[str, Any]],
    names: Sequence[str],
    size: int,
    pool: Pool,
) -> dict[str, Matrix]:
    """Activations of the layers in one pass, in the order of their names; hooks are removed."""
    arguments, keywords = given
    features = keywords or next((each for each in arguments if isinstance(each, dict)), {})
    mask, recorded = features.get(_MASK), dict[str, Matrix]()

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            found = _pooled(_tensor_of(output, name).float(), pool, mask)
            if found.ndim != 2 or len(found) != size:
                raise DataError(
                    f"the layer {name!r} gives {tuple(found.shape)} for {size} inputs, not one row each; "
                    "pool it with a function of your own"
                )
            # A copy, as later layers may work in place.
            recorded[name] = found.detach().to("cpu", torch.float32, copy=True).numpy()

        return record

    parts = dict(module.named_modules())
    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(parts[name].register_forward_hook(recorder(name)))
        module(*arguments, **keywords)
    missing = [name for name in names if name not in recorded]
    if missing:
        raise DataError(f"the layer {missing[0]!r} did not run for these inputs; leave it out")
    return {name: recorded[name] for name in names}


def _arguments(module: nn.Module, inputs: Any, rows: slice) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the module for some inputs."""
    if isinstance(inputs, Mapping):
        return (), {name: _tensor(module, part[rows]) for name, part in inputs.items()}
    if not isinstance(inputs[0], str):
        return (_tensor(module, inputs[rows]),), {}
    if not hasattr(module, "preprocess"):
        raise DataError(
            f"{type_of(module)} takes no texts; give the output of its tokenizer, a mapping of "
            "input_ids and attention_mask"
        )
    model: Any = module
    features = model.preprocess(check_texts(inputs[rows], rows.start), prompt=prompt_of(model))
    device = model.device
    return ({name: x.to(device) if isinstance(x, Tensor) else x for name, x in features.items()},), {}


def _tensor(module: nn.Module, part: Any) -> Tensor:
    """A copy of some inputs beside the weights; numbers with a point get their precision."""
    if isinstance(part, (list, tuple)):
        tensor = torch.stack([torch.as_tensor(each) for each in part])
    else:
        tensor = part.clone() if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
    like = next(iter(module.parameters()), tensor)
    if tensor.is_floating_point() and like.is_floating_point():
        return tensor.to(like.device, like.dtype)
    return tensor.to(like.device)


def _tensor_of(output: Any, name: str) -> Tensor:
    """The relevant part of an output: vectors of texts or tokens, or the first floating tensor."""
    found = _first_tensor(output)
    if found is None:
        raise DataError(f"the layer {name!r} gives no floating tensor but {type_of(output)}; leave it out")
    return found


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if is_dataclass(output) and not isinstance(output, (type, Mapping)):
        output = vars(output)
    if isinstance(output, Mapping):
        named = [output[name] for name in _NAMED_OUTPUTS if name in output]
        output = [*named, *output.values()]
    if not isinstance(output, (list, tuple)):
        return None
    return next((found for part in output if (found := _first_tensor(part)) is not None), None)


def _pooled(output: Tensor, pool: Pool, mask: Tensor | None) -> Tensor:
    """One row an input, ``Float[batch, features]`` of ``Float[batch, ...]``."""
    if callable(pool):
        return pool(output)
    if output.ndim <= 2 or not len(output):
        return output.reshape(len(output), -1)
    of_tokens = output.ndim == 3 and mask is not None and output.shape[:2] == mask.shape
    how = pool or ("mean" if of_tokens else "flatten")
    if how == "flatten":
        return output.flatten(1)
    if output.ndim > 3:
        places = output.flatten(2)
        return places.mean(2) if how == "mean" else places[:, :, 0]
    weights = mask.to(output.dtype) if of_tokens and mask is not None else output.new_ones(output.shape[:2])
    if how == "first":
        return output[torch.arange(len(output), device=output.device), weights.argmax(1)]
    return torch.einsum("btf,bt->bf", output, weights) / weights.sum(1, keepdim=True).clamp(min=1)
