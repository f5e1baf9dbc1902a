"""Tables of users, public data sets, texts, pairs and interactions; splits without leaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.data.interactions.interactions import Interactions as Interactions
    from nestling.data.interactions.reading import read_interactions as read_interactions
    from nestling.data.interactions.splits import leave_one_out as leave_one_out
    from nestling.data.interactions.splits import split_by_time as split_by_time
    from nestling.data.pairs import TextPairs as TextPairs
    from nestling.data.pairs import read_pairs as read_pairs
    from nestling.data.questions import PictureQuestions as PictureQuestions
    from nestling.data.questions import read_questions as read_questions
    from nestling.data.retrieval import RetrievalData as RetrievalData
    from nestling.data.sets.amazon import Purchases as Purchases
    from nestling.data.sets.amazon import amazon_beauty as amazon_beauty
    from nestling.data.sets.beir import read_beir as read_beir
    from nestling.data.sets.beir import read_qrels as read_qrels
    from nestling.data.sets.beir import read_run as read_run
    from nestling.data.sets.catalogue import DATA_SETS as DATA_SETS
    from nestling.data.sets.dissimilarities import Dissimilarities as Dissimilarities
    from nestling.data.sets.dissimilarities import pictures92 as pictures92
    from nestling.data.sets.docstrings import docstring_pairs as docstring_pairs
    from nestling.data.sets.emoji import EmojiPictures as EmojiPictures
    from nestling.data.sets.emoji import emoji_clip as emoji_clip
    from nestling.data.sets.emoji import emoji_pictures as emoji_pictures
    from nestling.data.sets.fsdd import SpokenDigits as SpokenDigits
    from nestling.data.sets.fsdd import spoken_digits as spoken_digits
    from nestling.data.sets.grid import SpokenSentences as SpokenSentences
    from nestling.data.sets.grid import SpokenWord as SpokenWord
    from nestling.data.sets.grid import grid_sentences as grid_sentences
    from nestling.data.sets.images import LabelledImages as LabelledImages
    from nestling.data.sets.images import digits as digits
    from nestling.data.sets.images import fashion_mnist as fashion_mnist
    from nestling.data.sets.retrieval_sets import cranfield as cranfield
    from nestling.data.sets.retrieval_sets import xquad as xquad
    from nestling.data.sets.source import listing as listing
    from nestling.data.sets.source import locate as locate
    from nestling.data.sets.sts import ScoredPairs as ScoredPairs
    from nestling.data.sets.sts import stsb as stsb
    from nestling.data.texts import TextFile as TextFile
    from nestling.data.texts import pairs_from_texts as pairs_from_texts
    from nestling.data.texts import read_texts as read_texts
    from nestling.data.transcripts import Transcripts as Transcripts
    from nestling.data.transcripts import read_transcripts as read_transcripts

# Loaded when first used: the processes that read docstrings pass through here and need none of it.
__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "DATA_SETS": "sets.catalogue",
        "Dissimilarities": "sets.dissimilarities",
        "EmojiPictures": "sets.emoji",
        "Interactions": "interactions.interactions",
        "LabelledImages": "sets.images",
        "PictureQuestions": "questions",
        "Purchases": "sets.amazon",
        "RetrievalData": "retrieval",
        "ScoredPairs": "sets.sts",
        "SpokenDigits": "sets.fsdd",
        "SpokenSentences": "sets.grid",
        "SpokenWord": "sets.grid",
        "TextFile": "texts",
        "TextPairs": "pairs",
        "Transcripts": "transcripts",
        "amazon_beauty": "sets.amazon",
        "cranfield": "sets.retrieval_sets",
        "digits": "sets.images",
        "docstring_pairs": "sets.docstrings",
        "emoji_clip": "sets.emoji",
        "emoji_pictures": "sets.emoji",
        "fashion_mnist": "sets.images",
        "grid_sentences": "sets.grid",
        "leave_one_out": "interactions.splits",
        "listing": "sets.source",
        "locate": "sets.source",
        "pairs_from_texts": "texts",
        "pictures92": "sets.dissimilarities",
        "read_beir": "sets.beir",
        "read_interactions": "interactions.reading",
        "read_pairs": "pairs",
        "read_qrels": "sets.beir",
        "read_questions": "questions",
        "read_run": "sets.beir",
        "read_texts": "texts",
        "read_transcripts": "transcripts",
        "split_by_time": "interactions.splits",
        "spoken_digits": "sets.fsdd",
        "stsb": "sets.sts",
        "xquad": "sets.retrieval_sets",
    },
)
