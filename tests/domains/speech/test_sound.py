"""Log-mel spectrograms, noise and word errors against independent versions."""

from __future__ import annotations

import cmath
import math

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from nestling.domains.speech.log_mel import LogMel, mel_bands
from nestling.domains.speech.noise import babble, mix, mixed_at_random
from nestling.domains.speech.wer import WordErrors, edits, word_errors
from nestling.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def test_mel_bands_are_those_of_slaney() -> None:
    theirs = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    assert np.allclose(mel_bands(16_000, 400, 80, 8000.0), theirs, atol=1e-12)


def test_frames_are_those_of_whisper_away_from_the_ends() -> None:
    """Whisper mirrors the sound at its ends, and here it is silent there."""
    sound = (0.1 * RNG.normal(size=16_000)).astype(np.float32)
    theirs = WhisperFeatureExtractor(feature_size=80, chunk_length=1)(sound, sampling_rate=16_000)
    ours = LogMel(bands=80)(torch.from_numpy(sound)[None])[0].T.numpy()
    assert np.allclose(ours[:, 2:-2], theirs["input_features"][0][:, 2:-2], atol=1e-4)  # float32 logarithms


def test_one_frame_equals_a_slow_transform() -> None:
    sound = RNG.normal(size=200)
    mel = LogMel(800, 4, window=20, hop=8)
    found = mel(torch.from_numpy(sound).float()[None])[0].numpy()
    bands = mel_bands(800, 20, 4, 400.0)
    slow = []
    for frame in range(25):
        samples = [
            (sound[place] if 0 <= place < 200 else 0.0) * math.sin(math.pi * n / 20) ** 2
            for n, place in enumerate(range(8 * frame - 10, 8 * frame + 10))
        ]
        power = [
            abs(sum(s * cmath.exp(-2j * math.pi * k * n / 20) for n, s in enumerate(samples))) ** 2
            for k in range(11)
        ]
        slow.append([sum(p * bands[k, b] for k, p in enumerate(power)) for b in range(4)])
    log = np.log10(np.maximum(slow, 1e-10))
    assert np.allclose(found, (np.maximum(log, log.max() - 8) + 4) / 4, atol=1e-4)  # float32


def test_a_recording_has_the_same_frames_when_it_is_padded() -> None:
    sound = torch.from_numpy(RNG.normal(size=(1, 1600))).float()
    padded = torch.cat([sound, torch.zeros(1, 800)], dim=1)
    assert torch.allclose(LogMel()(padded)[:, :10], LogMel()(sound), atol=1e-5)


@pytest.mark.parametrize(
    "sound", [torch.zeros(100), torch.zeros(1, 100), torch.zeros(1, 800, dtype=torch.int16)]
)
def test_sound_of_another_shape_is_refused(sound: torch.Tensor) -> None:
    with pytest.raises(DataError, match="sound"):
        LogMel()(sound)


def test_too_many_bands_are_refused() -> None:
    with pytest.raises(ConfigError, match="fewer bands"):
        LogMel(bands=300)


@given(st.floats(-20, 20), st.integers(0, 99))
def test_noise_has_exactly_the_ratio_that_is_asked_for(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech, noise = rng.normal(size=400), 3 * rng.normal(size=400) + 1
    added = mix(speech, noise, snr_db) - speech
    assert 10 * np.log10(np.square(speech).mean() / np.square(added).mean()) == pytest.approx(
        snr_db, abs=1e-3
    )


def test_zero_decibels_are_a_ratio_and_infinity_is_none() -> None:
    speech, noise = RNG.normal(size=(3, 50)), RNG.normal(size=50)
    ratios = np.array([0.0, -5.0, np.inf])
    mixed = mix(speech, noise, ratios)
    for row, ratio in enumerate(ratios):
        assert np.allclose(mixed[row], mix(speech[row], noise, float(ratio)))
    assert np.allclose(np.square(mixed[0] - speech[0]).mean(), np.square(speech[0]).mean())
    assert np.allclose(mixed[2], speech[2])


def test_silence_and_other_shapes_are_refused_in_mixing() -> None:
    speech = np.ones((2, 4))
    with pytest.raises(DataError, match="noise is silent"):
        mix(speech, np.zeros(4), 0.0)
    with pytest.raises(DataError, match="speech is silent"):
        mix(np.stack([np.ones(4), np.zeros(4)]), np.ones(4), 0.0)
    with pytest.raises(DataError, match="as many samples"):
        mix(speech, np.ones(3), 0.0)
    with pytest.raises(DataError, match="one for each"):
        mix(speech, np.ones(4), np.zeros(3))
    with pytest.raises(ConfigError, match="decibels"):
        mix(speech, np.ones(4), float("nan"))
    with pytest.raises(DataError, match="snr_db must be numbers, not 'loud'"):
        mix(speech, np.ones(4), "loud")
    with pytest.raises(DataError, match="not finite"):
        mix(speech, np.array([1.0, np.nan, 1.0, 1.0]), 0.0)


def test_babble_is_seeded_and_its_talkers_are_equally_loud() -> None:
    pool = [10.0**place * RNG.normal(size=300 + place) for place in range(4)]
    assert np.array_equal(babble(pool, 500, talkers=2, seed=1), babble(pool, 500, talkers=2, seed=1))
    assert not np.array_equal(babble(pool, 500, talkers=2, seed=1), babble(pool, 500, talkers=2, seed=2))
    assert np.square(babble(pool, 5000, talkers=4)).mean() == pytest.approx(4, rel=0.2)  # nearly independent
    with pytest.raises(DataError, match="needs as many"):
        babble(pool, 500, talkers=5)
    with pytest.raises(ConfigError, match="samples=0 must be"):
        babble(pool, 0)
    with pytest.raises(DataError, match="silent"):
        babble([np.zeros(5)], 500, talkers=1)


sentences = st.lists(st.lists(st.sampled_from(["bin", "now", "a", "b"]), max_size=6), min_size=1, max_size=5)


@given(sentences, st.randoms())
def test_word_errors_are_those_of_jiwer(references: list[list[str]], random) -> None:  # type: ignore[no-untyped-def]
    references = [[*reference, "now"] for reference in references]
    transcripts = [[w for w in reference if random.random() < 0.7] for reference in references]
    texts = [" ".join(each) for each in references], [" ".join(each) for each in transcripts]
    assert word_errors(*texts).rate == pytest.approx(100 * jiwer.wer(*texts))


def test_an_empty_reference_counts_its_insertions() -> None:
    found = word_errors(["", "bin now"], ["a b", "bin now"])
    assert found.rate == 100.0
    with pytest.raises(DataError, match="2 words were inserted"):
        word_errors([""], ["a b"])
    with pytest.raises(DataError, match="as many transcripts"):
        word_errors(["a"], [])
    for texts in ("ab", [None]):
        with pytest.raises(DataError, match="transcripts must be a list of texts"):
            word_errors(["a"], texts)


def test_intervals_hold_the_rate_and_pairs_are_tighter() -> None:
    words = np.full(200, 6)
    errors = RNG.binomial(6, 0.3, size=200)
    ours, theirs = WordErrors(errors, words), WordErrors(np.minimum(errors + 1, 6), words)
    low, high = ours.interval(seed=1)
    assert low < ours.rate < high
    assert high - low == pytest.approx(4 * 100 * (0.3 * 0.7 / 1200) ** 0.5, rel=0.2)  # binomial, 95 %
    difference, low, high = theirs.minus(ours)
    assert low <= difference <= high
    assert high - low < 2  # of the difference, which is nearly the same for each sentence
    with pytest.raises(DataError, match="same sentences"):
        ours.minus(WordErrors(errors[:5], words[:5]))


def test_edits_of_sequences() -> None:
    assert edits("kitten", "sitting") == 3
    assert edits("", "abc") == edits("abc", "") == 3


def test_noise_of_training_is_seeded_and_at_one_of_the_ratios() -> None:
    speech, noises = torch.from_numpy(RNG.normal(size=(40, 50))), torch.from_numpy(RNG.normal(size=(3, 50)))
    once, twice = (
        mixed_at_random(speech, noises, [0.0, 10.0, math.inf], torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(once, twice)
    added = 10 * ((once - speech).square().mean(dim=1) / speech.square().mean(dim=1)).log10()
    assert set(added[added > -100].round().tolist()) == {0.0, -10.0}  # below is rounding of float32
    assert (added < -100).any()
