"""Real texts of the machine itself: sentences of docstrings, comments, manuals, documentation and glosses."""

from __future__ import annotations

import gzip
import html
import re
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

LARGEST_FILE_BYTES = 4_000_000
FEWEST_WORDS, MOST_CHARACTERS = 5, 400

_TRIPLE_QUOTED = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.DOTALL)
_HASH_COMMENT = re.compile(r"(?:^[ \t]*#+[ \t]?(?![!:-]).*\n)+", re.MULTILINE)
_C_COMMENT = re.compile(r"/\*+(.*?)\*+/|((?:^[ \t]*//+.*\n)+)", re.DOTALL | re.MULTILINE)
_COMMENT_MARK = re.compile(r"^[ \t]*(?:#+|//+!?|\*+)[ \t]?", re.MULTILINE)
_MARKUP = re.compile(r"<(script|style|pre)\b.*?</\1>|<!--.*?-->", re.DOTALL)
_BLOCK_TAG = re.compile(r"</?(?:p|li|h\d|td|th|tr|dt|dd|div|section|summary|br)\b[^>]*>")
_TAG = re.compile(r"<[^>]*>")
_ROFF_FONT = re.compile(r"\\f(?:\(..|\[[^]]*\]|.)|\\s[-+]?\d|\\[&/,|^]")
_BETWEEN_SENTENCES = re.compile(r"(?<=[a-z)\"'][.!?:])\s+(?=[A-Z\"'(`])")
_BLANK_LINE = re.compile(r"\n\s*\n")
_WORD = re.compile(r"[A-Za-z][a-z]+")


def default_roots() -> list[Path]:
    """Python's library and packages, and what Debian documents: ``/usr/share`` and the C headers."""
    python = [sysconfig.get_path(name) for name in ("stdlib", "purelib")]
    system = ["/usr/lib/python3", "/usr/share/doc", "/usr/share/man", "/usr/share/perl", "/usr/share/wordnet"]
    roots = [Path(folder) for folder in [*python, *system, "/usr/include"]]
    return [root for root in roots if root.is_dir()]


def distinct_texts(roots: Iterable[Path], workers: int = 1) -> list[str]:
    """All texts below ``roots`` but the first of those that differ only in case, digits and signs; sorted."""
    found: dict[str, str] = {}
    files = sorted({path for root in roots for path in _files(root)})
    with ProcessPoolExecutor(workers) as pool:
        for texts in tqdm(pool.map(texts_of, files, chunksize=64), total=len(files), disable=None):
            for text in texts:
                found.setdefault(" ".join(_WORD.findall(text)).lower(), text)
    return sorted(found.values())


def texts_of(path: Path) -> list[str]:
    """The sentences of one file; none where it is too large or not UTF-8."""
    packed = path.suffix == ".gz"
    try:
        content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        source = content.decode()
    except (OSError, EOFError, UnicodeDecodeError):
        return []
    name = path.stem if packed else path.name
    return [text for paragraph in _paragraphs(name, source) for text in _sentences(paragraph)]


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if _is_read(path) and path.is_file() and path.stat().st_size <= LARGEST_FILE_BYTES:
            yield path.resolve()


def _is_read(path: Path) -> bool:
    readable = path.suffix in {
        ".py",
        ".pyi",
        ".h",
        ".hpp",
        ".c",
        ".html",
        ".md",
        ".rst",
        ".txt",
        ".pod",
        ".pm",
    }
    return (
        readable
        or path.name in {f"data.{kind}" for kind in ("noun", "verb", "adj", "adv")}
        or (path.suffix == ".gz" and path.is_relative_to("/usr/share"))
    )


def _paragraphs(name: str, source: str) -> Iterator[str]:
    suffix = name.rpartition(".")[2]
    if suffix in {"py", "pyi"}:
        blocks = ["".join(pair) for pair in _TRIPLE_QUOTED.findall(source)]
        blocks += [_COMMENT_MARK.sub("", block) for block in _HASH_COMMENT.findall(source)]
    elif suffix in {"h", "hpp", "c"}:
        blocks = [_COMMENT_MARK.sub("", "".join(pair)) for pair in _C_COMMENT.findall(source)]
    elif suffix == "html":
        blocks = [html.unescape(_TAG.sub("", _BLOCK_TAG.sub("\n\n", _MARKUP.sub(" ", source))))]
    elif name.startswith("data."):
        blocks = [line.partition("| ")[2].partition('; "')[0] for line in source.splitlines()]
    elif suffix[:1].isdigit():
        lines = ("" if line[:1] in {".", "'"} else line for line in source.splitlines())
        blocks = [_ROFF_FONT.sub("", "\n".join(lines)).replace("\\-", "-")]
    else:
        blocks = [source]
    for block in blocks:
        yield from _BLANK_LINE.split(block)


def _sentences(paragraph: str) -> Iterator[str]:
    """Sentences that are mostly words: no code, no tables, no headings."""
    for sentence in _BETWEEN_SENTENCES.split(" ".join(paragraph.split())):
        if len(sentence) <= MOST_CHARACTERS and sentence.isprintable():
            words = _WORD.findall(sentence)
            if len(words) >= FEWEST_WORDS and sum(map(len, words)) > 0.65 * len(sentence):
                yield sentence
