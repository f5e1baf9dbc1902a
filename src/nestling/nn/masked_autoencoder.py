"""Masked auto-encoder pre-training at every granularity, for encoders whose small vectors sum up a text."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.cut import RAW, cut
from nestling.data.masking import IGNORED
from nestling.errors import ConfigError
from nestling.granularity import AnyNesting, Granularity, Nesting
from nestling.nn.early_exit import LayerStack


class MaskedAutoEncoder(nn.Module):
    """Predicts masked tokens at each granularity, from the hidden states and by a weak decoder.

    At ``(layer, dim)`` the first ``dim`` entries of the hidden states of ``layer`` go through the dense
    layer of the head; all granularities share its first columns. The result predicts the masked tokens.
    Its first position also replaces the first token of a more heavily masked copy, and a decoder of one
    layer predicts the masked tokens of that copy, with little else to use. Only masked positions are
    projected to the vocabulary, so this costs no more than the encoder.

    Args:
        model: a Hugging Face transformer without its head; trained in place.
        nesting: on the axes ``dim`` and ``layer``.
        head: a masked language model whose head is the start; by default a new head.

    Raises:
        GranularityError: for a nesting on other axes, or wider or deeper than the model.
        ConfigError: if the layers are not found, or the head has another width.

    Source: Starbucks, arXiv 2410.13230, masked auto-encoder pre-training.
    """

    def __init__(self, model: Any, nesting: AnyNesting, head: nn.Module | None = None) -> None:
        super().__init__()
        width = int(model.config.hidden_size)
        needs = ("dim", "layer")
        nesting = Nesting.of(nesting).within("masked auto-encoding", needs=needs, dim=width, layer=None)
        self.model, self.nesting = model, nesting
        stack = LayerStack(model)
        stack.first(nesting.full["layer"])  # refuses a nesting that is too deep
        self.dense, self.norm, self.bias = _head(model, head, width)
        self.activation = nn.GELU()
        # A copy of the first layer; the decoder is the model with this layer alone.
        self.decoder_layer = copy.deepcopy(stack.layers[0])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        decoder_input_ids: Tensor,
        decoder_labels: Tensor,
    ) -> dict[Granularity, tuple[Tensor, Tensor]]:
        """The losses at each granularity: from the hidden states, and by the decoder.

        Args:
            input_ids: ``Int[batch, tokens]``, masked.
            attention_mask: ``Int[batch, tokens]``.
            labels: ``Int[batch, tokens]``, the tokens at masked positions and :data:`IGNORED` elsewhere.
            decoder_input_ids: ``Int[batch, tokens]``, the same texts with more tokens masked.
            decoder_labels: ``Int[batch, tokens]``.
        """
        stack = LayerStack(self.model)
        shell, given = stack.recorded(self.nesting.full["layer"])
        shell(input_ids=input_ids, attention_mask=attention_mask)
        words = self.model.get_input_embeddings()(decoder_input_ids)
        found = {}
        for g in self.nesting:
            states = cut(stack.normed(given[g["layer"] - 1]), g["dim"], RAW)
            own = self._loss(self._widened(states[labels != IGNORED], g["dim"]), labels)
            summary = self._widened(states[:, :1], g["dim"])
            decoded = self._decode(torch.cat([summary, words[:, 1:]], dim=1), attention_mask)
            again = self._loss(self._widened(decoded[decoder_labels != IGNORED], None), decoder_labels)
            found[g] = (own, again)
        return found

    def _widened(self, states: Tensor, dim: int | None) -> Tensor:
        """Full-width states from the first ``dim`` entries."""
        weight = self.dense.weight[:, :dim]
        answer: Tensor = self.norm(self.activation(F.linear(states, weight, self.dense.bias)))
        return answer

    def _loss(self, states: Tensor, labels: Tensor) -> Tensor:
        logits = F.linear(states, self.model.get_input_embeddings().weight, self.bias)
        return F.cross_entropy(logits, labels[labels != IGNORED])

    def _decode(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        shell = LayerStack(self.model).around(nn.ModuleList([self.decoder_layer]))
        states: Tensor = shell(inputs_embeds=words, attention_mask=attention_mask).last_hidden_state
        return states


def _head(model: Any, head: nn.Module | None, width: int) -> tuple[nn.Linear, nn.LayerNorm, nn.Parameter]:
    """Dense layer, norm and vocabulary bias: those of ``head``, or new ones."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    if head is None:
        dense = nn.Linear(width, width)
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)
        return dense, nn.LayerNorm(width), nn.Parameter(torch.zeros(vocabulary))
    base: Any = getattr(head, "base_model", None)
    within = set() if base is None else set(base.modules())
    own = [part for part in head.modules() if part not in within]
    linears = [part for part in own if isinstance(part, nn.Linear)]
    square = next((part for part in linears if part.weight.shape == (width, width)), None)
    norm = next((part for part in own if isinstance(part, nn.LayerNorm)), None)
    words = next((part for part in linears if part.out_features == vocabulary), None)
    if square is None or norm is None or words is None:
        raise ConfigError(
            f"{type(head).__name__} has no head with a dense layer of {width} entries, a norm and a "
            f"vocabulary of {vocabulary}; give a masked language model, such as BertForMaskedLM, or None"
        )
    bias = torch.zeros(vocabulary) if words.bias is None else words.bias.detach().clone()
    return copy.deepcopy(square), copy.deepcopy(norm), nn.Parameter(bias)
