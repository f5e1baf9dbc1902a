"""Conformance suite for elastic models: run it on your own with ``check_elastic``."""

from __future__ import annotations

import copy
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from nestling.elastic import Cost, Elastic
from nestling.errors import GranularityError
from nestling.granularity import Granularity
from nestling.testing.laws import LawError, as_laws, random_state


@dataclass(frozen=True)
class ElasticExample:
    """An elastic model under test.

    Args:
        thing: the model.
        x: an input that it accepts.
        load: reads what ``thing.save`` wrote; ``type(thing).load`` by default.
        counted: (object, method name) pairs of shared work, which ``forward_each`` may call no more often
            than one full use does. The submodules of a torch module are always counted: none may see the
            same input more often.
        tolerance: largest relative and absolute difference that counts as equal.
    """

    thing: Elastic
    x: Any
    load: Callable[[Path], Elastic] | None = None
    counted: Sequence[tuple[object, str]] = ()
    tolerance: float = 1e-5

    def equal(self, left: Any, right: Any) -> bool:
        """Whether two outputs are equal within the tolerance."""
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            return set(left) == set(right) and all(self.equal(left[key], right[key]) for key in left)
        if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            return len(left) == len(right) and all(map(self.equal, left, right))
        a, b = _to_numpy(left), _to_numpy(right)
        if a.dtype == object:
            return a.shape == b.shape and bool((a == b).all())
        return a.shape == b.shape and np.allclose(a, b, rtol=self.tolerance, atol=self.tolerance)


def extraction(example: ElasticExample) -> None:
    """Law 1: an extracted model gives the same outputs as the whole, and is really smaller."""
    thing = example.thing
    for g in thing.nesting:
        small = thing.extract(g)
        if small.nesting.full != g:
            raise LawError(f"extraction: extract({g}) is full at {small.nesting.full}, not at {g}")
        if not example.equal(thing(example.x, at=g), small(example.x)):
            raise LawError(f"extraction: thing(x, at={g}) differs from thing.extract({g})(x)")
        if g != thing.nesting.full and not _smaller(small.cost(), thing.cost()):
            raise LawError(
                f"extraction: extract({g}) has as many parameters and bytes as the whole: "
                f"{small.cost()} against {thing.cost()}"
            )


def fullness(example: ElasticExample) -> None:
    """Law 2: without ``at`` the model is used in full."""
    thing = example.thing
    if not example.equal(thing(example.x), thing(example.x, at=thing.nesting.full)):
        raise LawError("fullness: thing(x) differs from thing(x, at=thing.nesting.full)")


def sharing(example: ElasticExample) -> None:
    """Law 3: ``forward_each`` gives the outputs of single calls, and does shared work once."""
    thing, nesting = example.thing, example.thing.nesting
    together = thing.forward_each(example.x)
    if list(together) != list(nesting):
        raise LawError(f"sharing: forward_each(x) returns {list(together)}, not {list(nesting)}")
    for g, answer in together.items():
        if not example.equal(answer, thing(example.x, at=g)):
            raise LawError(f"sharing: forward_each differs from thing(x, at={g})")
    some = list(nesting)[::2]
    if list(thing.forward_each(example.x, some)) != some:
        raise LawError(f"sharing: forward_each(x, {some}) returns other granularities")
    with _counted_calls(example) as once:
        thing(example.x)
    with _counted_calls(example) as all_at_once:
        thing.forward_each(example.x)
    for call, count in all_at_once.items():
        allowed = max(once[call], 1)
        if count > allowed:
            raise LawError(f"sharing: forward_each calls {call[0]} {count} times, one use calls it {allowed}")


def order(example: ElasticExample) -> None:
    """Law 4: cost does not fall as the granularity grows, and unused work is really skipped."""
    thing, nesting = example.thing, example.thing.nesting
    for small in nesting:
        for large in nesting:
            if not small < large:
                continue
            for field in fields(Cost):
                lower, upper = (getattr(thing.cost(g), field.name) for g in (small, large))
                if lower > upper:
                    raise LawError(f"order: {field.name} falls from {lower} at {small} to {upper} at {large}")
    measured = {g: _measured_flops(thing, example.x, g) for g in nesting}
    full = measured[nesting.full]
    for g, flops in measured.items():
        if flops > full or (thing.cost(g).flops < thing.cost().flops and 0 < full <= flops):
            raise LawError(
                f"order: {flops} FLOPs are executed at {g} and {full} in full: masked, not skipped"
            )


def round_trip(example: ElasticExample) -> None:
    """Law 5: a saved and loaded model gives the same outputs at every granularity."""
    thing = example.thing
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "thing"
        thing.save(path)
        loaded = (example.load or type(thing).load)(path)
        if loaded.nesting != thing.nesting:
            raise LawError(f"round trip: saved with {thing.nesting}, loaded with {loaded.nesting}")
        for g in thing.nesting:
            if not example.equal(thing(example.x, at=g), loaded(example.x, at=g)):
                raise LawError(f"round trip: the loaded model gives another output at {g}")


def refusal(example: ElasticExample) -> None:
    """Law 6: an ``at`` outside the nesting is an error that names the nearest valid granularities."""
    thing, nesting = example.thing, example.thing.nesting
    axis = nesting.axes[0]
    outside = [nesting.full.replace(**{axis: nesting.full[axis] + 1})]
    between = nesting.full[axis] - 1
    if between >= 1 and between not in nesting.sizes(axis):
        outside.append(nesting.full.replace(**{axis: between}))
    for use in (thing, thing.extract, thing.cost):
        for g in outside:
            arguments = (example.x, g) if use is thing else (g,)
            try:
                use(*arguments)
            except GranularityError as error:
                if not any(str(near) in str(error) for near in nesting.nearest(g)):
                    raise LawError(
                        f"refusal: the error for {g} names no valid granularity nearby: {error}"
                    ) from error
            else:
                raise LawError(f"refusal: {g} is outside {nesting} and was accepted")


def innocence(example: ElasticExample) -> None:
    """Law 7: use changes neither inputs, nor weights, nor the global random state."""
    thing = example.thing
    before, weights, state = copy.deepcopy(example.x), _weights(thing), random_state()
    for g in thing.nesting:
        thing(example.x, at=g)
        thing.extract(g)
    thing.forward_each(example.x)
    exact = ElasticExample(thing, example.x, tolerance=0.0)
    if not exact.equal(before, example.x):
        raise LawError("innocence: the input was changed")
    if not exact.equal(weights, _weights(thing)):
        raise LawError("innocence: the weights were changed")
    if state != random_state():
        raise LawError("innocence: the global random state was changed")


ELASTIC_LAWS: tuple[Callable[[ElasticExample], None], ...] = as_laws(
    extraction,
    fullness,
    sharing,
    order,
    round_trip,
    refusal,
    innocence,
)
"""The laws one by one, for a parametrised test; :func:`check_elastic` runs them all."""


def check_elastic(
    thing: Any,
    x: Any,
    *,
    load: Callable[[Path], Elastic] | None = None,
    counted: Sequence[tuple[object, str]] = (),
    tolerance: float = 1e-5,
) -> None:
    """Check every law of an elastic model, like scikit-learn's ``check_estimator`` for estimators.

    Args:
        thing: the elastic model.
        x: an input that it accepts.
        load: reads a saved model, if ``type(thing).load(folder)`` does not.
        counted: (object, method name) pairs of shared work that must be done once for all granularities.
        tolerance: largest relative and absolute difference that counts as equal.

    Raises:
        LawError: for the first law that is broken.
    """
    if not isinstance(thing, Elastic):
        missing = [name for name in _MEMBERS if not hasattr(thing, name)]
        raise LawError(f"{type(thing).__name__} is not elastic: it lacks {', '.join(missing)}")
    example = ElasticExample(thing, x, load, counted, tolerance)
    for law in ELASTIC_LAWS:
        law(example)


_MEMBERS = ("nesting", "__call__", "forward_each", "extract", "cost", "save", "load")


_Call = tuple[Hashable, ...]


def _smaller(small: Cost, whole: Cost) -> bool:
    return (
        small.parameters < whole.parameters
        or small.size_bytes < whole.size_bytes
        or small.output_bytes < whole.output_bytes
    )


def _to_numpy(value: Any) -> np.ndarray[Any, Any]:
    detached = value.detach().cpu() if hasattr(value, "detach") else value
    return np.asarray(detached, dtype=np.float64 if _is_numeric(detached) else object)


def _is_numeric(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "biuf"


def _torch_module(thing: object) -> Any:
    """The model itself if it is a torch module; does not import torch."""
    torch = sys.modules.get("torch")
    return thing if torch is not None and isinstance(thing, torch.nn.Module) else None


def _weights(thing: object) -> dict[str, Any]:
    module = _torch_module(thing)
    if module is not None:
        return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    arrays = {name: value for name, value in vars(thing).items() if isinstance(value, np.ndarray)}
    return copy.deepcopy(arrays)


@contextmanager
def _counted_calls(example: ElasticExample) -> Iterator[Counter[_Call]]:
    """Counts calls of the submodules of a torch module, by input, and of the methods in ``counted``."""
    calls: Counter[_Call] = Counter()
    undo: list[Callable[[], None]] = []
    module = _torch_module(example.thing)
    for name, part in [] if module is None else list(module.named_modules())[1:]:

        def noting(_: Any, args: Any, given: Any, name: str = name) -> None:
            calls.update([(name, *_prints(args), *_prints(given))])

        hook = part.register_forward_pre_hook(noting, with_kwargs=True)
        undo.append(hook.remove)
    for owner, method in example.counted:
        original = getattr(owner, method)

        def counting(*args: Any, _original: Any = original, _name: str = method, **kwargs: Any) -> Any:
            calls.update([(_name,)])
            return _original(*args, **kwargs)

        object.__setattr__(owner, method, counting)
        undo.append(lambda owner=owner, method=method: object.__delattr__(owner, method))  # type: ignore[misc]
    try:
        yield calls
    finally:
        for action in undo:
            action()


def _prints(value: Any) -> Iterator[Hashable]:
    """A fingerprint of the content of every tensor in ``value``."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _prints(each)
    elif hasattr(value, "detach"):
        wide = value.detach().double()
        yield (tuple(wide.shape), float(wide.sum()), float((wide * wide).sum()))


def _measured_flops(thing: Elastic, x: Any, at: Granularity) -> float:
    """Multiply-adds that torch executes; 0 if the model is not a torch module."""
    if _torch_module(thing) is None:
        return 0.0
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter:
            thing(x, at=at)
    return float(counter.get_total_flops()) / 2
