"""The vectors of LLaVA-NeXT: a view of the whole picture and tiles of it, on one canvas for all pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestling.domains.vision_language.llava_images import selected
from nestling.errors import require
from nestling.nn.tokens.grid_pool import GridPool, Shape
from nestling.nn.tokens.tiled_views import TiledViews
from nestling.nn.tokens.tokens import Tokens

_HOME = "transformers.models.llava_next.modeling_llava_next"


@dataclass(frozen=True, eq=False)
class TiledFeatures:
    """The projected vectors of pictures that LLaVA-NeXT cuts into tiles.

    Pictures have different numbers of tiles. They are put on a canvas of as many tiles as any picture may
    have; what is not theirs, or was padded when they were resized, is masked.

    Args:
        model: LlavaNextForConditionalGeneration.
    """

    model: Any

    @property
    def tiles(self) -> Shape:
        """Rows and columns of the canvas."""
        side, points = self._side, self.model.config.image_grid_pinpoints
        return max(height for height, _ in points) // side, max(width for _, width in points) // side

    def __call__(self, pixel_values: Tensor, image_sizes: Tensor, **_: Any) -> Tokens:
        """Vectors ``Float[pictures, (1 + tiles) * n, width]``, the whole picture first.

        Args:
            pixel_values: ``Float[pictures, views, channels, height, width]``, as the processor gives them.
            image_sizes: ``Int[pictures, 2]``, height and width of each picture.
        """
        home: Any = require(_HOME, "lora")
        points = self.model.config.image_grid_pinpoints
        shapes = [home.get_anyres_image_grid_shape(size, points, self._side) for size in image_sizes]
        views = torch.cat([each[: 1 + r * c] for each, (r, c) in zip(pixel_values, shapes, strict=True)])
        projected = self.model.model.multi_modal_projector(selected(self.model, views))
        grouped = projected.split([1 + rows * columns for rows, columns in shapes])
        each = [
            self._on_canvas(found, shape, size, home.unpad_image)
            for found, shape, size in zip(grouped, shapes, image_sizes, strict=True)
        ]
        return Tokens(torch.stack([tokens for tokens, _ in each]), torch.stack([mask for _, mask in each]))

    def _on_canvas(self, views: Tensor, shape: Shape, size: Tensor, unpad: Any) -> tuple[Tensor, Tensor]:
        """The vectors of one picture on the canvas, and the mask of those that are its own."""
        (rows, columns), (most_rows, most_columns) = shape, self.tiles
        grid = self._side // self.model.config.vision_config.patch_size
        places = [1 + row * most_columns + column for row in range(rows) for column in range(columns)]
        canvas = views.new_zeros(1 + most_rows * most_columns, *views.shape[1:])
        canvas = canvas.index_copy(0, torch.tensor([0, *places], device=views.device), views)
        numbers = torch.arange(rows * grid * columns * grid, device=views.device)
        kept = unpad(numbers.view(1, rows * grid, columns * grid), size).flatten()
        own = torch.zeros_like(numbers, dtype=torch.bool).index_fill(0, kept, True)
        of_tiles = own.view(rows, grid, columns, grid).transpose(1, 2).reshape(rows * columns, -1)
        mask = torch.zeros(canvas.shape[:2], dtype=torch.bool, device=views.device)
        mask[0] = True
        mask[places] = of_tiles
        return canvas.flatten(0, 1), mask.flatten()

    @property
    def _side(self) -> int:
        return int(self.model.config.vision_config.image_size)


def tiled_pool(model: Any, tokens: Any, grid: Shape) -> TiledViews:
    """Pools each view to the same number of tokens, with the model's vector after each row of tiles."""
    width = model.get_input_embeddings().weight.shape[1]
    made = TiledViews(GridPool(grid, tokens, width), TiledFeatures(model).tiles, newline=True)
    made.newline = torch.nn.Parameter(model.model.image_newline.detach().clone())
    return made
