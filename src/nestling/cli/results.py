"""The files of results that a command writes into a folder, checked before the work is done."""

from __future__ import annotations

from pathlib import Path

from nestling.process.extras import check_packages


def check_results(folder: Path | None, *names: str) -> None:
    """Refuse a folder where results cannot or may not be written.

    Args:
        folder: where to; None is nowhere.
        names: of the files.

    Raises:
        ArtifactError: if one of them is there and nestling did not write it.
        StorageError: if nothing can be written there.
        MissingExtraError: for pictures without matplotlib.
    """
    if folder is None:
        return
    from nestling.storage.artifact import check_file_target

    for name in names:
        check_file_target(folder / name)
    if any(name.endswith(".png") for name in names):
        check_packages("matplotlib")
