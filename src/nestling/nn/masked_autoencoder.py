"""Masked auto-encoding at every granularity: what pre-trains an encoder so that small ones sum up a text."""

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
from nestling.nn.layers import LayerStack


class MaskedAutoEncoder(nn.Module):
    """Masked words are told twice at each granularity: by their own states, and by a weak decoder.

    At ``(layer, dim)`` the first ``dim`` entries of the states of ``layer`` go through the head's dense
    layer, whose first columns all granularities share. Its answer tells the masked words of the text;
    and its first position takes the place of the first token in a more heavily masked copy, whose words a
    decoder of one layer has to tell from little else. Only masked positions are compared with the
    vocabulary, so that this does not cost more than the encoder itself.

    Args:
        model: a transformer of Hugging Face without its head; trained in place.
        nesting: on the axes ``dim`` and ``layer``.
        head: a model for masked words whose head to start from; by default a new one.

    Raises:
        GranularityError: for a nesting on other axes, or wider or deeper than the model.
        ConfigError: for a model whose layers are not found, or a head of another width.

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
        # The model around one layer of its own: token embeddings in, states of that layer out.
        self.decoder_layer = copy.deepcopy(stack.layers[0])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        decoder_input_ids: Tensor,
        decoder_labels: Tensor,
    ) -> dict[Granularity, tuple[Tensor, Tensor]]:
        """The losses of the masked words, by their own states and by the decoder, at each granularity.

        Args:
            input_ids: ``Int[batch, tokens]``, masked.
            attention_mask: ``Int[batch, tokens]``.
            labels: ``Int[batch, tokens]``, the words at masked positions and :data:`IGNORED` elsewhere.
            decoder_input_ids: ``Int[batch, tokens]``, the same texts with more of their words masked.
            decoder_labels: ``Int[batch, tokens]``.
        """
        stack = LayerStack(self.model)
        shell, given = stack.recorded(self.nesting.full["layer"])
        shell(input_ids=input_ids, attention_mask=attention_mask)
        words = self.model.get_input_embeddings()(decoder_input_ids)
        found = {}
        for g in self.nesting:
            states = cut(stack.normed(given[g["layer"] - 1]), g["dim"], RAW)
            own = self._told(self._widened(states[labels != IGNORED], g["dim"]), labels)
            summary = self._widened(states[:, :1], g["dim"])
            decoded = self._decode(torch.cat([summary, words[:, 1:]], dim=1), attention_mask)
            again = self._told(self._widened(decoded[decoder_labels != IGNORED], None), decoder_labels)
            found[g] = (own, again)
        return found

    def _widened(self, states: Tensor, dim: int | None) -> Tensor:
        """Full-width states from the first ``dim`` entries."""
        weight = self.dense.weight[:, :dim]
        answer: Tensor = self.norm(self.activation(F.linear(states, weight, self.dense.bias)))
        return answer

    def _told(self, states: Tensor, labels: Tensor) -> Tensor:
        logits = F.linear(states, self.model.get_input_embeddings().weight, self.bias)
        return F.cross_entropy(logits, labels[labels != IGNORED])

    def _decode(self, words: Tensor, attention_mask: Tensor) -> Tensor:
        shell = LayerStack(self.model).around(nn.ModuleList([self.decoder_layer]))
        states: Tensor = shell(inputs_embeds=words, attention_mask=attention_mask).last_hidden_state
        return states


def _head(model: Any, head: nn.Module | None, width: int) -> tuple[nn.Linear, nn.LayerNorm, nn.Parameter]:
    """Dense layer, norm and bias of the words: those of ``head``, or new ones."""
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
            f"{type(head).__name__} has no head of a dense layer of {width} entries, a norm and "
            f"{vocabulary} words; give a model for masked words, such as BertForMaskedLM, or none"
        )
    bias = torch.zeros(vocabulary) if words.bias is None else words.bias.detach().clone()
    return copy.deepcopy(square), copy.deepcopy(norm), nn.Parameter(bias)
