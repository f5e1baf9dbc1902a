"""Catalogue of data sets: name, licence, files and checksums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RemoteFile:
    """One file at a public address: where it lies and what it must be."""

    url: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class DataSet:
    """A data set by name.

    Args:
        name: also the name of its folder.
        what: description in one line.
        licence: as its makers state it.
        loader: the call that reads it.
        homepage: web page, or the software that includes it.
        files: by file name; None stands for a file that no public address with a checksum is known for.
    """

    name: str
    what: str
    licence: str
    loader: str
    homepage: str
    files: Mapping[str, RemoteFile | None] = field(default_factory=dict)


_FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
_STS = "https://raw.githubusercontent.com/PhilipMay/stsb-multi-mt/main/data"
_RSA = "https://raw.githubusercontent.com/rsagroup/rsatoolbox/main/demos"
_XQUAD = "https://raw.githubusercontent.com/google-deepmind/xquad/master"


def _remote(folder: str, *files: tuple[str, int, str]) -> dict[str, RemoteFile]:
    """Files below a public address, by name: the path, size and sha256 of each."""
    return {
        path.rpartition("/")[2]: RemoteFile(f"{folder}/{path}", sha256, size_bytes)
        for path, size_bytes, sha256 in files
    }


DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "docstrings",
            "names and descriptions of what the installed Python packages define; tens of thousands of pairs",
            "each text under that of its package",
            "nestling.data.docstring_pairs()",
            "the running interpreter's standard library and site-packages",
        ),
        DataSet(
            "digits",
            "1,797 handwritten digits of 8x8 pixels in 10 classes (UCI)",
            "CC BY 4.0",
            "nestling.data.digits()",
            "bundled with scikit-learn",
        ),
        DataSet(
            "fashion-mnist",
            "60,000 + 10,000 pictures of clothes of 28x28 pixels in 10 classes",
            "MIT",
            'nestling.data.fashion_mnist("train")',
            "https://github.com/zalandoresearch/fashion-mnist",
            _remote(
                _FASHION,
                (
                    "train-images-idx3-ubyte.gz",
                    26_421_880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                (
                    "train-labels-idx1-ubyte.gz",
                    29_515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                (
                    "t10k-images-idx3-ubyte.gz",
                    4_422_102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                (
                    "t10k-labels-idx1-ubyte.gz",
                    5_148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        ),
        DataSet(
            "sts",
            "STS benchmark: 8,628 pairs of sentences with their similarity from 0 to 5",
            "scores CC BY-SA 4.0, sentences by source",
            'nestling.data.stsb("test")',
            "https://github.com/PhilipMay/stsb-multi-mt",
            _remote(
                _STS,
                (
                    "stsb-en-train.csv",
                    708_863,
                    "e1e84fec60bbb598735552f54a35f4949904a484750fd2cb11e2720e49f63da6",
                ),
                (
                    "stsb-en-dev.csv",
                    204_675,
                    "d29586e96558c4eb52cf5ea5d14e9c24d3bf0e44f111b017caba43a5adc33226",
                ),
                (
                    "stsb-en-test.csv",
                    158_891,
                    "11523b625219e94e9ca05d2816b5f02cac1614c5894fe657376fa0806378d053",
                ),
            ),
        ),
        DataSet(
            "xquad",
            "1,190 questions and the 240 Wikipedia passages that answer them (English part)",
            "CC BY-SA 4.0",
            "nestling.data.xquad()",
            "https://github.com/google-deepmind/xquad",
            _remote(
                _XQUAD,
                (
                    "xquad.en.json",
                    609_383,
                    "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
                ),
            ),
        ),
        DataSet(
            "cranfield",
            "1,400 abstracts on aerodynamics, 225 questions, graded judgements (Cleverdon 1967)",
            "historic test collection, free for research",
            "nestling.data.cranfield()",
            "http://ir.dcs.gla.ac.uk/resources/test_collections/cran",
            {"cran.all.1400": None, "cran.qry": None, "cranqrel": None},
        ),
        DataSet(
            "grid",
            "400 sentences of speaker s1 of GRID: sound, pictures of the mouth and the time of each word",
            "CC BY 4.0",
            "nestling.data.grid_sentences()",
            "https://zenodo.org/records/3625687",
            {"grid_s1_400.npz": None},
        ),
        DataSet(
            "fsdd",
            "Free Spoken Digit Dataset: 3,000 recordings of digits by six speakers",
            "CC BY-SA 4.0",
            'nestling.data.spoken_digits("train")',
            "https://github.com/Jakobovski/free-spoken-digit-dataset",
            {"recordings.zip": None},
        ),
        DataSet(
            "language-models",
            "a Llama of 260,000 weights that writes short stories, and its tokenizer of 512 tokens",
            "MIT",
            "nestling.domains.prefix.stories.stories()",
            "https://huggingface.co/karpathy/tinyllamas",
            {"stories260K.bin": None, "tok512.bin": None},
        ),
        DataSet(
            "emoji-clip",
            "8,071 emoji of 32x32 pixels in 12 drawing styles, and a small CLIP trained on them",
            "by style: Apache-2.0, MIT, CC BY 4.0, CC BY-SA 4.0; names MIT",
            "nestling.data.emoji_pictures()",
            "the npm packages @iconify-json/*, rendered; names from emojibase-data",
            dict.fromkeys(("pictures.npz", "concepts.json", "model/config.json", "model/model.safetensors")),
        ),
        DataSet(
            "amazon-beauty",
            "what 22,363 people bought in order, of 12,101 beauty products with title, brand and categories",
            "research use (McAuley et al. 2015); titles belong to their sellers",
            "nestling.data.amazon_beauty()",
            "https://github.com/RUCAIBox/CIKM2020-S3Rec",
            dict.fromkeys(("sequences.txt.gz", "items.jsonl.gz", "minilm.npy")),
        ),
        DataSet(
            "rsa",
            "92 pictures: dissimilarities in human and monkey brains, of 16 judges, of models and AlexNet",
            "MIT (rsatoolbox); terms of the original recordings are not stated",
            'nestling.data.pictures92("brains")',
            "https://github.com/rsagroup/rsatoolbox/tree/main/demos",
            _remote(
                _RSA,
                (
                    "92imageData/92_brainRDMs.mat",
                    224_663,
                    "1743f90a15e895798a94318649e80e1123a7e5943a1703fa1dd7c31ea5780b7c",
                ),
                (
                    "92imageData/92_behavRDMs.mat",
                    982_719,
                    "7a8e118c144c3840adeeeef6ea0706a0be2b3e80df719af15fbb56fc62562f5f",
                ),
                (
                    "92imageData/92_modelRDMs.mat",
                    333_004,
                    "e1d2b58bb2f9508bc13da4c81b94d1ab07823b25ed30b9563bd9d6d730c2a00a",
                ),
                (
                    "92imageData/Kriegeskorte_Neuron2008_supplementalData.mat",
                    3_603_779,
                    "06f21214399a5d43dc264eed19a7f4b8daf11c8622a59eec3e106064ce5e3504",
                ),
                (
                    "rdms_inferring/modelRDMs_A2020.mat",
                    1_617_150,
                    "3a4f6fbc577f6d48eb30987c85f6d4f0b2e44fb0598fa97ea9e48270f70d0fe1",
                ),
            ),
        ),
    )
}
