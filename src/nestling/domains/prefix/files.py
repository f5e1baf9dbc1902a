"""Saved prefix models: the trained parts alone; frozen encoders and language models have files already."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nestling.arguments.paths import home_path
from nestling.domains.prefix.features import Features
from nestling.errors import ArtifactError, ConfigError, unknown
from nestling.granularity import Granularity, Nesting
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens.connector import Connector
from nestling.storage.artifact import read_folder, write_folder

if TYPE_CHECKING:
    from nestling.domains.prefix.model import PrefixLM

KIND, EXPORTED = "prefix_lm", "prefix_export"
_WEIGHTS, _CONNECTORS, _ADAPTERS, _LANGUAGE = "model.safetensors", "connectors", "adapters", "language_model"
Form: TypeAlias = Literal["merged", "adapter"]


def save(model: PrefixLM, folder: str | Path) -> None:
    """Write connectors, adapters and trained weights as a verified folder."""
    settings = {
        "streams": list(model.streams.names),
        "template": model.template.text,
        "padding": model.padding,
        "order": model.streams.order,
        "decoding": model.decoding,
        "adapters": model.adapters is not None,
    }
    trained = _trained(model.lm, model.adapters, model.streams.encoders)
    with write_folder(folder, KIND, nesting=model.nesting, settings=settings) as path:
        for name in model.streams.names:
            model.streams.connector(name).save(path / _CONNECTORS / name)
        if model.adapters is not None:
            model.adapters.save(path / _ADAPTERS)
        save_file({name: w.detach().contiguous().cpu() for name, w in trained.items()}, path / _WEIGHTS)


def load(folder: str | Path, encoders: Mapping[str, Callable[..., Any]], lm: nn.Module) -> dict[str, Any]:
    """The arguments of a model that ``save`` wrote; trained weights are put into ``encoders`` and ``lm``.

    Raises:
        ArtifactError: if the folder is torn or altered, or its weights do not fit.
    """
    manifest = read_folder(folder, KIND)
    settings, path = manifest.settings, home_path(folder)
    connectors = {name: Connector.load(path / _CONNECTORS / name) for name in settings.pop("streams")}
    adapters = ScaleAdapters.load(path / _ADAPTERS, lm) if settings.pop("adapters") else None
    parts = {f"encoders.{name}": Features.of(each) for name, each in encoders.items()}
    weights = dict(_named({**parts, "lm": lm}))
    with torch.no_grad():
        for name, saved in load_file(path / _WEIGHTS).items():
            if name not in weights:
                raise ArtifactError(f"{folder} belongs to other parts: {unknown('weight', name, weights)}")
            if weights[name].shape != saved.shape:
                raise ArtifactError(
                    f"{name} has the shape {tuple(saved.shape)} in {folder}, and "
                    f"{tuple(weights[name].shape)} in the model; give the encoders and the language "
                    "model that it was made with"
                )
            weights[name].copy_(saved)
            if isinstance(weights[name], nn.Parameter):
                weights[name].requires_grad_(True)
    return {"connectors": connectors, "adapters": adapters, "nesting": manifest.read_nesting(), **settings}


def export(model: PrefixLM, folder: str | Path, at: Granularity, form: Form) -> None:
    """Write one granularity for others to serve: its connectors, and a language model or an adapter."""
    if form == "adapter" and model.adapters is None:
        raise ConfigError("the model has no adapters to export; use form='merged'")
    settings = {"form": form, "order": model.streams.order}
    with write_folder(folder, EXPORTED, nesting=Nesting((at,)), settings=settings) as path:
        for name in model.streams.names:
            own = model.streams.own(name, at)
            model.streams.connector(name).extract(own).save(path / _CONNECTORS / name)
        if model.adapters is None:
            model.lm.save_pretrained(str(path / _LANGUAGE))  # type: ignore[operator]
        elif form == "adapter":
            model.adapters.export(path / "adapter", model.adapted(at))
        else:
            merged: Any = model.adapters.merged(model.adapted(at))
            merged.save_pretrained(str(path / _LANGUAGE))


def copied_language(
    lm: nn.Module, adapters: ScaleAdapters | None, scales: Nesting | None
) -> tuple[nn.Module, ScaleAdapters | None]:
    """A copy of a language model with the adapters of some scales; those of a single one are merged."""
    if adapters is None or scales is None:
        return copy.deepcopy(lm), None
    if len(scales) == 1:
        return adapters.merged(scales.full), None
    kept = adapters.extract(scales)
    return kept.model, kept


def _trained(lm: nn.Module, adapters: ScaleAdapters | None, encoders: nn.ModuleDict) -> dict[str, Tensor]:
    """Weights that are trained, with the buffers of their encoder or language model."""
    apart = set() if adapters is None else {id(weight) for weight in adapters.parameters()}
    found: dict[str, Tensor] = {}
    for prefix, part in {**{f"encoders.{name}": each for name, each in encoders.items()}, "lm": lm}.items():
        own = dict(_named({prefix: part}))
        kept = {name for name, w in own.items() if w.requires_grad and id(w) not in apart}
        buffers = {name for name, w in own.items() if not isinstance(w, nn.Parameter)}
        found |= {name: own[name] for name in own if name in kept or (kept and name in buffers)}
    return found


def _named(parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """Parameters, each once, and saved buffers, by name."""
    for prefix, part in parts.items():
        parameters = {f"{prefix}.{name}": weight for name, weight in part.named_parameters()}
        yield from parameters.items()
        own = {id(weight) for weight in part.parameters()}
        for name, weight in part.state_dict(keep_vars=True).items():
            if id(weight) not in own:
                yield f"{prefix}.{name}", weight
