"""Time of a query resampler with frozen attention weights, beside the attention that computes them.

Both forms run in one process, in turn, on the same features (576 of width 1024, as CLIP-L/14-336 gives), and
give the same tokens. They use one thread, and seconds are those of the processor.

With 16 heads 1/5 is out of reach for 256 queries: values and outputs are projected as before, which is half
of the multiply-adds. With one head the filters come first and both projections are one matrix, which leaves
1/5. Queries, and keys that are places alone, are projected once for the whole batch, so a batch gains less.

Run: python benchmarks/tokens/connector.py
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from nestling.nn.tokens import QueryResampler
from record import Ratios, arguments, in_turn, parsed, ratio

WIDTH, SIDE, QUERIES = 1024, 24, 256


class Released(nn.Module):
    """The forward pass of MQT-LLaVA: torch's MultiheadAttention, with places resized each time."""

    def __init__(self, resampler: QueryResampler) -> None:
        super().__init__()
        self.ours, self.attention = resampler, nn.MultiheadAttention(WIDTH, resampler.heads)
        attention = resampler.attention.state_dict()
        self.attention.load_state_dict(attention)

    def forward(self, x: Tensor, m: int) -> Tensor:
        table, side = self.ours.table, int(QUERIES**0.5)
        assert table is not None
        square = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        places = F.interpolate(square, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
        q = self.ours.norm_q(self.ours.queries[:m] + table[:m])
        k = self.ours.norm_k(places.permute(0, 2, 3, 1).flatten(0, 2))
        q, k = (each[:, None].repeat(1, len(x), 1) for each in (q, k))
        out: Tensor = self.attention(q, k, self.ours.norm_v(x).permute(1, 0, 2))[0]
        return out.permute(1, 0, 2)


def methods(heads: int, m: int, batch: int) -> dict[str, Callable[[], Tensor]]:
    torch.manual_seed(0)
    settings = {"heads": heads, "positions": "learned"}
    attention = QueryResampler(QUERIES, WIDTH, (SIDE, SIDE), keys="pos", **settings).eval()
    content = QueryResampler(QUERIES, WIDTH, (SIDE, SIDE), **settings).eval()
    frozen, released = attention.freeze_attention(), Released(attention).eval()
    x = torch.randn(batch, SIDE * SIDE, WIDTH)
    with torch.no_grad():
        for other in (attention(x, at=m).values, released(x, m)):
            torch.testing.assert_close(frozen(x, at=m).values, other, rtol=1e-3, atol=1e-4)
    return {
        "frozen": lambda: frozen(x, at=m).values,
        "attention to places": lambda: attention(x, at=m).values,
        "attention to content and places": lambda: content(x, at=m).values,
        "released code": lambda: released(x, m),
    }


def main() -> None:
    given = parsed(arguments(__doc__, rounds=15))
    torch.set_num_threads(1)
    found = Ratios("connector", given.output)
    for heads, m, batch in (
        (16, QUERIES, 1),
        (1, QUERIES, 1),
        (16, QUERIES, 8),
        (1, QUERIES, 8),
        (16, 16, 8),
    ):
        with torch.no_grad():
            seconds = in_turn(methods(heads, m, batch), given.rounds, clock=time.process_time)
        for other in list(seconds)[1:]:
            what = f"frozen over {other}, {m} queries, {heads} head{'s' * (heads > 1)}, batch {batch}"
            found.add(what, ratio(seconds, "frozen", other), at_most=0.2)


if __name__ == "__main__":
    main()
