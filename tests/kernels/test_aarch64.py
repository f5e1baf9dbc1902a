"""The kernels for NEON against the plain ones, on an ARM machine or an emulated one."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"
NATIVE = platform.machine() in ("aarch64", "arm64")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that compares, compiled from the sources of the library as they are shipped."""
    missing = [tool for tool in (["c++"] if NATIVE else [COMPILER, EMULATOR]) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: the kernels for NEON cannot run here")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        import hatch_build
    native = ROOT / hatch_build.SOURCES
    made = tmp_path_factory.mktemp("aarch64") / "compare"
    flags = [flag for flag in hatch_build.FLAGS if flag != "-shared"] + ([] if NATIVE else ["-static"])
    sources = [*map(str, sorted(native.glob("*.cpp"))), str(Path(__file__).with_name("aarch64.cpp"))]
    compiler = "c++" if NATIVE else COMPILER
    strict = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, *strict, f"-I{native}", *sources, "-o", str(made)], check=True)
    return made


def said(program: Path, processor: str) -> str:
    emulator = [] if NATIVE else [EMULATOR, "-cpu", processor]
    return subprocess.run([*emulator, str(program)], capture_output=True, text=True, check=False).stdout


def test_neon_gives_what_plain_gives_to_the_last_bit(comparison: Path) -> None:
    found = said(comparison, "max")
    if NATIVE and "levels 1\n" in found:
        pytest.skip("this machine has no dot products")
    assert re.fullmatch(r"levels 9\ncompared \d{7,}, differing 0\n", found), found


@pytest.mark.skipif(NATIVE, reason="the processor cannot be chosen without an emulator")
def test_neon_is_not_offered_without_dot_products(comparison: Path) -> None:
    assert said(comparison, "cortex-a57") == "levels 1\n"
