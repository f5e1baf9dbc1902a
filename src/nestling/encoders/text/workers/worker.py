"""The program of a worker process: lines of JSON in, lines of JSON and vectors out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

from nestling.errors import NestlingError


def main(folder: str, device: str) -> None:
    """Answer requests with the model of ``folder`` until the input ends.

    An answer is a line of JSON, followed by ``Float32[texts, dim]`` as bytes where it names no error.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # printed text must not mix with answers
    try:
        _serve(Path(folder), device, requests, answers)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)


def _serve(folder: Path, device: str, requests: BinaryIO, answers: BinaryIO) -> None:
    from nestling.encoders.text.encoder import TextEncoder  # torch, whose warnings must not mix with answers

    encoder: Any = None
    for line in requests:
        asked = json.loads(line)
        try:
            encoder = encoder or TextEncoder.load(folder, device=device)
            found = encoder.encode(asked.pop("texts"), **asked)
        except NestlingError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
            answers.write(json.dumps(answer).encode() + b"\n")
        else:
            answers.write(b"{}\n")
            answers.write(found.astype("<f4", copy=False).tobytes())
        answers.flush()
