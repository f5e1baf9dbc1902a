"""Time until a language model has read a picture and a question, against the tokens of the picture.

A Llama of four layers of width 1024 with random weights reads 1, 9, 36, 144 or 576 tokens of a picture and 30
of text, and gives one token. All sizes take turns in one process, on one thread; seconds are those of the
processor. Beside each ratio of times stands that of ``prefill_flops``. It counts no products of queries and
keys, which are a tenth of the work at 576 tokens of this width, and few in a model of 7 billion weights.
Features are given: the vision encoder runs before, and costs the same at every size.

Run: python benchmarks/tokens/prefill.py
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1]))
from nestling.domains.prefix import PrefixLM, prefill_flops
from nestling.nn.tokens import GridPool
from record import Ratios, arguments, in_turn, parsed, ratio

SIDE, SIZES, TEXT = 24, (1, 9, 36, 144, 576), 30


@dataclass(frozen=True)
class Shape:
    """Sizes of the language model."""

    width: int = 1024
    layers: int = 4
    vocabulary: int = 1024

    def config(self) -> LlamaConfig:
        """For transformers."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.width * 8 // 3,
            num_hidden_layers=self.layers,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=SIDE * SIDE + 2 * TEXT,
            eos_token_id=None,
        )


SMALL = Shape(width=64, layers=2, vocabulary=64)


def answers(shape: Shape) -> dict[str, Callable[[], object]]:
    """Reading a prompt and giving one token, by the number of tokens of the picture."""
    torch.manual_seed(0)
    lm = LlamaForCausalLM(shape.config())
    pool = GridPool((SIDE, SIDE), SIZES, shape.width)
    model = PrefixLM({"image": lambda features: features}, {"image": pool}, lm)
    batch = model.batch([[7] * TEXT], image=torch.randn(1, SIDE * SIDE, shape.width))
    return {str(size): lambda size=size: model.generate(batch, size, max_new_tokens=1) for size in SIZES}


def main() -> None:
    given = parsed(arguments(__doc__, rounds=15))
    torch.set_num_threads(1)
    shape = SMALL if given.quick else Shape()
    config = shape.config()
    found = Ratios("prefill", given.output, digits=3)
    seconds = in_turn(answers(shape), given.rounds, clock=time.process_time)
    flops = {str(size): prefill_flops(config, size + TEXT) for size in SIZES}
    *smaller, largest = seconds
    for size in smaller:
        figures, counted = ratio(seconds, size, largest), f"{flops[size] / flops[largest]:.3f}"
        found.add(f"prefill, {size} tokens of a picture over {largest}", figures, flops=counted)
    for size, larger in pairwise(seconds):
        counted = f"{flops[size] / flops[larger]:.3f}"
        what = f"prefill, {size} tokens of a picture over the next, {larger}"
        found.add(what, ratio(seconds, size, larger), at_most=1, flops=counted)
    print("  " + ", ".join(f"{size} tokens {1000 * min(each):.1f} ms" for size, each in seconds.items()))


if __name__ == "__main__":
    main()
