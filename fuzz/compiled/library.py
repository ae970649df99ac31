"""The library that the compiled reading is: built by the C compiler of this machine once for each state of the sources, and loaded.

With GCC it is built twice: a first library counts which ways its code goes while it searches small scopes, and a second one is laid
out by these counts, which makes it a quarter faster and changes nothing that it computes.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fuzz
import impl
import model
from fuzz.results import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

FLAGS: Final = ("-O3", "-march=native", "-fwrapv", "-fPIC", "-shared", "-std=gnu11", "-w")
COMPILE_SECONDS_MAX: Final = 600
TRAIN_SECONDS_MAX: Final = 60
"""Training takes one. A library that was made without it is as right, and some tenth slower."""
KEPT_MAX: Final = 16
"""Libraries of earlier states of the sources that stay in the cache."""
_BUILDING: Final = "building-"
LIBRARY: Final = "DRC_LIBRARY"
"""Environment variable: a library to load instead, whatever the sources are."""
FAST: Final = "DRC_FAST"
"""Environment variable: what to do where neither --fast nor --no-fast is given."""


class NoCompiler(MissingExtra):
    """There is no C compiler on this machine."""

    def __init__(self) -> None:
        super().__init__("a C compiler", "fast")
        self.args = ("there is no C compiler (cc, gcc or clang; or name one in CC); --no-fast does without",)


class CompilerFailed(Exception):
    """The C compiler could not make the library."""


def compiler() -> str | None:
    """Return the C compiler of this machine: `CC`, or the first of cc, gcc and clang; None if there is none."""
    chosen = os.environ.get("CC")
    return next((found for name in ([chosen] if chosen else ["cc", "gcc", "clang"]) if (found := shutil.which(name))), None)


def available() -> bool:
    """Say whether the compiled reading can be had: a library that is built already, or a compiler."""
    return compiler() is not None or library_path().exists()


def wanted(fast: bool | None) -> bool:
    """Say whether to use compiled code: as was asked, or as `DRC_FAST` says (0 or 1), or else where it can be had; and have it ready.

    Without being asked, not on a mutant: it would be compiled anew, which takes longer than it takes to notice most of them.

    Raises:
        NoCompiler, CompilerFailed: it was asked for and cannot be had.
    """
    if fast is None and FAST in os.environ:
        fast = os.environ[FAST] != "0"
    if fast is None:
        fast = not os.environ.get("DRC_MUTANT") and available()
    if fast:
        build()
    return fast


def cache_folder() -> Path:
    """Return where compiled code is kept: `DRC_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("DRC_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drc-check"


@cache
def library_path() -> Path:
    """Return where the library of this state of the sources is, or will be: its name is a digest of all that it depends on."""
    digest = hashlib.blake2b(digest_size=12)
    for folder in (_folder(impl), _folder(model), _folder(fuzz), _folder(fuzz) / "compiled"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    mutant = os.environ.get("DRC_MUTANT", "")
    if mutant:
        catalogue = Path(mutant) if Path(mutant).is_file() else _folder(fuzz) / "mutants.toml"
        digest.update(mutant.encode() + b"\0" + catalogue.read_bytes())
    digest.update(_machine().encode())
    return cache_folder() / f"compiled-{digest.hexdigest()}.so"


def _folder(package: ModuleType) -> Path:
    return Path(package.__file__ or "").parent


def _machine() -> str:
    """Return what compiled code depends on besides its text: processor and compiler."""
    flags = ""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return f"{platform.machine()} {flags} {compiler()} {' '.join(FLAGS)}"


def build(*, timed: bool = False) -> Path:
    """Compile the library unless it is there, and return its path. Takes some ten seconds.

    Args:
        timed: the one that says how long the parts of a search take, in its words `laps`.

    Raises:
        NoCompiler: there is none.
        CompilerFailed: it failed; the message has its first line.
    """
    path = library_path()
    if timed:
        path = path.with_name(f"timed-{path.name}")
    if path.exists():
        return path
    command = compiler()
    if command is None:
        raise NoCompiler
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / "lock").open("w") as lock:
            # Whoever comes second waits, and finds it done. The lock ends with the process that holds it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path
            for left in path.parent.glob(f"{_BUILDING}*"):
                # Its process was killed: it would hold the lock.
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=path.parent) as folder:
                made = _build_in(Path(folder), command, ("-DDRC_LAPS",) if timed else ())
                made.replace(path)
    except OSError as error:
        raise CompilerFailed(f"{path.parent}: {error.strerror or error}") from error
    _forget_old(path)
    return path


def _build_in(folder: Path, command: str, flags: tuple[str, ...]) -> Path:
    from fuzz.compiled.package import source

    # Both libraries have one name: it is part of that of the counts.
    text, made = folder / "compiled.c", folder / "compiled.so"
    _say("translating")
    text.write_text(source(), encoding="utf-8")
    extra: tuple[str, ...] = ()
    if _is_gcc(command):
        _say("compiling a first time")
        _run(command, text, made, *flags, f"-fprofile-generate={folder}")
        _say("counting")
        if _train(made):
            extra = (f"-fprofile-use={folder}", "-fprofile-partial-training")
        else:
            _say("it could not be counted, so it will be slower")
    _say("compiling")
    _run(command, text, made, *flags, *extra)
    return made


def _say(what: str) -> None:
    sys.stderr.write(f"drc: making the fast reading, once for this state of the sources: {what}\n")
    sys.stderr.flush()


def _is_gcc(command: str) -> bool:
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # the compiler
    except (OSError, subprocess.SubprocessError):
        return False
    return "Free Software Foundation" in done.stdout


def _run(command: str, text: Path, made: Path, *extra: str) -> None:
    line: Sequence[str] = (command, *FLAGS, *extra, "-o", str(made), str(text))
    try:
        done = subprocess.run(  # noqa: S603  # the compiler
            line, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX, check=False, cwd=text.parent
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CompilerFailed(f"{command}: {error}") from error
    if done.returncode != 0:
        raise CompilerFailed(f"{command} failed: {(done.stderr or 'no message').strip().splitlines()[0]}")


def _train(library: Path) -> bool:
    """Let a library count; return whether it did."""
    root = str(_folder(fuzz).parent)
    environment = os.environ | {LIBRARY: str(library), "PYTHONPATH": root, "DRC_MUTANT": ""}
    # Without the folder that the user is in, which may have another `fuzz`: a library goes with its own sources only.
    line = [sys.executable, "-P", "-m", "fuzz.compiled.training"]
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter
            line, capture_output=True, timeout=TRAIN_SECONDS_MAX, check=False, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def _forget_old(path: Path) -> None:
    """Remove the oldest libraries of other states of the sources."""
    others = sorted(path.parent.glob("*compiled-*.so"), key=lambda other: other.stat().st_mtime_ns, reverse=True)
    for other in others[KEPT_MAX:]:
        other.unlink(missing_ok=True)


@cache
def load() -> ctypes.CDLL:
    """Return the library. One that is damaged, as by a disk that was full, is made anew.

    Raises:
        NoCompiler, CompilerFailed: see `build`; or the library is damaged and no other can be made.
    """
    chosen = os.environ.get(LIBRARY)
    path = Path(chosen) if chosen else build()
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if chosen:
            raise CompilerFailed(str(error)) from error
    try:
        path.unlink(missing_ok=True)
        return ctypes.CDLL(str(build()))
    except OSError as error:
        raise CompilerFailed(f"{path}: {error.strerror or error}") from error


@cache
def signatures() -> dict[str, tuple[list[str], str]]:
    """Return for each entry what its parameters are in C, and what it returns."""
    text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(load(), "signatures")))
    found: dict[str, tuple[list[str], str]] = json.loads(text)
    return found
