"""Models of transformers by name: encoders of speech as streams of vectors, and language models."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.domains.prefix.names import open_pretrained
from nestling.domains.prefix.stories import stories
from nestling.domains.speech.encoders import SoundEncoder, StreamEncoder, as_vectors
from nestling.domains.speech.log_mel import LogMel, check_sound
from nestling.domains.speech.train_plan import SMALL, STORIES
from nestling.errors import ConfigError, DataError
from nestling.nn.tokens.tokens import Tokens

_SAMPLE_RATE = 16_000
_FRAMES_A_SECOND = 100
_QUIET = 1e-7


def sound_encoder(model: nn.Module) -> StreamEncoder:
    """The encoder of sound in a model of transformers: Whisper, wav2vec 2.0, HuBERT or WavLM.

    >>> from transformers import HubertConfig, HubertModel
    >>> config = HubertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    >>> encoder = sound_encoder(HubertModel(config).eval())
    >>> encoder.width, encoder.per_second, encoder(torch.randn(1, 16_000)).values.shape
    (16, 50, torch.Size([1, 49, 16]))

    Raises:
        ConfigError: for a model of another kind.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind == "whisper":
        return WhisperSound(model)
    if kind in ("wav2vec2", "hubert", "wavlm"):
        return WaveSound(model)
    raise ConfigError(
        f"no encoder of sound is known for a model of kind {kind!r}; give one of Whisper, wav2vec 2.0, "
        "HuBERT or WavLM, or write a StreamEncoder"
    )


class WhisperSound(StreamEncoder):
    """The encoder of Whisper: 50 vectors a second.

    Whisper reads 30 seconds at a time. Shorter sound is padded with silence, and the vectors of the
    padding are dropped.

    Args:
        model: ``WhisperModel``, ``WhisperForConditionalGeneration`` or their encoder.
    """

    stream = "audio"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config: Any = model.config
        inner: Any = model
        self.encoder: Any = inner.get_encoder() if hasattr(inner, "get_encoder") else inner
        self.width, self.per_second, self.sample_rate = config.d_model, _FRAMES_A_SECOND // 2, _SAMPLE_RATE
        self.mel = LogMel(bands=config.num_mel_bins, mirrored=True)
        self.longest = 2 * config.max_source_positions * self.mel.hop

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """See :class:`StreamEncoder`; ``values`` is ``Float[batch, samples]``.

        Raises:
            DataError: for sound that is longer than the model reads.
        """
        step = 2 * self.mel.hop
        check_sound(values, step)
        if values.shape[1] > self.longest:
            raise DataError(
                f"sound of {values.shape[1] / _SAMPLE_RATE:.1f} seconds is longer than the "
                f"{self.longest / _SAMPLE_RATE:g} seconds that Whisper reads; cut it into pieces"
            )
        mel = self.mel(F.pad(values, (0, self.longest - values.shape[1]))).transpose(1, 2)
        found = self.encoder(mel).last_hidden_state[:, : values.shape[1] // step]
        return as_vectors(found.transpose(1, 2), None if lengths is None else lengths // step)


class WaveSound(StreamEncoder):
    """An encoder of raw sound: wav2vec 2.0, HuBERT or WavLM; 50 vectors a second.

    Each recording is scaled to mean 0 and deviation 1, as their processors do.

    Args:
        model: ``Wav2Vec2Model``, ``HubertModel`` or ``WavLMModel``.
    """

    stream = "audio"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        config: Any = model.config
        self.encoder: Any = model
        self.width, self.sample_rate = config.hidden_size, _SAMPLE_RATE
        self.per_second = _SAMPLE_RATE // prod(config.conv_stride)
        # Others have a norm over the whole recording, to which padding would contribute.
        self.is_masked = config.feat_extract_norm == "layer"

    def forward(self, values: Tensor, lengths: Tensor | None = None) -> Tokens:
        """See :class:`StreamEncoder`; ``values`` is ``Float[batch, samples]``."""
        check_sound(values, self._shortest())
        if lengths is None:
            return Tokens(self._vectors(values, None))
        if self.is_masked:
            real = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
            found = self._vectors(values, real)
        else:
            alone = [self._vectors(row[None, :n], None)[0] for row, n in zip(values, lengths, strict=True)]
            found = nn.utils.rnn.pad_sequence(alone, batch_first=True)
        counts = self.encoder._get_feat_extract_output_lengths(lengths)
        return as_vectors(found.transpose(1, 2), counts)

    def _vectors(self, values: Tensor, real: Tensor | None) -> Tensor:
        everywhere = torch.ones_like(values, dtype=torch.bool) if real is None else real
        found: Tensor = self.encoder(_standard(values, everywhere), attention_mask=real).last_hidden_state
        return found

    def _shortest(self) -> int:
        """The samples that one vector is made of."""
        samples = 1
        config = self.encoder.config
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


def _standard(values: Tensor, real: Tensor) -> Tensor:
    """Each recording with mean 0 and deviation 1, and zeros as padding."""
    count = real.sum(dim=1, keepdim=True)
    centred = (values - (values * real).sum(dim=1, keepdim=True) / count) * real
    return centred / (centred.square().sum(dim=1, keepdim=True) / count + _QUIET).sqrt()


@dataclass(frozen=True)
class Parts:
    """Names of models.

    Args:
        encoder: ``small``, or a name or folder of transformers.
        language_model: ``stories260K``, or a name or folder of transformers; None for one that is saved with
            the recogniser.
        sample_rate: of sound for a small encoder.
    """

    encoder: str
    language_model: str | None
    sample_rate: int

    def open_encoder(self) -> StreamEncoder:
        """The encoder.

        Raises:
            DataError: if there is none of this name.
        """
        if self.encoder == SMALL:
            return SoundEncoder(sample_rate=self.sample_rate)
        return sound_encoder(open_pretrained("AutoModel", self.encoder, "encoder of sound"))

    def open_language_model(self, saved: Path) -> tuple[nn.Module, Any]:
        """The language model in float32, and its tokenizer.

        Args:
            saved: the folder of one that is saved with the recogniser.

        Raises:
            DataError: if there is none of this name.
        """
        if self.language_model == STORIES:
            return stories(STORIES)
        name = str(saved) if self.language_model is None else self.language_model
        what = "causal language model"
        lm = open_pretrained("AutoModelForCausalLM", name, what)
        return lm, open_pretrained("AutoTokenizer", name, what)
