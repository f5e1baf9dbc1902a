"""Shared by several tests: vectors, a tokenizer, numbers of examples, recall, names of rsatoolbox."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import settings
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_USUAL_EXAMPLES = 100


def examples(count: int) -> int:
    """The number of examples of a property that usually draws ``count``; ``make nightly`` draws more."""
    return count * settings().max_examples // _USUAL_EXAMPLES


def gaussian(rows: int, seed: int = 0, dim: int = 16) -> NDArray[np.float32]:
    """``Float32[rows, dim]``, standard normal."""
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def recall(found: NDArray[np.integer], true: NDArray[np.integer]) -> float:
    """The mean share of the true neighbours ``Int[queries, k]`` that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)]))


RSATOOLBOX = {
    "cosine": "cosine",
    "pearson": "corr",
    "spearman": "spearman",
    "rho_a": "rho-a",
    "kendall": "kendall",
    "tau_a": "tau-a",
    "cosine_whitened": "cosine_cov",
    "pearson_whitened": "corr_cov",
}
"""What rsatoolbox calls our comparators."""


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer of BERT whose pieces are single letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **dict(zip(names, special, strict=True))
    )
