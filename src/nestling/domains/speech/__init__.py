"""Speech: spectrograms, noise, encoders of sound and of lips, a recogniser, and word error rates."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.domains.speech.encoders import LipEncoder as LipEncoder
    from nestling.domains.speech.encoders import SoundEncoder as SoundEncoder
    from nestling.domains.speech.log_mel import LogMel as LogMel
    from nestling.domains.speech.noise import babble as babble
    from nestling.domains.speech.noise import mix as mix
    from nestling.domains.speech.pretrained import sound_encoder as sound_encoder
    from nestling.domains.speech.recogniser import Recogniser as Recogniser
    from nestling.domains.speech.sweep import sweep_transcripts as sweep_transcripts
    from nestling.domains.speech.wer import WordErrors as WordErrors
    from nestling.domains.speech.wer import word_errors as word_errors

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "LipEncoder": "encoders",
        "LogMel": "log_mel",
        "Recogniser": "recogniser",
        "SoundEncoder": "encoders",
        "WordErrors": "wer",
        "babble": "noise",
        "mix": "noise",
        "sound_encoder": "pretrained",
        "sweep_transcripts": "sweep",
        "word_errors": "wer",
    },
)
