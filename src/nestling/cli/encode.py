"""``nestling encode`` and ``extract``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nestling.axes import FLOAT_BITS
from nestling.cli.answering import answering_kind, check_answering, open_model
from nestling.cli.flags.completion import sizes_of_thing
from nestling.cli.flags.generated import with_groups
from nestling.cli.flags.options import AsJson, Model, StoredAt, Wait
from nestling.cli.flags.tables import ColumnFlags, open_table
from nestling.cli.terminal.output import say, show, show_json
from nestling.data.tables.input_file import find_file
from nestling.errors import ConfigError

_EXTRACTED = (
    "The size to keep, such as dim=64, or dim=128,layer=3 of a model with layers. Bits are no part of a "
    "model: give dim=256,bits=2 to encode or index build, which store its vectors."
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nestling.cut import CutRule
    from nestling.data.tables.description import TableFile
    from nestling.granularity import Nesting


@with_groups
def encode(
    model: Model,
    texts: Annotated[
        Path, typer.Argument(metavar="TEXTS", help="A file: .txt, .csv, .tsv, .jsonl, .parquet.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder, or a .npy file of float32.")],
    columns: ColumnFlags,
    at: StoredAt = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of texts encoded at a time.")] = 64,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a .npy file that exists.")] = False,
    wait: Wait = 0,
    as_json: AsJson = False,
) -> None:
    """Encode texts as vectors, at any size of the model, as float32 or as codes of a few bits.

    An output folder holds the vectors with the ids and the columns of the table. With bits in --at, it holds
    codes and no floats: they can be read at fewer dims and bits, not at more. If the command is interrupted,
    run it again to resume.

    Example: nestling encode nestling-demo/model my.jsonl --at dim=256,bits=2 -o vectors
    """
    find_file(texts)  # before what takes long to import
    from nestling.domains.text.encoding import encoded
    from nestling.encoders.text.names import check_model
    from nestling.encoders.text.opening import open_encoder
    from nestling.vectors.coding import size_and_bits, without_bits

    is_npy = output.suffix.lower() == ".npy"
    _check_output(output, is_npy=is_npy, overwrite=overwrite)
    source = open_table(texts, columns)
    check_model(model, without_bits(at))
    encoder = open_encoder(model)
    granularity, bits = size_and_bits(encoder.nesting, at)
    _check_bits(bits, is_npy=is_npy)
    with encoded(encoder, source, output, granularity, batch_size=batch_size, wait=wait) as matrix:
        rows, dim = matrix.shape
        if is_npy:
            _write_array(output, matrix, source, texts)
        else:
            nesting, rule = encoder.nesting.up_to(granularity), encoder.rule.again
            rule = rule if granularity == encoder.nesting.full else rule.without_code
            _write_folder(output, matrix, nesting, rule, bits, source, model)
    is_coded = bits < max(FLOAT_BITS)
    say(f"{rows:,} vectors of {dim} dims" + (f" in {bits} bits" if is_coded else ""))
    stored = granularity.replace(bits=bits) if is_coded else granularity
    answer = {"vectors": str(output), "rows": rows, "granularity": str(stored)}
    show_json(answer) if as_json else show(str(output))


def _check_output(output: Path, *, is_npy: bool, overwrite: bool) -> None:
    """Refuse an output that may not be replaced, before anything is encoded."""
    from nestling.storage.artifact import check_file_target, check_folder_target

    if is_npy:
        check_file_target(output, overwrite=overwrite)
    else:
        check_folder_target(output, "stored_vectors")


def _check_bits(bits: int, *, is_npy: bool) -> None:
    if is_npy and bits < max(FLOAT_BITS):
        raise ConfigError(
            f"a .npy file holds vectors as float32, not in {bits} bits; give a folder as --output, or leave "
            "out bits"
        )


def _write_array(output: Path, matrix: NDArray[Any], source: TableFile, texts: Path) -> None:
    from nestling.storage.npy import write_array

    write_array(output, matrix)
    if source.ids is not None or len(source.kinds) > 1:
        say(f"{output} holds vectors only; give a folder as -o to keep the ids and columns of {texts}")


def _write_folder(
    output: Path,
    matrix: NDArray[Any],
    nesting: Nesting,
    rule: CutRule,
    bits: int,
    source: TableFile,
    model: str,
) -> None:
    from nestling.vectors.coding import with_code
    from nestling.vectors.stored import StoredVectors

    with TemporaryDirectory(dir=output.resolve().parent, prefix=".nestling-") as place:
        stored = StoredVectors(
            matrix,
            nesting,
            rule,
            ids=source.ids,
            encoder=model,
            fields=source.spooled_fields(Path(place) / "fields"),
            columns=source.columns,
        )
        if bits == max(FLOAT_BITS):
            stored.save(output)
        else:
            with_code(stored, f"bits={bits}").extract(f"bits={bits}", output)


def extract(
    model: Model,
    at: Annotated[str, typer.Option(help=_EXTRACTED, autocompletion=sizes_of_thing)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    as_json: AsJson = False,
) -> None:
    """Cut a model to one size, and save it as a smaller model.

    The folder holds a model that needs nothing of the larger one, except that a model of pictures or speech
    with adapters may need its base. Plain sentence-transformers (6 or newer) loads a text model too.

    Example: nestling extract nestling-demo/model --at dim=64 -o small
    """
    if answering_kind(model) is not None:
        _extract_tokens(model, at, output, as_json)
        return
    from nestling.encoders.text.names import check_model
    from nestling.encoders.text.opening import open_encoder
    from nestling.encoders.text.serving_compatibility import in_words, served_by
    from nestling.storage.artifact import check_folder_target

    check_folder_target(output, "text_encoder")
    check_model(model, at)
    encoder = open_encoder(model)
    small = encoder.extract(at)
    small.save(output)
    before, after = encoder.cost(), small.cost()
    say(f"{before.parameters:,} parameters became {after.parameters:,}")
    served = served_by(output)
    if said := in_words(each for each in served if each.vectors != "other"):  # of those save warns
        say(said)
    answer = {
        "model": str(output),
        "parameters_before": before.parameters,
        "parameters": after.parameters,
        "served_by": {each.server: each.vectors for each in served},
    }
    show_json(answer) if as_json else show(str(output))


def _extract_tokens(model: str, at: str, output: Path, as_json: bool) -> None:
    """Cut a model of pictures or speech to one number of tokens."""
    from nestling.storage.artifact import check_folder_target

    check_folder_target(output, answering_kind(model) or "")
    check_answering(model, [at])
    small = open_model(model).extract(at)
    small.save(output)
    answer = {"model": str(output), "nesting": str(small.nesting)}
    show_json(answer) if as_json else show(str(output))
