"""LLaVA and its siblings of transformers with a number of tokens a picture that is chosen at use."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nestling.arguments.constraints import OneOf, checked
from nestling.domains.prefix.batches import IGNORED, AtRows, PrefixBatch, place_of
from nestling.domains.prefix.model import PrefixLM
from nestling.domains.prefix.streams import Order
from nestling.domains.vision_language.llava_images import ImageFeatures
from nestling.domains.vision_language.tiled import TiledFeatures, tiled_pool
from nestling.elastic import Cost
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.losses.one_encoding import OneEncoding
from nestling.nn.lora import ScaleAdapters
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.connector import Connector
from nestling.nn.tokens.grid_pool import GridPool
from nestling.nn.tokens.projectors import Projector

Pool: TypeAlias = Literal["after", "before"]
_IMAGE = "image"
_TEXT = ("input_ids", "attention_mask", "labels")


@checked(pool=OneOf(get_args(Pool)))
def nest_llava(
    model: Any,
    tokens: Nesting | str | Sequence[int] | None = None,
    *,
    pool: Pool = "after",
    grid: tuple[int, int] | None = None,
    connector: Compressor | None = None,
    adapters: ScaleAdapters | None = None,
    nesting: Nesting | str | None = None,
    order: Order = "forward",
    decoding: Mapping[str, Any] | None = None,
) -> NestedLlava:
    """A LLaVA-like model whose number of tokens a picture is chosen at the moment of use.

    Nothing is trained yet: the tokens are means of windows of the model's own, and training with
    :meth:`NestedLlava.objective` makes the few as good as they can be. The number of image placeholders that
    the processor writes does not matter.

    Args:
        model: LLaVA-NeXT, or a model of transformers with ``get_image_features`` that gives each picture the
            same number of vectors: Llava, VipLlava, InternVL, or Qwen2-VL with pictures of one size. It is
            used, not copied; with ``pool="before"`` or a ``connector`` its projector is taken out.
        tokens: sizes, such as ``[1, 9, 36, 144, 576]``; of each view, if pictures are cut into tiles.
        pool: after the projector, as M3 does, or before it.
        grid: rows and columns of a picture's vectors; by default those of the model's configuration.
        connector: from the vision encoder's vectors to the language model, in the place of pooling and
            projector, such as a projector after a
            :class:`~nestling.nn.tokens.resampler.query_resampler.QueryResampler`.
        adapters: of ``model``, switched with the number of tokens.
        nesting: the sizes that are trained, all by default.
        order: of the tokens of a picture; ``"reversed"`` for a resampler, as in
            :class:`~nestling.domains.prefix.model.PrefixLM`.
        decoding: arguments of ``generate``; greedy by default.

    Raises:
        ConfigError: for a model without these parts, or neither or both of ``tokens`` and ``connector``.
        GranularityError: for sizes that the grid does not allow.

    Source: M3, arXiv 2405.17430; LLaVA, arXiv 2310.03744.
    """
    if (tokens is None) == (connector is None):
        raise ConfigError("give the sizes with tokens=, or a connector=, and not both")
    if not hasattr(model, "get_image_features") or not hasattr(model, "config"):
        raise ConfigError(
            f"{type(model).__name__} is no model like LLaVA: it has no get_image_features; PrefixLM puts any "
            "encoder before any language model"
        )
    if "token_type_ids" in inspect.signature(model.forward).parameters:
        raise ConfigError(
            f"{type(model).__name__} lets the vectors of a picture attend to one another in both directions, "
            "which nesting cannot keep"
        )
    if "inputs_embeds" not in inspect.signature(model.prepare_inputs_for_generation).parameters:
        raise ConfigError(f"{type(model).__name__} cannot generate from inputs_embeds, which nesting needs")
    if connector is None:
        assert tokens is not None
        connector = _pooling(model, tokens, grid or _grid(model), pool)
    else:
        _take_projector(model)
    prefix = PrefixLM(
        {_IMAGE: _features(model)},
        {_IMAGE: connector},
        model,
        nesting=nesting,
        adapters=adapters,
        order=order,
        decoding=decoding,
    )
    return NestedLlava(prefix)


class NestedLlava(nn.Module):
    """A LLaVA-like model with a number of tokens a picture that is chosen at use; see :func:`nest_llava`.

    Inputs are what the model's processor returns: ``input_ids`` with placeholders of pictures, in their usual
    number or one a picture, ``attention_mask``, ``pixel_values``, and ``labels`` to learn from.

    Args:
        prefix: around the model.
    """

    def __init__(self, prefix: PrefixLM) -> None:
        super().__init__()
        self.prefix, self.nesting = prefix, prefix.nesting
        self.eval()

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return self.prefix.lm

    def read(self, inputs: Mapping[str, Any]) -> PrefixBatch:
        """What a processor returned as a batch with one place a picture.

        Labels of placeholders and of padding do not count.

        Raises:
            DataError: without ``input_ids``, for tensors that do not fit them, or other numbers of
                placeholders than of pictures.
        """
        if not isinstance(inputs, Mapping) or not isinstance(inputs.get("input_ids"), Tensor):
            raise DataError(
                "the inputs have no input_ids as a tensor; give what the processor returns for text and "
                'images with return_tensors="pt"'
            )
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
        if mask.shape != ids.shape:
            raise DataError(
                f"attention_mask has the shape {tuple(mask.shape)}, and input_ids {tuple(ids.shape)}"
            )
        is_image = (ids == self.model.config.image_token_id) & mask
        kept = self._first_places(is_image)
        accepted = inspect.signature(self.model.get_image_features).parameters
        images = {k: v for k, v in inputs.items() if k in accepted and k not in _TEXT and v is not None}
        self._check_pictures(is_image, kept, images)
        return PrefixBatch(
            torch.where(kept, place_of(0), ids),
            mask & (kept | ~is_image),
            {_IMAGE: images or None},
            inputs.get("labels"),
        )

    def _check_pictures(self, is_image: Tensor, kept: Tensor, images: Mapping[str, Any]) -> None:
        """Refuse placeholders without pictures, or of another number."""
        pixels = images.get("pixel_values")
        if pixels is None and bool(is_image.any()):
            raise DataError(
                "input_ids hold placeholders of pictures, and there are no pixel_values; give the pictures, "
                "or text without placeholders"
            )
        # Qwen gives the patches of all pictures in one table.
        if pixels is not None and pixels.ndim > 2 and len(pixels) != int(kept.sum()):
            whole, found = self.prefix.streams.connector(_IMAGE).inputs, int(is_image.sum())
            if found == len(pixels) * (whole + 1):
                raise DataError(
                    f"the pictures have {whole + 1} placeholders each, and the pool is for {whole} vectors: "
                    'the class token is left in; configure vision_feature_select_strategy="default"'
                )
            usual = "" if _is_tiled(self.model) else f"{whole} for each, as the processor writes them, or "
            raise DataError(
                f"input_ids hold {found} placeholders for {len(pixels)} pictures; there must be {usual}one "
                "for each"
            )

    def _first_places(self, is_image: Tensor) -> Tensor:
        """The first placeholder of each picture, ``Bool[batch, length]``."""
        if _is_tiled(self.model):  # whose pictures have different numbers of placeholders, and text between
            after = torch.nn.functional.pad(is_image[:, :-1], (1, 0))
            return is_image & ~after
        places = is_image.flatten().nonzero().flatten()
        whole = self.prefix.streams.connector(_IMAGE).inputs
        firsts = places[::whole] if len(places) % whole == 0 else places
        return torch.zeros_like(is_image.flatten()).index_fill(0, firsts, True).view_as(is_image)

    def forward(self, inputs: Mapping[str, Any], /, at: AtRows = None, *, strict: bool = True) -> Tensor:
        """Logits ``Float[batch, length, vocabulary]`` at each of the ``input_ids``, of the one that follows.

        A picture's are at its first placeholder, and the others have zeros.

        Args:
            inputs: what the processor returns.
            at: a number of tokens, or a list with one for each row.
            strict: refuse numbers that were not trained; else warn once.
        """
        logits: Tensor = self.prefix(self.read(inputs), at, strict=strict)
        return logits

    def forward_each(
        self, inputs: Mapping[str, Any], /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Logits at several numbers of tokens; pictures are encoded once."""
        return self.prefix.forward_each(self.read(inputs), granularities)

    def loss(self, inputs: Mapping[str, Any], at: AtRows = None, *, strict: bool = True) -> Tensor:
        """The mean cross-entropy of ``labels``."""
        return self.prefix.loss(self.read(inputs), at, strict=strict)

    def objective(self, **settings: Any) -> OneEncoding:
        """The nested loss, for :func:`nestling.training.fit` on what the processor returns, with ``labels``.

        Args:
            settings: of :class:`~nestling.losses.OneEncoding`.
        """
        return OneEncoding(
            lambda model, inputs: model.prefix.encode(model.read(inputs)),
            lambda model, features, inputs, at: model.prefix.loss_of(features, model.read(inputs), at),
            self.nesting,
            context=self.active,
            **settings,
        )

    def active(self, at: At = None) -> AbstractContextManager[Any]:
        """A block in which the adapters of a number of tokens are active."""
        return self.prefix.active(at)

    def generate(self, *, at: AtRows = None, strict: bool = True, **given: Any) -> Tensor:
        """The new ids ``Int[batch, n]``, without the prompt, padded at the end.

        ``processor.batch_decode(model.generate(**inputs, at=36), skip_special_tokens=True)`` is their text.

        Args:
            at: a number of tokens, or a list with one for each row.
            strict: refuse numbers that were not trained; else warn once.
            given: what the processor returns, and arguments of ``generate`` of transformers.
        """
        accepted = {*_TEXT, *inspect.signature(self.model.get_image_features).parameters}
        inputs = {name: value for name, value in given.items() if name in accepted}
        decoding = {name: value for name, value in given.items() if name not in accepted}
        decoding.pop("token_type_ids", None)
        found = self.prefix.generate(self.read(inputs), at, strict=strict, **decoding)
        ends = self.model.generation_config.eos_token_id
        end = ends[0] if isinstance(ends, (list, tuple)) else ends
        ids = [torch.tensor(each, dtype=torch.long) for each in found]
        padded: Tensor = pad_sequence(ids, batch_first=True, padding_value=end or 0)
        return padded.to(inputs["input_ids"].device)

    def extract(self, at: At) -> NestedLlava:
        """A copy with the numbers of tokens up to ``at``."""
        return NestedLlava(self.prefix.extract(at)).train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Of one picture in the language model; see :meth:`PrefixLM.cost`."""
        return self.prefix.cost(at)

    def save(self, folder: str | Path, /) -> None:
        """Write the trained parts as a verified folder; a frozen model is not written."""
        self.prefix.save(folder)

    def export(self, folder: str | Path, /, at: At = None, **settings: Any) -> None:
        """Write one size for others to serve; see :meth:`PrefixLM.export`."""
        self.prefix.export(folder, at, **settings)

    @classmethod
    def load(cls, folder: str | Path, /, model: nn.Module) -> Self:
        """What ``save`` wrote, around a model like that it was made with.

        Raises:
            ArtifactError: if the folder is torn or altered, or its weights do not fit.
        """
        prefix = PrefixLM.load(folder, {_IMAGE: _features(model)}, model)
        if any(isinstance(part, Projector) for part in prefix.streams.connector(_IMAGE).parts):
            _take_projector(model)
        return cls(prefix)


def answers_only(inputs: Mapping[str, Tensor], prompts: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a processor returned for prompts with answers, with ``labels`` that ignore the prompts.

    Args:
        inputs: of prompts with their answers, padded at the end.
        prompts: of the same prompts alone.
    """
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    lengths = prompts["attention_mask"].sum(dim=1, keepdim=True)
    is_answer = mask & (torch.arange(ids.shape[1], device=ids.device) >= lengths)
    return {**inputs, "labels": torch.where(is_answer, ids, IGNORED)}


def _pooling(
    model: Any, tokens: Nesting | str | Sequence[int], grid: tuple[int, int], pool: Pool
) -> Connector:
    width = model.get_input_embeddings().weight.shape[1]
    if _is_tiled(model):
        if pool == "before":
            raise ConfigError("pictures in tiles are pooled after the projector; use pool='after'")
        return Connector(tiled_pool(model, tokens, grid))
    if pool == "after":
        return Connector(GridPool(grid, tokens, width))
    projector = _read_projector(model)
    _take_projector(model)
    return Connector(GridPool(grid, tokens, projector.width), projector)


def _is_tiled(model: Any) -> bool:
    """Whether pictures are cut into tiles, as in LLaVA-NeXT."""
    return hasattr(model.config, "image_grid_pinpoints")


def _features(model: Any) -> ImageFeatures | TiledFeatures:
    if not _is_tiled(model):
        return ImageFeatures(model)
    if model.config.model_type != "llava_next":
        raise ConfigError(
            f"{type(model).__name__} cuts pictures into tiles in a way of its own; of such models only "
            "LLaVA-NeXT can be nested"
        )
    return TiledFeatures(model)


def _grid(model: Any) -> tuple[int, int]:
    """Rows and columns of a picture's vectors, by the configuration."""
    vision = getattr(model.config, "vision_config", None)
    size, patch = (getattr(vision, name, None) for name in ("image_size", "patch_size"))
    if not isinstance(size, int) or not isinstance(patch, int):
        raise ConfigError(
            "the configuration does not say how many vectors a picture has; give grid=(rows, columns)"
        )
    return size // patch, size // patch


def _read_projector(model: Any) -> Projector:
    """The projector of LLaVA, two maps with GELU between them, as a part of a connector."""
    theirs = getattr(model.model, "multi_modal_projector", None)
    first, second = (getattr(theirs, name, None) for name in ("linear_1", "linear_2"))
    if not isinstance(first, nn.Linear) or not isinstance(second, nn.Linear):
        raise ConfigError(
            f"{type(model).__name__} has no projector of two linear maps to put behind a pool; use "
            "pool='after'"
        )
    if getattr(theirs, "act", None) is None or model.config.projector_hidden_act not in ("gelu", "relu"):
        raise ConfigError("a projector is moved if its activation is gelu or relu; use pool='after'")
    made = Projector(
        first.in_features,
        second.out_features,
        hidden=first.out_features,
        activation=model.config.projector_hidden_act,
        bias=first.bias is not None,
    ).to(first.weight)
    for ours, each in ((made.layers[0], first), (made.layers[2], second)):
        ours.load_state_dict(each.state_dict())
    return made


def _take_projector(model: Any) -> None:
    """Make the model's image features those of its vision encoder; a connector projects them."""
    inner = getattr(model, "model", model)
    if not hasattr(inner, "multi_modal_projector"):
        raise ConfigError(
            f"{type(model).__name__} has no projector apart from its vision encoder; use tokens=, which "
            "pools after it"
        )
    inner.multi_modal_projector = nn.Identity()
