"""The manifest of an index: it lists all files, and is committed by one atomic rename.

    nestling.json           the manifest, with its own checksum
    segments/00000003/      vectors.npy (plane1.npy, ... of codes), ids.npy, engine/: immutable, named after
                            the manifest that added them
    deleted-00000007.npy    deleted rows of the segments, as bits
    log-00000007            the write-ahead log, and mark-00000007, its commit offset
    writer.lock             held by the process that writes

A commit writes the new files beside the old ones, flushes them, and renames the new manifest over the old.
Files that no manifest lists are left over from an interruption; the next writer removes them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from nestling import __version__
from nestling.cut import CutRule
from nestling.data.tables.fields.kinds import FieldKind
from nestling.encoders.reference import same_encoder
from nestling.errors import ArtifactError, ConfigError
from nestling.granularity import Nesting
from nestling.search.exact.neighbours import Metric
from nestling.search.index.files.ids import IdKind
from nestling.search.index.files.segments import (
    SEGMENTS,
    SegmentRecord,
    Terms,
    file_names,
    is_being_built,
    segment_name,
)
from nestling.search.index.files.wal import LogFiles
from nestling.search.plan.plan import Plan, Point
from nestling.storage.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    FileRecord,
    Manifest,
    malformed,
    read_manifest,
    storage_errors,
    verify_files,
)
from nestling.storage.durable import flush_folder, write_new
from nestling.storage.kinds import check_kind
from nestling.storage.lock import LOCK
from nestling.storage.npy import read_array
from nestling.storage.schema import SavedFields

KIND = "index"
_FRESH, _BACKUP = f".{MANIFEST}.new", f".{MANIFEST}.old"
_NO_CHECKSUM = "0" * 64
_NAMED_BY_GENERATION = re.compile(r"(?:log|mark|deleted)-\d{8}(?:\.npy)?")
_RESTORE = "restore a backup of the folder, or build it again with: nestling index build VECTORS -o FOLDER"


class IndexSettings(SavedFields):
    """The part of the manifest that belongs to indexes.

    Args:
        checksum: of the manifest itself, taken with zeros in this place.
        index: a random id of the index, which its log repeats.
        generation: the number of the manifest; every commit adds one.
        dim: entries of a vector.
        metric: of comparisons.
        encoder: name of the encoder of the vectors.
        plan: of segments that are large enough for it.
        seed: of all random choices while building.
        sources: of an index that was extracted, entries and cut rule of the vectors of those before it.
        id_kind: the kind of the ids; None before the first row.
        next_id: the number that the next row gets if it is given none.
        segments: oldest first.
        table: measurements of the index, one row per point.
        fields: of the rows, each with its type.
        columns: names of the columns of the source table, by role.
        default_point: of a search that names none; empty for that of the plan.
        default_k: neighbours for which that point was measured.
        sampled: whether the table was measured with rows of the index as queries.
        reason: reason for the choice of the plan, in words.
    """

    checksum: str = _NO_CHECKSUM
    index: str
    generation: int
    dim: int
    metric: Metric
    encoder: str
    plan: str
    seed: int
    sources: tuple[tuple[int, dict[str, Any]], ...]
    id_kind: IdKind | None
    next_id: int
    segments: tuple[SegmentRecord, ...]
    table: tuple[dict[str, Any], ...]
    fields: dict[str, FieldKind] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)
    default_point: str = ""
    default_k: int = 0
    sampled: bool = False
    reason: str = ""


@dataclass(frozen=True)
class IndexManifest:
    """A committed state of an index on the disk.

    Args:
        nesting: sizes the index can be searched at.
        rule: the cut rule of the vectors given to it.
        settings: everything else.
        files: size and checksum of each file by its name.
    """

    nesting: Nesting
    rule: CutRule
    settings: IndexSettings
    files: Mapping[str, FileRecord]

    # Every search needs these, so they are computed once; a manifest never changes.
    @cached_property
    def terms(self) -> Terms:
        """The settings that all segments share; the rule's part before a cut is applied already."""
        s = self.settings
        plan = Plan.parse(s.plan).resolve(s.dim)
        return Terms(s.dim, self.rule.again, s.metric, plan, s.seed, s.fields, self.nesting.full.get("bits"))

    @cached_property
    def smallest_dim(self) -> int:
        """The smallest prefix that any search may read."""
        stages = (stage.dim for stage in self.terms.plan.stages() if stage.dim is not None)
        return min(*self.nesting.sizes("dim"), *stages)

    @cached_property
    def takes(self) -> dict[int, CutRule]:
        """The rule for queries of each width: of this index, and of those it was extracted from."""
        earlier = {dim: CutRule.from_json(rule) for dim, rule in self.settings.sources}
        rule = self.rule.without_code
        return {self.terms.format.full: rule.again, **earlier, self.settings.dim: rule}

    @cached_property
    def adds(self) -> dict[int, CutRule]:
        """The rule for new rows of each width: as for queries, but that codes are made of whole vectors."""
        held = self.terms.format
        return self.takes if held.bits is None else {held.full: self.takes[held.full]}

    @cached_property
    def _default(self) -> Point | None:
        text = self.settings.default_point
        return Point.parse(text) if text else None

    def point_for(self, k: int, point: Point | None = None) -> Point | None:
        """A measured point, by default that of searches that name none, for so many neighbours.

        For more than were measured, shortlists and views grow in proportion. None is the point of the plan.
        """
        found, measured = point or self._default, self.settings.default_k
        return found if found is None or not measured or k <= measured else found.grown(k / measured)

    @property
    def deleted_name(self) -> str:
        """The file of the deleted rows, where any are."""
        return f"deleted-{self.settings.generation:08d}.npy"

    def log(self, root: Path) -> LogFiles:
        """The log of the updates since."""
        return LogFiles(root, uuid.UUID(self.settings.index), self.settings.generation)

    def check_identity(self, root: Path, encoder: str | None, rule: CutRule | None) -> None:
        """Vectors of different encoders, or cut by different rules, cannot be compared.

        Raises:
            ConfigError: for another encoder or rule than those of the index.
        """
        settings = self.settings
        if encoder is not None and not same_encoder(encoder, settings.encoder):
            theirs = f"the encoder {settings.encoder!r}" if settings.encoder else "an encoder without a name"
            raise ConfigError(
                f"{root} holds vectors of {theirs}, not of {encoder!r}; use the "
                f"former, or build an index from vectors of the latter: {self._command(encoder, self.rule)}"
            )
        if rule is not None and rule.without_code != self.rule.without_code:
            raise ConfigError(
                f"{root} was built with {self.rule}, not with {rule}; use the former, or build an index with "
                f"the latter: {self._command(settings.encoder, rule)}"
            )

    def _command(self, encoder: str, rule: CutRule) -> str:
        """The shell command that builds such an index from other vectors."""
        settings = self.settings
        made_by = f" --made-by {shlex.quote(encoder)}" if encoder else ""
        return (
            f"nestling index build VECTORS -o FOLDER --plan {shlex.quote(settings.plan)} "
            f"--metric {settings.metric} --before {rule.before} --after {rule.after}{made_by}"
        )

    def encode(self) -> bytes:
        """The bytes of the manifest, with their checksum."""
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            kind=KIND,
            nestling_version=__version__,
            nesting=str(self.nesting),
            cut=self.rule.to_json(),
            settings=self.settings.model_copy(update={"checksum": _NO_CHECKSUM}).model_dump(),
            files=dict(self.files),
        )
        plain = (json.dumps(manifest.model_dump(), indent=1) + "\n").encode()
        return plain.replace(_NO_CHECKSUM.encode(), hashlib.sha256(plain).hexdigest().encode(), 1)


def load_manifest(root: Path, known: Mapping[str, FileRecord] | None = None) -> IndexManifest:
    """Read the manifest and verify it and every file that it lists, before any other reader opens one.

    Args:
        root: the folder of the index.
        known: files that this process verified before, which never change and are not read again.

    Raises:
        ArtifactError: if anything is missing, altered, added to a segment, of another kind or too new.
    """
    raw = read_manifest(root)
    check_kind(root, raw.kind, KIND)
    try:
        settings = IndexSettings.model_validate(raw.settings)
    except ValidationError as error:
        raise malformed(root / MANIFEST, error, "settings") from error
    _check_itself(root / MANIFEST, settings.checksum)
    manifest = IndexManifest(raw.read_nesting(), raw.read_cut(), settings, raw.files)
    held = manifest.terms.format
    for name in (name for record in settings.segments for name in file_names(record, held)):
        if name not in manifest.files:
            raise ArtifactError(f"the manifest of {root} lists no {name}; {_RESTORE}")
    verify_files(
        root, {name: record for name, record in manifest.files.items() if (known or {}).get(name) != record}
    )
    _refuse_strangers(root, manifest)
    return manifest


def read_deleted(root: Path, manifest: IndexManifest) -> list[NDArray[np.bool_]]:
    """Masks of the live rows of each segment; the file was verified."""
    counts = [segment.rows for segment in manifest.settings.segments]
    if manifest.deleted_name not in manifest.files:
        return [np.ones(count, np.bool_) for count in counts]
    bits = read_array(root / manifest.deleted_name)
    if bits.dtype != np.uint8 or bits.shape != (-(-sum(counts) // 8),):
        raise ArtifactError(f"{root / manifest.deleted_name} does not fit the segments; {_RESTORE}")
    live = np.unpackbits(bits, count=sum(counts)) == 0
    return np.split(live, np.cumsum(counts)[:-1])


def commit_manifest(root: Path, manifest: IndexManifest) -> None:
    """Commit a manifest, all of whose files are on the disk: from now on readers see it.

    Raises:
        StorageError: if that fails; the previous manifest stays valid.
    """
    target, fresh, backup = root / MANIFEST, root / _FRESH, root / _BACKUP
    with storage_errors(target):
        before = target.read_bytes() if target.exists() else None
        if before is not None:  # now, as there may be no space for it when it is needed
            write_new(backup, [before])
        write_new(fresh, [manifest.encode()])
        try:
            fresh.replace(target)
            flush_folder(root)
        except BaseException:
            if before is None:
                target.unlink(missing_ok=True)
            else:
                backup.replace(target)
            raise


def leftovers(root: Path, manifest: IndexManifest | None, *, resume: bool) -> list[Path]:
    """Files of interrupted writers that no manifest lists.

    Args:
        root: the folder of the index.
        manifest: the committed one; None where there is none yet.
        resume: keep the next segment if its build can be resumed.
    """
    try:
        return _leftovers(root, manifest, resume=resume)
    except OSError:  # a file that cannot be inspected now does no harm, and the next writer removes it
        return []


def _leftovers(root: Path, manifest: IndexManifest | None, *, resume: bool) -> list[Path]:
    kept = set() if manifest is None else {Path(name).parts[0] for name in manifest.files}
    if manifest is not None:
        log = manifest.log(root)
        kept |= {log.path.name, log.offset_path.name}
    segments = set() if manifest is None else {record.name for record in manifest.settings.segments}
    found = [
        path
        for path in root.iterdir()
        if (_NAMED_BY_GENERATION.fullmatch(path.name) or path.name in (_FRESH, _BACKUP))
        and path.name not in kept
    ]
    if (root / SEGMENTS).is_dir():
        found += [path for path in (root / SEGMENTS).iterdir() if path.name not in segments]
    if resume:
        coming = 1 if manifest is None else manifest.settings.generation + 1
        found = [
            path
            for path in found
            if path != root / SEGMENTS / segment_name(coming) or not is_being_built(path)
        ]
    return sorted(found)


def strangers(root: Path) -> list[str]:
    """Files in a folder that no index wrote."""
    ours = {MANIFEST, _FRESH, _BACKUP, SEGMENTS, LOCK}
    names = (path.name for path in root.iterdir())
    return sorted(name for name in names if name not in ours and not _NAMED_BY_GENERATION.fullmatch(name))


def _check_itself(path: Path, checksum: str) -> None:
    raw = path.read_bytes()
    plain = raw.replace(checksum.encode(), _NO_CHECKSUM.encode(), 1)
    if len(checksum) != len(_NO_CHECKSUM) or hashlib.sha256(plain).hexdigest() != checksum:
        raise ArtifactError(f"{path} was altered: its checksum differs; {_RESTORE}")


def _refuse_strangers(root: Path, manifest: IndexManifest) -> None:
    """In the folders of segments, where engines look for their files by name."""
    for record in manifest.settings.segments:
        for path in (root / SEGMENTS / record.name).rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in manifest.files:
                raise ArtifactError(f"{path} is not a file of this index; remove it")
