"""Compiles the kernels into the package, if there is a C++ compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src/nestling/kernels/cpp")
# A name with two dots: one with a single dot would be taken for a module of Python.
LIBRARY = Path("src/nestling/kernels/_kernels.native" + (".dll" if sys.platform == "win32" else ".so"))
_OLDEST_GLIBC = 17  # of the oldest systems for which wheels are built
COMPILERS = ("c++", "g++", "clang++")
# A library that needs only the C library runs on many systems.
PORTABLE = ("-static-libstdc++", "-static-libgcc") if sys.platform == "linux" else ()
# Products and sums are rounded one by one, so that every instruction set finds what numpy finds. Nobody looks
# for floating-point exceptions, so a choice between two results needs no branch.
FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-trapping-math",
)


class KernelHook(BuildHookInterface):  # type: ignore[misc]
    """Runs before files are gathered for a wheel, an editable one too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        root = Path(self.root)
        if self.target_name == "wheel" and compile_kernels(root, self.app.display_warning):
            build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_of(root / LIBRARY)}"


def platform_of(library: Path) -> str:
    """The platform tag of a library, as wheels name it; any Python can call it.

    On Linux the library's symbols give the oldest version of glibc that has them (PEP 600). A library that
    needs more than glibc gets the tag of this machine.
    """
    here = re.sub(r"[-.]", "_", sysconfig.get_platform())
    needed = library.read_bytes()
    versions = [int(version) for version in re.findall(rb"GLIBC_2\.(\d+)", needed)]
    if not here.startswith("linux_") or not versions or b"libstdc++.so" in needed:
        return here
    return f"manylinux_2_{max(_OLDEST_GLIBC, *versions)}_{here.removeprefix('linux_')}"


def compile_kernels(root: Path, warn: Any) -> bool:
    """Whether the library was compiled; ``warn`` gets the reason if not. An old one is replaced whole."""
    named = os.environ.get("CXX")
    compiler = next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)
    if compiler is None:
        warn("no C++ compiler was found: nestling will search with numpy: the same answers, slower")
        return False
    with tempfile.TemporaryDirectory(dir=root / LIBRARY.parent) as folder:
        made = Path(folder) / LIBRARY.name
        sources = [str(path) for path in sorted((root / SOURCES).glob("*.cpp"))]
        for linked in dict.fromkeys((PORTABLE, ())):  # not every system has the libraries to link them in
            result = subprocess.run(  # noqa: S603 - a compiler on our own sources
                [compiler, *FLAGS, *linked, *sources, "-o", str(made)],
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode == 0:
                break
        if result.returncode != 0:
            warn(f"the kernels did not compile, so nestling will search with numpy:\n{result.stderr[-2000:]}")
            return False
        made.replace(root / LIBRARY)
    return True
