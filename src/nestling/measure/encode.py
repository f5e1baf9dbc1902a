"""Embeddings of a task's inputs, each input encoded once, in batches and evaluation mode, as numpy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.errors import DataError
from nestling.granularity import Granularity
from nestling.measure.curve.provenance import remember
from nestling.measure.tasks.tasks import Task, stored_inputs
from nestling.process.blocks import blocks
from nestling.process.progress import watched
from nestling.vectors.token_vectors import TokenVectors

AnyTask = TypeVar("AnyTask", bound=Task)


def encode_task(thing: Any, task: AnyTask) -> AnyTask:
    """``task`` with its inputs replaced by their full-size vectors.

    Several sweeps over the same vectors (baselines, adapters) then encode nothing again.
    """
    with at_rest(thing):
        encoded = encode_inputs(thing, task, [None])
    vectors = task.with_inputs({name: each[0] for name, each in encoded.items()})
    remember(vectors, task)
    return vectors  # type: ignore[return-value]


def encode_inputs(
    thing: Any, task: Task, granularities: Sequence[Granularity | None], batch_size: int = 256
) -> dict[str, list[NDArray[Any]]]:
    """For each input of ``task`` its codes at each granularity; the same object is encoded once.

    Args:
        thing: an elastic model, or any callable.
        task: gives the inputs.
        granularities: granularities of the codes; None is the full one, the only one for a plain callable.
        batch_size: inputs at a time, unless the model has an ``encode`` of its own.

    Raises:
        DataError: for inputs that are empty, or codes that are not one row per input.
    """
    stored = stored_inputs(task)
    encoders = {name: thing if name in stored else encoder_of_queries(thing) for name in task.inputs}
    keys = {name: (id(x), id(encoders[name])) for name, x in task.inputs.items()}
    found: dict[tuple[int, int], list[NDArray[Any]]] = {}
    for name, x in task.inputs.items():
        if not len(x):
            raise DataError(f"there are no {name} to encode; give at least one")
        if keys[name] not in found:
            found[keys[name]] = _encode(encoders[name], x, granularities, batch_size)
            for codes in found[keys[name]]:
                if len(codes) != len(x):
                    raise DataError(f"{len(x)} {name} were encoded as {len(codes)} rows; give one row each")
    return {name: found[key] for name, key in keys.items()}


def encoder_of_queries(thing: Any) -> Any:
    """The encoder of inputs that are not stored: ``thing.queries``, or ``thing`` itself."""
    return getattr(thing, "queries", thing)


def encode_one(thing: Any, x: Any, granularity: Granularity | None) -> Callable[[], object]:
    """A function that encodes the first of ``x`` alone, to time it."""
    first = _as_input(thing, x[:1])
    if hasattr(thing, "encode"):
        return lambda: thing.encode(first, **_at(granularity))
    return lambda: thing(first, **_at(granularity))


def _encode(
    thing: Any, x: Any, granularities: Sequence[Granularity | None], batch_size: int
) -> list[NDArray[Any]]:
    if hasattr(thing, "encode") and len(granularities) == 1:
        return [_matrix(thing.encode(x, **_at(granularities[0])))]
    if hasattr(thing, "encode_each"):
        answers = thing.encode_each(x, granularities)
        return [_matrix(answers[g]) for g in granularities]
    if not hasattr(thing, "forward_each"):
        return [_matrix(thing(_as_input(thing, x)))]
    batches = []
    for rows in watched(blocks(len(x), batch_size), "encoding", "batches"):
        batch = _as_input(thing, x[rows])
        if len(granularities) == 1:
            batches.append([_matrix(thing(batch, **_at(granularities[0])))])
        else:
            answers = thing.forward_each(batch, granularities)
            batches.append([_matrix(answers[g]) for g in granularities])
    return [np.concatenate(codes) for codes in zip(*batches, strict=True)]


def _at(granularity: Granularity | None) -> dict[str, Granularity]:
    return {} if granularity is None else {"at": granularity}


def _matrix(answer: Any) -> Any:
    if isinstance(answer, TokenVectors):
        return answer
    matrix = as_array(answer, "codes")
    if matrix.ndim != 2:
        raise DataError(f"codes must be a matrix of one row per input, not of shape {matrix.shape}")
    return matrix


def _as_input(thing: Any, batch: Any) -> Any:
    """Arrays as tensors beside the weights, if the model is a torch module."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(thing, torch.nn.Module) or not isinstance(batch, np.ndarray):
        return batch
    weights = next(iter(thing.parameters()), None)
    return torch.from_numpy(np.ascontiguousarray(batch)).to(None if weights is None else weights.device)


@contextmanager
def at_rest(thing: Any) -> Iterator[None]:
    """A torch module in evaluation mode and without gradients, put back as it was afterwards."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(thing, torch.nn.Module):
        yield
        return
    modes = {module: module.training for module in thing.modules()}
    try:
        thing.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
