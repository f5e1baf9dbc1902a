"""Weights of MQT-LLaVA as a connector."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor

from nestling.errors import ArtifactError, DataError
from nestling.nn.tokens.connector import Connector
from nestling.nn.tokens.grid_pool import Shape
from nestling.nn.tokens.projectors import Projector
from nestling.nn.tokens.resampler.query_resampler import QueryResampler

_NAMES = {
    "query": "queries",
    "pos_embed": "table",
    "attn.in_proj_weight": "attention.in_proj_weight",
    "attn.in_proj_bias": "attention.in_proj_bias",
    "attn.out_proj.weight": "attention.out_proj.weight",
    "attn.out_proj.bias": "attention.out_proj.bias",
    "ln_q.weight": "norm_q.weight",
    "ln_q.bias": "norm_q.bias",
    "ln_k.weight": "norm_k.weight",
    "ln_k.bias": "norm_k.bias",
    "ln_v.weight": "norm_v.weight",
    "ln_v.bias": "norm_v.bias",
}
_MARK = "attn.in_proj_weight"


def from_mqt_state_dict(state: Mapping[str, Tensor], *, heads: int = 16, grid: Shape = (24, 24)) -> Connector:
    """The query abstractor of MQT-LLaVA: a resampler whose keys are places alone, and one matrix.

    Args:
        state: its weights, of any floating point dtype; names may have a common prefix, and other weights of
            the model may be among them.
        heads: of the attention.
        grid: rows and columns of the features.

    Raises:
        ArtifactError: if weights of it are missing.
        DataError: if the shapes do not fit together.

    Source: MQT, arXiv 2405.19315, as released.
    """
    marks = [name for name in state if name.endswith(_MARK) and f"{name.removesuffix(_MARK)}query" in state]
    prefix = marks[0].removesuffix(_MARK) if marks else ""
    missing = [name for name in [*_NAMES, "proj"] if f"{prefix}{name}" not in state]
    if missing:
        raise ArtifactError(
            f"the weights hold no query abstractor of MQT: {', '.join(missing[:3])} missing; give the state "
            "dict of the whole model, or of its projector"
        )
    own = {name: state[f"{prefix}{name}"].detach().float().clone() for name in [*_NAMES, "proj"]}
    count, width = own["query"].shape
    if isqrt(count) ** 2 != count or own["pos_embed"].shape != (count, width):
        raise DataError(
            f"query and pos_embed must be of one shape [squares, width], not {tuple(own['query'].shape)} and "
            f"{tuple(own['pos_embed'].shape)}"
        )
    with torch.device("meta"):
        resampler = QueryResampler(count, width, grid, heads=heads, keys="pos", positions="learned")
        projector = Projector(width, own["proj"].shape[1], depth=1, bias=False)
    given = {ours: own[theirs] for theirs, ours in _NAMES.items()}
    resampler.load_state_dict({**given, "sharpness": torch.ones(count)}, assign=True)
    assert resampler.table is not None
    resampler.table.requires_grad_(False)  # a table of sines and cosines
    projector.load_state_dict({"layers.0.weight": own["proj"].T.contiguous()}, assign=True)
    return Connector(resampler, projector)
