"""Image encoders: any torch backbone whose features are cut at the moment of use."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.paths import home_path
from nestling.cut import RAW, CutRule, check_vectors, cut_each
from nestling.elastic import Cost, check_whole, resolve_each
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, require, unknown
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.nn.inference import evaluating, multiply_adds
from nestling.process.blocks import blocks
from nestling.process.progress import Progress
from nestling.storage.artifact import read_folder, write_folder

_KIND = "image_encoder"
_WEIGHTS = "model.safetensors"


class ImageEncoder(nn.Module):
    """A backbone whose features are cut at the moment of use.

    The backbone runs once for all sizes. The encoder starts in ``eval()``; call ``train()`` before
    training.

    Args:
        backbone: pictures ``Float[batch, *input_shape]`` -> features ``Float[batch, width]``.
        nesting: sizes on the axis ``dim``, the full one at most the width.
        rule: applied around the cut; none by default, as MRL trains features for a classifier.
        input_shape: of one picture, such as ``(3, 224, 224)``.
        last: path of the Linear that computes the features, such as ``"fc"``, if any; an extracted encoder
            then holds only its first rows.

    Raises:
        GranularityError: for a nesting on other axes, or larger than ``last``.
        ConfigError: if there is no Linear at ``last``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        nesting: AnyNesting,
        rule: CutRule = RAW,
        *,
        input_shape: Sequence[int],
        last: str | None = None,
    ) -> None:
        super().__init__()
        nesting = Nesting.of(nesting).within("an image encoder", dim=None)
        self.backbone, self.nesting, self.rule = backbone, nesting, rule
        self.input_shape, self.last = tuple(input_shape), last
        self._timm: dict[str, Any] | None = None
        if last is not None:
            _check_width(nesting, _linear(backbone, last).out_features)
        self.eval()

    @classmethod
    def from_timm(
        cls,
        name: str,
        nesting: AnyNesting,
        rule: CutRule = RAW,
        *,
        input_shape: Sequence[int] | None = None,
        last: str | None = None,
        pretrained: bool = True,
        **settings: Any,
    ) -> Self:
        """A model of timm by name, by default without its classifier.

        Args:
            name: as ``timm.list_models`` has it.
            nesting: see :class:`ImageEncoder`.
            rule: see :class:`ImageEncoder`.
            input_shape: of one picture; by default that which the model was made for.
            last: see :class:`ImageEncoder`.
            pretrained: load timm's weights, from its cache or the hub.
            settings: further arguments of ``timm.create_model`` that JSON can hold.

        Raises:
            MissingExtraError: if timm is not installed.
            ConfigError: for a name that timm does not know.
            DataError: if the weights cannot be had.
        """
        settings = {"num_classes": 0, **settings}
        backbone = _create(name, pretrained=pretrained, **settings)
        shape = backbone.pretrained_cfg["input_size"] if input_shape is None else input_shape
        encoder = cls(backbone, nesting, rule, input_shape=shape, last=last)
        encoder._timm = {"model_name": name, **settings}
        return encoder

    def forward(self, pictures: Tensor, /, at: At = None) -> Tensor:
        """Features ``Float[batch, dim]`` of ``Float[batch, *input_shape]``, in one pass."""
        dim = self.nesting.resolve(at)["dim"]
        return self._features(pictures, [dim])[dim]

    def forward_each(
        self, pictures: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Features at several sizes from one pass of the backbone."""
        wanted = resolve_each(self.nesting, granularities)
        found = self._features(pictures, [g["dim"] for g in wanted])
        return {g: found[g["dim"]] for g in wanted}

    def views(
        self, pictures: Tensor, rests: Iterable[Granularity] = (Granularity(),)
    ) -> dict[Granularity, Tensor]:
        """Features ``Float[batch, width]`` before any cut or normalisation, as a nested loss trains them.

        Args:
            pictures: ``Float[batch, *input_shape]``.
            rests: such as ``nesting.rests``: empty granularities, as a backbone has no axis besides ``dim``.

        Raises:
            GranularityError: for a rest that names an axis.
        """
        wanted = check_whole(rests, "an image encoder")
        return dict.fromkeys(wanted, self._whole(pictures))

    @checked(batch_size=Whole(1))
    def encode(
        self, pictures: Tensor | NDArray[Any] | Sequence[Tensor], at: At = None, *, batch_size: int = 64
    ) -> NDArray[np.float32]:
        """Features ``Float32[n, dim]`` of any number of pictures, batch by batch.

        Args:
            pictures: ``Float[n, *input_shape]``, a tensor, an array or memory map, or a list of tensors.
            at: the granularity.
            batch_size: pictures encoded at a time.

        Raises:
            DataError: for no pictures, another shape or type, or features that are not finite.
        """
        dim = self.nesting.resolve(at)["dim"]
        if len(pictures) == 0:
            raise DataError("there are no pictures to encode; give at least one")
        found = np.empty((len(pictures), dim), np.float32)
        with evaluating(self), Progress("encoding", len(pictures), "pictures") as progress:
            for rows in blocks(len(pictures), batch_size):
                found[rows] = self._features(_tensor(pictures[rows]), [dim])[dim].float().cpu().numpy()
                progress.update(rows.stop - rows.start)
        check_vectors(found, "the features of these pictures")
        return found

    def extract(self, at: At) -> ImageEncoder:
        """A copy that gives the small features; the rows of ``last`` that they do not need are gone."""
        granularity = self.nesting.resolve(at)
        backbone, last = copy.deepcopy(self.backbone), self.last
        if last is not None and self.rule.before == "none":
            backbone = _narrowed(backbone, last, granularity["dim"])
        small = ImageEncoder(
            backbone, self.nesting.up_to(granularity), self.rule, input_shape=self.input_shape, last=last
        )
        small._timm = self._timm
        return small.train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Cost of one picture of ``input_shape``: the backbone is paid in full at every size.

        The multiply-adds are those that torch counts in one pass.
        """
        weights = list(self.backbone.parameters())
        return Cost(
            flops=self._flops,
            parameters=sum(weight.numel() for weight in weights),
            size_bytes=sum(weight.nbytes for weight in weights),
            output_bytes=4 * self.nesting.resolve(at)["dim"],
        )

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder: the weights, and for a model of timm how to build it."""
        settings = {
            "input_shape": list(self.input_shape),
            "last": self.last,
            "last_width": None if self.last is None else _linear(self.backbone, self.last).out_features,
            "timm": self._timm,
        }
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            save_model(self.backbone, str(path / _WEIGHTS))

    @classmethod
    def load(cls, folder: str | Path, /, *, backbone: nn.Module | None = None) -> Self:
        """Load a saved encoder.

        Args:
            folder: folder of the encoder.
            backbone: a module built like the one saved (or like the one it was extracted from), which
                takes the weights; not needed for a model of timm.

        Raises:
            ConfigError: if no backbone is given and none can be built.
            ArtifactError: if the folder is torn or altered, or its weights do not fit ``backbone``.
        """
        manifest = read_folder(folder, _KIND)
        saved = manifest.settings
        if backbone is None and saved["timm"] is None:
            raise ConfigError(
                f"{folder} holds the weights of a backbone that is not of timm; build it and give it with "
                "ImageEncoder.load(folder, backbone=...)"
            )
        backbone = _create(pretrained=False, **saved["timm"]) if backbone is None else backbone
        if saved["last"] is not None:
            backbone = _narrowed(backbone, saved["last"], saved["last_width"])
        try:
            load_model(backbone, str(home_path(folder) / _WEIGHTS))
        except RuntimeError as error:
            raise ArtifactError(
                f"the weights in {folder} do not fit this backbone: {str(error).splitlines()[-1].strip()}"
            ) from error
        nesting, rule = manifest.read_nesting(), manifest.read_cut()
        encoder = cls(backbone, nesting, rule, input_shape=saved["input_shape"], last=saved["last"])
        encoder._timm = saved["timm"]
        return encoder

    def _features(self, pictures: Tensor, dims: list[int]) -> dict[int, Tensor]:
        """The features of one pass at several sizes."""
        return cut_each(self._whole(pictures), dims, self.rule)

    def _whole(self, pictures: Tensor) -> Tensor:
        """The features of one pass before any cut, ``Float[batch, width]``."""
        if pictures.ndim != 1 + len(self.input_shape) or pictures.shape[1] != self.input_shape[0]:
            raise DataError(
                f"pictures must be of shape [batch, {', '.join(map(str, self.input_shape))}], "
                f"not {tuple(pictures.shape)}"
            )
        if not pictures.is_floating_point():
            raise DataError(
                f"pictures must be floats, scaled as the backbone knows them, not {pictures.dtype}"
            )
        like = next(self.backbone.parameters(), pictures)
        features: Tensor = self.backbone(pictures.to(like.device, like.dtype))
        if features.ndim != 2 or len(features) != len(pictures):
            raise DataError(
                f"the backbone must give one row of features per picture, but gave {tuple(features.shape)} "
                f"for {len(pictures)} pictures; pool and flatten them"
            )
        _check_width(self.nesting, features.shape[1])
        return features

    @cached_property
    def _flops(self) -> float:
        """Multiply-adds for one picture."""
        picture = torch.zeros(1, *self.input_shape)
        with evaluating(self):
            return multiply_adds(lambda: self._features(picture, [self.nesting.full["dim"]]))


def _check_width(nesting: Nesting, width: int) -> None:
    if nesting.full["dim"] > width:
        raise GranularityError(
            f"the nesting {nesting} goes up to {nesting.full['dim']}, but the backbone gives {width} dims; "
            f"end the nesting at {width}"
        )


def _tensor(pictures: Any) -> Tensor:
    return torch.stack(list(pictures)) if isinstance(pictures, (list, tuple)) else torch.as_tensor(pictures)


def _linear(backbone: nn.Module, path: str) -> nn.Linear:
    """The Linear at a path."""
    linears = {name: part for name, part in backbone.named_modules() if isinstance(part, nn.Linear)}
    if path not in linears:
        raise ConfigError(unknown("path of a Linear", path, linears))
    return linears[path]


def _narrowed(backbone: nn.Module, path: str, dim: int) -> nn.Module:
    """``backbone`` with only the first ``dim`` rows of the Linear at ``path``; changed in place."""
    linear = _linear(backbone, path)
    if dim > linear.out_features:
        raise ArtifactError(f"{path!r} gives {linear.out_features} dims, but {dim} are needed")
    # Built on the meta device: initial weights would use the global random state for nothing.
    with torch.device("meta"):
        small = nn.Linear(linear.in_features, dim, bias=linear.bias is not None)
    small.weight = nn.Parameter(linear.weight.detach()[:dim].clone())
    if linear.bias is not None:
        small.bias = nn.Parameter(linear.bias.detach()[:dim].clone())
    if not path:
        return small
    parent, _, name = path.rpartition(".")
    setattr(backbone.get_submodule(parent), name, small)
    return backbone


def _create(model_name: str, **settings: Any) -> Any:
    timm = require("timm", "vision")
    known = timm.list_models()
    if model_name.partition(".")[0] not in known:
        near = difflib.get_close_matches(model_name, known, n=5, cutoff=0.3)
        raise ConfigError(
            f"timm has no model {model_name!r}; the nearest names are {', '.join(near) or 'none'}, "
            "and timm.list_models() has all"
        )
    try:
        return timm.create_model(model_name, **settings)
    except (OSError, RuntimeError) as error:
        raise DataError(f"timm could not make {model_name!r}: {str(error).splitlines()[0]}") from error
