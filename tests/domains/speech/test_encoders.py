"""Encoders of sound and mouths: rates, padding, training on frames, models of transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from nestling.data import SpokenWord
from nestling.domains.speech.encoders import LipEncoder, SoundEncoder
from nestling.domains.speech.frames import FrameLoss, frame_accuracy, frame_labels
from nestling.domains.speech.mouths import around_mouths, scaled, varied
from nestling.domains.speech.pretrained import sound_encoder
from nestling.errors import ConfigError, DataError
from nestling.training import TrainConfig, fit


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def with_statistics(module: nn.Module) -> nn.Module:
    """In eval(), with statistics of norms that padding would show through."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(part.bias)
            nn.init.normal_(part.running_mean)
    return module.eval()


def test_sound_and_mouths_give_vectors_at_their_rates() -> None:
    sound, lips = SoundEncoder(16).eval(), LipEncoder(12, channels=4).eval()
    assert sound(noise(2, 48_000)).values.shape == (2, 150, 16)
    assert lips(torch.zeros(2, 75, 24, 48, dtype=torch.uint8)).values.shape == (2, 75, 12)
    assert (sound.per_second, lips.per_second) == (50, 25)


def test_padding_does_not_change_the_vectors_of_sound() -> None:
    encoder = with_statistics(SoundEncoder(8, depth=2))
    sound = 0.1 * noise(1, 8000)
    padded = torch.cat([sound, torch.zeros(1, 4000)], dim=1)
    found = encoder(padded, torch.tensor([8000]))
    assert found.mask is not None
    assert found.mask.sum() == 25
    assert torch.allclose(found.values[:, :25], encoder(sound).values, atol=1e-5)
    assert not found.values[:, 25:].any()


def test_padding_does_not_change_the_vectors_of_mouths() -> None:
    encoder = with_statistics(LipEncoder(8, channels=2, depth=2))
    clip = (128 + 40 * noise(1, 10, 24, 48)).clamp(0, 255).byte()
    padded = torch.cat([clip, torch.full((1, 4, 24, 48), 255, dtype=torch.uint8)], dim=1)
    found = encoder(padded, torch.tensor([10]))
    assert torch.allclose(found.values[:, :10], encoder(clip).values, atol=1e-4)


def test_inputs_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="24 x 48 pixels are expected, not of 10 x 10"):
        LipEncoder()(torch.zeros(1, 3, 10, 10))
    with pytest.raises(DataError, match="grey"):
        LipEncoder()(torch.zeros(3, 24, 48))
    with pytest.raises(DataError, match="too short; give at least 320"):
        SoundEncoder()(torch.zeros(1, 100))


def test_clips_are_scaled_one_by_one() -> None:
    clips = torch.stack([noise(5, 4, 6), 7 + 3 * noise(5, 4, 6, seed=1)])
    found = scaled(100 * clips)
    assert torch.allclose(found.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(found.std(dim=(1, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    assert not scaled(torch.full((1, 2, 4, 6), 9, dtype=torch.uint8)).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_part_that_moves_is_enlarged(dtype: torch.dtype) -> None:
    still = torch.linspace(0, 200, 8 * 16).reshape(8, 16)
    clips = still.expand(2, 5, 8, 16).clone()
    for clip, (top, left) in zip(clips, [(0, 0), (3, 7)], strict=True):
        clip[:, top : top + 4, left : left + 8] = torch.tensor([10, 90, 20, 60, 30.0])[:, None, None]
    found = around_mouths(clips.to(dtype), 4, 8)
    assert found.dtype == dtype
    assert torch.equal(found.float(), torch.tensor([10, 90, 20, 60, 30.0])[:, None, None].expand(2, 5, 8, 16))
    assert torch.equal(around_mouths(clips.to(dtype), 8, 16), clips.to(dtype))


@pytest.mark.parametrize(("frames", "height"), [(1, 4), (5, 9)])
def test_a_clip_without_a_part_that_moves_is_refused(frames: int, height: int) -> None:
    with pytest.raises(DataError, match=f"clips have {frames} of 8 x 16"):
        around_mouths(torch.zeros(2, frames, 8, 16), height, 8)


def test_varied_clips_are_seeded_and_without_variation_or_flipped_the_same() -> None:
    clips = noise(6, 5, 4, 7)
    once, twice = (varied(clips, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(once, twice)
    same = varied(clips, torch.Generator().manual_seed(3), shift=0, contrast=0.0, mask=0.0)
    for clip, found in zip(clips, same, strict=True):
        assert torch.equal(found, clip) or torch.equal(found, clip.flip(2))
    moved = varied(
        clips[:, :, :, :1].expand(-1, -1, -1, 7), torch.Generator(), shift=1, contrast=0.0, mask=0.0
    )
    rows = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]])
    for clip, found in zip(clips, moved, strict=True):
        assert any(torch.equal(found[..., 0], clip[:, each, 0]) for each in rows)


def test_words_become_classes_of_moments() -> None:
    words = [SpokenWord("now", 0.0, 0.1), SpokenWord("bin", 0.2, 0.31)]
    labels = frame_labels(words, ["bin", "now"], per_second=20, count=8)
    assert labels.tolist() == [2, 2, 0, 0, 1, 1, 0, 0]


def test_an_encoder_learns_the_words_of_moments() -> None:
    """Two tones, each the word of its half of a second."""
    seconds = torch.arange(16_000) / 16_000
    tones = torch.stack([torch.sin(6.28 * pitch * seconds) for pitch in (300, 2000)])
    sound = torch.stack([torch.cat([tones[a, :8000], tones[b, :8000]]) for a in (0, 1) for b in (0, 1)])
    classes = torch.tensor([[1 + a] * 25 + [1 + b] * 25 for a in (0, 1) for b in (0, 1)])
    encoder = SoundEncoder(8, depth=0, dropout=0.0)
    objective = FrameLoss(8, 3, smoothing=0.0)
    fit(encoder, objective, (sound, classes), TrainConfig(max_steps=30, batch_size=4, lr=0.02))
    assert frame_accuracy(encoder, objective.head, sound, classes)["words"] > 90


WHISPER = WhisperConfig(
    d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
    decoder_attention_heads=2, decoder_ffn_dim=16, num_mel_bins=80, max_source_positions=50, vocab_size=20,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip
WAVE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_whisper_sees_what_its_own_feature_extractor_gives() -> None:
    model = WhisperModel(WHISPER).eval()
    sound = (0.1 * noise(12_000)).numpy()
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
    features = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    theirs = model.encoder(features).last_hidden_state[:, :37]
    encoder = sound_encoder(model)
    found = encoder(torch.from_numpy(sound)[None])
    assert (encoder.width, encoder.per_second, found.values.shape) == (16, 50, (1, 37, 16))
    assert torch.allclose(found.values, theirs, atol=1e-4)  # float32 logarithms
    with pytest.raises(DataError, match=r"1.2 seconds is longer than the 1 seconds"):
        encoder(torch.zeros(1, 20_000))


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_encoders_of_raw_sound_are_fed_like_their_processor_does(norm: str) -> None:
    model = Wav2Vec2Model(Wav2Vec2Config(**WAVE, feat_extract_norm=norm)).eval()
    sounds = [noise(6000).numpy() + 0.5, 3 * noise(4000, seed=1).numpy()]
    padded = torch.zeros(2, 6000)
    for row, sound in enumerate(sounds):
        padded[row, : len(sound)] = torch.from_numpy(sound)
    found = sound_encoder(model)(padded, torch.tensor([6000, 4000]))
    assert found.lengths().tolist() == [18, 12]
    processor = Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    for row, sound in enumerate(sounds):
        given = processor(sound, sampling_rate=16_000, return_tensors="pt")
        theirs = model(**given).last_hidden_state[0]
        assert torch.allclose(found.values[row, : len(theirs)], theirs, atol=1e-4)  # float32 sums


def test_hubert_is_known_and_others_are_refused() -> None:
    encoder = sound_encoder(HubertModel(HubertConfig(**WAVE)).eval())
    assert encoder(noise(1, 400)).values.shape == (1, 1, 16)
    with pytest.raises(DataError, match="at least 400"):
        encoder(noise(1, 399))
    with pytest.raises(ConfigError, match="'Linear'"):
        sound_encoder(nn.Linear(1, 1))
    assert np.prod(HubertConfig().conv_stride) == 320
