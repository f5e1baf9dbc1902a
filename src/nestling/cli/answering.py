"""How ``sweep`` and ``extract`` open and measure models that read tokens of pictures or of sound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestling.arguments.paths import home_path
from nestling.cli.flags.tasks import TaskFlags
from nestling.errors import ConfigError

if TYPE_CHECKING:
    from nestling.granularity import At, Nesting
    from nestling.measure.curve.curve import Curve

_FLAGS = {"answerer": "--pictures", "recogniser": "--recordings"}
"""The flag of the data of each kind of model."""


def answering_kind(model: str) -> str | None:
    """The kind of a saved model that reads tokens of pictures or of sound; None for any other."""
    from nestling.storage.artifact import MANIFEST, read_manifest

    if not (home_path(model) / MANIFEST).is_file():
        return None
    kind = read_manifest(model).kind
    return kind if kind in _FLAGS else None


def check_data(model: str, flags: TaskFlags) -> None:
    """Refuse data that is not for the kind of the model.

    Raises:
        ConfigError: naming the flag that is.
    """
    kind = answering_kind(model)
    wanted = None if kind is None else _FLAGS[kind]
    given = "--pictures" if flags.pictures else "--recordings" if flags.recordings else None
    if given == wanted:
        return
    if kind is not None:
        what = "answers questions about pictures" if kind == "answerer" else "transcribes speech"
        raise ConfigError(f"{model} {what}; give the data to measure on by {wanted} FILE")
    raise ConfigError(
        f"{given} is for a model that nestling train made with a plan of that task, not {model}"
    )


def check_answering(model: str, sizes: Iterable[At]) -> None:
    """Refuse sizes that a saved model does not have, and a model that is made around others that are missing.

    Raises:
        GranularityError: for another size.
        DataError: for a base that is not there.
        MissingExtraError: if required packages are not installed.
    """
    from nestling.domains.prefix.names import check_pretrained
    from nestling.process.extras import check_packages
    from nestling.storage.artifact import read_manifest

    manifest = read_manifest(model)
    own = manifest.read_nesting()
    for size in sizes:
        own.resolve(size)
    parts: Mapping[str, Any] = manifest.settings.get("parts") or {"base": manifest.settings.get("base")}
    for what, name in parts.items():
        if isinstance(name, str):
            check_pretrained(name, what.replace("_", " "), ("small", "stories260K"))
    check_packages("torch", "transformers")


def open_model(model: str) -> Any:
    """A saved model, opened: it has ``nesting``, ``extract``, ``save`` and a cost."""
    if answering_kind(model) == "answerer":
        from nestling.domains.vision_language.answerer import Answerer

        return Answerer.open(model)
    from nestling.domains.speech.recogniser import Recogniser

    return Recogniser.open(model)


def curve_of_answers(model: str, nesting: Nesting | None, flags: TaskFlags, **how: Any) -> Curve:
    """The curve of a saved model over its tokens.

    Raises:
        ConfigError: for flags of stored vectors.
        DataError: for data that cannot be used.
    """
    if how.pop("bits") != "default" or how.pop("both_sides"):
        raise ConfigError("--bits and --both-sides are for stored vectors; leave them out")
    how |= {"seed": flags.seed, "source": flags.source}
    check_answering(model, nesting or ())
    if flags.pictures is not None:
        questions = _questions(flags.pictures, flags.columns)
        from nestling.domains.vision_language.sweep import sweep_answers

        return sweep_answers(open_model(model), questions, nesting, **how)
    assert flags.recordings is not None
    from nestling.data.tables.roles import TRANSCRIPT_ROLES, read_roles
    from nestling.data.transcripts import read_transcripts

    roles = read_roles(flags.columns, TRANSCRIPT_ROLES)
    recordings = read_transcripts(flags.recordings, **roles, split="test")
    from nestling.domains.speech.sweep import sweep_transcripts

    return sweep_transcripts(open_model(model), recordings, nesting, **how)


def _questions(path: Path, columns: str | None) -> Any:
    from nestling.data.questions import read_questions
    from nestling.data.tables.roles import QUESTION_ROLES, read_roles

    return read_questions(path, **read_roles(columns, QUESTION_ROLES))
