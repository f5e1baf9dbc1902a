"""Downloads against a real server on this machine."""

from __future__ import annotations

import errno
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nestling.data import listing, locate
from nestling.data.sets import catalogue
from nestling.data.sets.catalogue import DATA_SETS, DataSet, RemoteFile
from nestling.data.sets.source import cache_folder, download, where
from nestling.errors import ConfigError, DataError, StorageError

BODY = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """``/whole``, ``/cut`` (breaks off), ``/other`` (other bytes), ``/slow`` (stops half way), else 404."""

    requests: list[str]
    closing: threading.Event

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path not in ("/whole", "/cut", "/other", "/slow", "/unsized"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unsized":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        half = len(BODY) // 2
        if self.path in ("/cut", "/unsized"):
            self.wfile.write(BODY[:half])
        elif self.path == "/slow":
            self.wfile.write(BODY[:half])
            self.wfile.flush()
            self.closing.wait(30)
        else:
            self.wfile.write(BODY[::-1] if self.path == "/other" else BODY)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    handler = type("Counting", (Handler,), {"requests": [], "closing": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = False  # closing waits for them, so that no socket is left open
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", handler.requests
        handler.closing.set()
        http.shutdown()
        thread.join()


def remote(url: str) -> RemoteFile:
    return RemoteFile(url, hashlib.sha256(BODY).hexdigest(), len(BODY))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's folder and the cache, both empty."""
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "own", tmp_path / "cache"


def register(monkeypatch: pytest.MonkeyPatch, files: dict[str, RemoteFile | None]) -> None:
    data_set = DataSet("toy", "a toy", "none", "toy()", "https://toy.example", files)
    monkeypatch.setitem(catalogue.DATA_SETS, "toy", data_set)


def test_the_own_folder_then_the_cache_then_the_source(
    server: tuple[str, list[str]], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requests = server
    own, cache = folders
    register(monkeypatch, {"a.bin": remote(f"{url}/whole"), "b.bin": remote(f"{url}/whole")})
    assert where("toy") is None
    assert locate("toy") == cache / "toy" == where("toy")
    assert (cache / "toy" / "b.bin").read_bytes() == BODY
    assert requests == ["/whole", "/whole"]
    assert locate("toy") == cache / "toy"
    (own / "toy").mkdir(parents=True)
    (own / "toy" / "a.bin").write_bytes(b"mine")
    assert locate("toy") == cache / "toy"  # one file is missing there
    (own / "toy" / "b.bin").write_bytes(b"mine")
    assert locate("toy") == own / "toy"
    assert len(requests) == 2
    monkeypatch.delenv("NESTLING_DATA")
    assert locate("toy") == cache / "toy"


def test_only_what_is_missing_is_loaded(
    server: tuple[str, list[str]], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requests = server
    register(monkeypatch, {"a.bin": remote(f"{url}/whole"), "b.bin": remote(f"{url}/cut")})
    with pytest.raises(DataError, match="toy is not on this machine"):
        locate("toy")
    register(monkeypatch, {"a.bin": remote(f"{url}/whole"), "b.bin": remote(f"{url}/whole")})
    locate("toy")
    assert requests == ["/whole", "/cut", "/whole"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/cut", "broke off after 512,000 of 1,024,000 bytes|could not be loaded: IncompleteRead"),
        ("/unsized", "broke off after 512,000 of 1,024,000 bytes"),
        ("/other", "another file than the one on record: its sha256 is"),
        ("/none", "could not be loaded: HTTP Error 404|could not be loaded: Not Found"),
    ],
)
def test_what_is_not_the_file_leaves_nothing(
    server: tuple[str, list[str]],
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    message: str,
) -> None:
    own, cache = folders
    register(monkeypatch, {"a.bin": remote(server[0] + path), "b.bin": None})
    with pytest.raises(DataError, match=message) as caught:
        locate("toy")
    text = str(caught.value)
    assert f"Get it from https://toy.example and put a.bin, b.bin into {own / 'toy'}" in text
    assert list((cache / "toy").iterdir()) == []


def test_without_a_network_the_text_says_what_to_put_where(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    register(monkeypatch, {"a.bin": remote(f"http://127.0.0.1:{port}/whole")})
    monkeypatch.delenv("NESTLING_DATA")
    with pytest.raises(
        DataError, match=r"could not be loaded: .*refused.*put a\.bin into <folder>/toy and set NESTLING_DATA"
    ):
        locate("toy")


def test_a_file_without_a_known_address(folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match=r"no public address with a checksum is known for cran\.all\.1400"):
        locate("cranfield")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_is_broken_off_can_be_started_again(
    server: tuple[str, list[str]], tmp_path: Path, stop: signal.Signals
) -> None:
    target = tmp_path / "a.bin"
    slow = remote(f"{server[0]}/slow")
    code = (
        "from pathlib import Path\nfrom nestling.data.sets.source import download, RemoteFile\n"
        f"download(RemoteFile({slow.url!r}, {slow.sha256!r}, {slow.size_bytes}), Path({str(target)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size for path in tmp_path.iterdir()):
            assert time.monotonic() < deadline, "the download did not begin"
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(timeout=30) != 0
    assert not target.exists()
    if stop == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
    download(remote(f"{server[0]}/whole"), target)
    assert target.read_bytes() == BODY


def test_a_full_disk_is_said_and_leaves_nothing(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="disk is full"):
        download(remote(f"{server[0]}/whole"), tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not be written"):
        download(remote(f"{server[0]}/whole"), tmp_path / "file" / "a.bin")


def test_names_that_are_not_in_the_catalogue_or_have_no_files() -> None:
    with pytest.raises(ConfigError, match="unknown data set 'fashion_mnist'; did you mean 'fashion-mnist'"):
        locate("fashion_mnist")
    with pytest.raises(
        ConfigError, match="digits has no files to locate; it comes from: bundled with scikit-learn"
    ):
        locate("digits")


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NESTLING_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "nestling"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "nestling"
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "y"))
    assert cache_folder() == tmp_path / "y"


def test_the_listing_says_where_each_set_is(folders: tuple[Path, Path]) -> None:
    own, _ = folders
    (own / "xquad").mkdir(parents=True)
    (own / "xquad" / "xquad.en.json").write_bytes(b"1234")
    found = {line.name: line for line in listing()}
    assert set(found) == set(DATA_SETS)
    assert (found["xquad"].place, found["xquad"].here, found["xquad"].size_bytes) == (
        str(own / "xquad"),
        True,
        4,
    )
    assert (found["sts"].here, found["sts"].size_bytes) == (False, 1_072_429)
    assert (found["cranfield"].here, found["cranfield"].size_bytes) == (False, None)
    assert (found["digits"].here, found["digits"].size_bytes) == (True, None)
    assert all(line.what and line.licence and "\n" not in line.what for line in found.values())


def test_checksums_on_record_are_those_of_the_files(shared_data: Path) -> None:
    # Fashion-MNIST was packed again by the distribution that it came from; its pictures are the same.
    for name in ("sts", "xquad"):
        for file, record in DATA_SETS[name].files.items():
            assert record is not None
            assert hashlib.sha256((shared_data / name / file).read_bytes()).hexdigest() == record.sha256
            assert (shared_data / name / file).stat().st_size == record.size_bytes
