"""Low-rank adapters of a language model that depend on the granularity of its prefix, on peft."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Real, Whole, checked
from nestling.arguments.formatting import shown, type_of
from nestling.arguments.paths import home_path
from nestling.errors import ArtifactError, ConfigError, require, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder

Strategy = Literal["ms", "ss", "mss"]
SHARED = "shared"
_KIND, _EXPORTED = "scale_adapters", "peft_adapter"
_WEIGHTS = "adapters.safetensors"


class ScaleAdapters:
    """LoRA adapters of a model, of which those of one granularity are active.

    ``with adapters.at("tokens=36"):`` activates the adapters of a scale; outside of it those of the full
    scale are active. A training step calls ``backward()`` inside of the block, one scale after the other.
    All adapters stay trainable the whole time, so an optimiser may be made at any moment.

    Of a vision-language model the language model has adapters, and the vision encoder has none: it runs
    once for all scales.

    The model is changed: its target modules become layers of peft around them, its own weights are frozen,
    and a new adapter changes nothing yet (its second matrix is zero).

    Args:
        model: a transformer; any module with linear layers.
        scales: the granularities; sizes on one axis or several.
        strategy: ``"ms"``, one adapter for all scales; ``"ss"``, one for each; ``"mss"``, the sum of both.
        rank: of each adapter.
        alpha: each adapter is scaled by ``alpha / rank``.
        target_modules: names, or ends of the paths, of linear layers.
        key: the name of the adapter of a granularity; those with the same name share it. By default each
            has its own.
        seed: of the first matrices.

    Raises:
        ConfigError: if a target is not in the model, the model has adapters, or ``"mss"`` has one scale.
        MissingExtraError: if peft is not installed.

    Source: Llama-MTSK, arXiv 2503.06362, section 3; it adapts W_q and W_v with ``alpha / rank`` = 0.125.
    """

    @checked(strategy=OneOf(get_args(Strategy)), rank=Whole(1), alpha=Real(above=0), seed=Whole(0))
    def __init__(
        self,
        model: nn.Module,
        scales: Nesting | str,
        strategy: Strategy = "mss",
        *,
        rank: int,
        alpha: float,
        target_modules: Iterable[str] = ("q_proj", "v_proj"),
        key: Callable[[Granularity], str] | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.strategy, self.rank, self.alpha, self.seed = model, strategy, rank, alpha, seed
        self.scales = Nesting.of(scales)
        if isinstance(target_modules, str):
            raise ConfigError(f"target_modules must be a list of names, such as [{target_modules!r}]")
        self.target_modules = tuple(target_modules)
        self._own = {g: _named(key(g) if key else "_".join(map(str, g.values()))) for g in self.scales}
        if strategy == "mss" and len(set(self._own.values())) == 1:
            raise ConfigError(
                "strategy='mss' adds an adapter of all scales to one of each, and there is one scale; use "
                "strategy='ms' or give more scales"
            )
        _check_model(model, self.target_modules)
        self._excluded = _outside_of_language(model, self.target_modules)
        self._layers = _with_adapters(model, self._config(rank), self.adapters, seed)
        self._inside: Granularity | None = None
        self._pending: set[object] = set()
        self._activate(self.scales.full)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of all adapters."""
        return tuple(dict.fromkeys(name for g in self.scales for name in self.names(g)))

    def names(self, at: At = None) -> tuple[str, ...]:
        """The names of the adapters that are active at a granularity."""
        own = self._own[self.scales.resolve(at)]
        return {"ms": (SHARED,), "ss": (own,), "mss": (SHARED, own)}[self.strategy]

    def nearest(self, g: Granularity) -> Granularity:
        """The scale that is used at a granularity, which may have other sizes and more axes."""
        own = Granularity(**{axis: g[axis] for axis in self.scales.axes})
        return own if own in self.scales else self.scales.nearest(own)[-1]

    @contextmanager
    def at(self, at: At) -> Iterator[None]:
        """Activate the adapters of a granularity inside of the block.

        With checkpointing of activations, ``backward()`` computes them again with the adapters that are
        active then, so it must be called inside of the block too.

        Raises:
            ConfigError: inside of another such block, if adapters are merged into the weights, or if the
                block ends before ``backward()`` of a checkpointed forward pass.
        """
        granularity = self.scales.resolve(at)
        if self._inside is not None:
            raise ConfigError(
                f"adapters.at({granularity}) is inside of adapters.at({self._inside}); leave that block first"
            )
        self._check_unmerged()
        self._inside = granularity
        self._activate(granularity)
        hook = self.model.register_forward_hook(self._note)
        try:
            yield
            self._check_backward_done()
        finally:
            hook.remove()
            self._pending.clear()
            self._inside = None
            self._activate(self.scales.full)

    def parameters(self, at: At = None) -> Iterator[nn.Parameter]:
        """The weights of all adapters, or of those that are active at a granularity."""
        names = self.adapters if at is None else self.names(at)
        return (weight for _, weight in self._named_weights(names))

    def state_dict(self, at: At = None) -> dict[str, Tensor]:
        """The weights of all adapters by name, or of those that are active at a granularity."""
        names = self.adapters if at is None else self.names(at)
        return {name: weight.detach() for name, weight in self._named_weights(names)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of all adapters.

        Raises:
            ArtifactError: if names or shapes are those of other adapters.
        """
        own = dict(self._named_weights(self.adapters))
        for name in own.keys() ^ state.keys():
            told = f"no adapter weight {name!r}" if name in own else unknown("adapter weight", name, own)
            raise ArtifactError(f"these are weights of other adapters: {told}")
        for name, weight in own.items():
            if weight.shape != state[name].shape:
                raise ArtifactError(
                    f"{name} has the shape {tuple(state[name].shape)}, and this model needs "
                    f"{tuple(weight.shape)}; load the model that the adapters were trained with"
                )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(state[name])

    def save(self, folder: str | Path, /) -> None:
        """Write the adapters, without the model, as a verified folder."""
        self._check_unmerged()
        settings = {
            "strategy": self.strategy,
            "rank": self.rank,
            "alpha": self.alpha,
            "target_modules": list(self.target_modules),
            "names": list(self._own.values()),
        }
        with write_folder(folder, _KIND, nesting=self.scales, settings=settings) as path:
            save_file({k: w.contiguous().cpu() for k, w in self.state_dict().items()}, path / _WEIGHTS)

    @classmethod
    def load(cls, folder: str | Path, /, model: nn.Module) -> Self:
        """The adapters that ``save`` wrote, put into a model without adapters.

        Raises:
            ArtifactError: if the folder is torn or altered, or its weights do not fit the model.
        """
        manifest = read_folder(folder, _KIND)
        settings, scales = dict(manifest.settings), manifest.read_nesting()
        names = dict(zip(scales, settings.pop("names"), strict=True))
        adapters = cls(model, scales, **settings, key=names.__getitem__)
        adapters.load_state_dict(load_file(home_path(folder) / _WEIGHTS))
        return adapters

    def merged(self, at: At = None) -> nn.Module:
        """A copy of the model with the adapters of one granularity in its weights, and no layers of peft."""
        self._check_unmerged()
        names, full = list(self.names(at)), copy.deepcopy(self.model)
        for _, layer in list(_tuned(full)):
            layer.merge(adapter_names=names)
        return _without_layers(full)

    def extract(self, scales: Nesting | str) -> ScaleAdapters:
        """The adapters of some of the scales, on a copy of the model that has no others.

        Raises:
            ConfigError: for one scale of ``"mss"``, which :meth:`merged` takes.
        """
        kept = Nesting.of(scales)
        names = {g: self._own[self.scales.resolve(g)] for g in kept}
        made = ScaleAdapters(
            _without_layers(copy.deepcopy(self.model)),
            kept,
            self.strategy,
            rank=self.rank,
            alpha=self.alpha,
            target_modules=self.target_modules,
            key=names.__getitem__,
            seed=self.seed,
        )
        made.load_state_dict({k: w.detach() for k, w in self._named_weights(made.adapters)})
        return made

    def export(self, folder: str | Path, /, at: At = None) -> None:
        """Write the adapters of one granularity as one plain adapter of peft.

        A sum of two adapters becomes one of twice the rank. ``PeftModel.from_pretrained(model, folder)`` and
        inference servers read it.
        """
        names = self.names(at)
        config = self._config(self.rank * len(names))
        weights = {}
        for path, layer in self._layers.items():
            first = torch.cat([layer.lora_A[name].weight.detach() for name in names])
            second = torch.cat([layer.lora_B[name].weight.detach() for name in names], dim=1)
            for part, weight in (("lora_A", first), ("lora_B", second)):
                weights[f"base_model.model.{path}.{part}.weight"] = weight.contiguous().cpu()
        with write_folder(folder, _EXPORTED) as target:
            config.save_pretrained(str(target))
            save_file(weights, target / "adapter_model.safetensors")

    def _config(self, rank: int) -> Any:
        """The configuration, for peft, of an adapter of some rank, with the scale of all."""
        alpha = self.alpha * rank / self.rank
        return require("peft", "lora").LoraConfig(
            r=rank,
            lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # some servers take whole numbers alone
            target_modules=list(self.target_modules),
            exclude_modules=self._excluded or None,
        )

    def _activate(self, at: Granularity) -> None:
        weights = list(self.parameters())
        trained = [weight.requires_grad for weight in weights]
        for layer in self._layers.values():
            layer.set_adapter(list(self.names(at)))
        # peft freezes the adapters that are not active, and an optimiser made then would miss them.
        for weight, is_trained in zip(weights, trained, strict=True):
            weight.requires_grad_(is_trained)

    def _named_weights(self, names: Iterable[str]) -> Iterator[tuple[str, nn.Parameter]]:
        for name in names:
            for path, layer in self._layers.items():
                for part in ("lora_A", "lora_B"):
                    yield f"{name}.{path}.{part}", getattr(layer, part)[name].weight

    def _note(self, model: nn.Module, given: Any, output: Any) -> None:
        """Remember a forward pass that will be computed again, until its gradients are asked for."""
        checkpointed = any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
        found = [tensor for tensor in _tensors(output) if tensor.requires_grad]
        if model.training and checkpointed and found:
            mark = object()
            self._pending.add(mark)
            for tensor in found:
                tensor.register_hook(lambda _, mark=mark: self._pending.discard(mark))  # type: ignore[no-untyped-call]

    def _check_backward_done(self) -> None:
        if self._pending:
            raise ConfigError(
                "the model checkpoints activations, and the block adapters.at(...) ended before backward(), "
                "which would compute them again with other adapters and give wrong gradients; call "
                "loss.backward() inside of the block"
            )

    def _check_unmerged(self) -> None:
        if any(layer.merged for layer in self._layers.values()):
            raise ConfigError(
                "adapters are merged into the weights of the model, so none can be activated; unmerge them "
                "first, and use adapters.merged(at) for a merged copy"
            )


def _named(name: str) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"key must return the name of an adapter, not {shown(name)}")
    return name if name.startswith("scale_") else f"scale_{name}".replace(".", "_")


def _tuned(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of peft in a model, by path."""
    kind = require("peft.tuners.tuners_utils", "lora").BaseTunerLayer
    return ((path, part) for path, part in model.named_modules() if isinstance(part, kind))


def _without_layers(model: nn.Module) -> nn.Module:
    """``model`` with the layers that peft has put around its own replaced by these; changed in place."""
    for path, layer in list(_tuned(model)):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer.get_base_layer())
    vars(model).pop("peft_config", None)
    return model


def _check_model(model: nn.Module, targets: tuple[str, ...]) -> None:
    """Refuse a model with adapters, or without a target."""
    if any(True for _ in _tuned(model)):
        raise ConfigError("the model has adapters of peft already; give the model without them")
    language = _language_of(model)
    named = {path: part for path, part in model.named_modules() if part in language}
    linear = sorted({path.rpartition(".")[2] for path, part in named.items() if _is_linear(part)})
    for target in targets:
        found = [part for path, part in named.items() if f".{path}".endswith(f".{target}")]
        if not found:
            raise ConfigError(unknown("target module", target, linear))
        for part in found:
            if not _is_linear(part):
                raise ConfigError(
                    f"target module {target!r} is {type_of(part)}, and adapters are for linear layers: "
                    f"{', '.join(linear)}"
                )
    if not targets:
        raise ConfigError("target_modules is empty; name at least one, such as 'q_proj'")


def _language_of(model: nn.Module) -> set[nn.Module]:
    """The modules of a model that may have adapters: of a vision-language model those that read text.

    What reads pictures or sound does so once for all scales, so no scale can have its own.
    """
    given: Any = model
    is_mixed = any(hasattr(model, f"get_{kind}_features") for kind in ("image", "video", "audio"))
    output = given.get_output_embeddings() if is_mixed else None
    if output is None:
        return set(model.modules())
    return {*given.get_decoder().modules(), *output.modules()}


def _outside_of_language(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """The paths of layers with the name of a target that get no adapter."""
    language, ends = _language_of(model), tuple(f".{target}" for target in targets)
    return [
        path for path, part in model.named_modules() if part not in language and f".{path}".endswith(ends)
    ]


def _is_linear(part: nn.Module) -> bool:
    """Whether a module is one matrix: a Linear, or the Conv1D of GPT-2."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(part, nn.Embedding)


def _with_adapters(model: nn.Module, config: Any, names: Iterable[str], seed: int) -> dict[str, Any]:
    """Put adapters into a model, and return its layers of peft by path."""
    first, *others = names
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        tuner = require("peft", "lora").LoraModel(model, dict.fromkeys([first, *others], config), first)
        for name in others:
            tuner.inject_adapter(model, name)
    layers = dict(_tuned(model))
    for layer in layers.values():
        for part in (layer.lora_A, layer.lora_B):
            for adapter in part.values():
                # Half precision loses the small updates of training.
                wide = torch.promote_types(adapter.weight.dtype, torch.float32)
                adapter.to(wide).weight.requires_grad_(True)
    return layers


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, (list, tuple)):
        for each in output:
            yield from _tensors(each)
