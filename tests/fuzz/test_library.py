"""The compiled library is made once for each state of the sources, and what keeps it from being made is said in a line."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import model
from fuzz.compiled import library
from fuzz.compiled.library import CompilerFailed, NoCompiler, available, build, library_path, wanted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a name that is worked out anew each time."""
    monkeypatch.setenv("DRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "library_path", library_path.__wrapped__)
    return tmp_path / "cache"


def test_the_name_depends_on_mutant_and_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {library.library_path().name}
    assert library.library_path().parent == cache
    monkeypatch.setenv("DRC_MUTANT", "CVE-2021-39216")
    names.add(library.library_path().name)
    monkeypatch.delenv("DRC_MUTANT")
    monkeypatch.setenv("CC", "/bin/false")
    names.add(library.library_path().name)
    assert len(names) == 3


def test_the_name_depends_on_the_sources(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = library.library_path()
    package = tmp_path / "model"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "more.py").write_text("x = 1\n")
    monkeypatch.setattr(model, "__file__", str(package / "__init__.py"))
    changed = library.library_path()
    (package / "more.py").write_text("x = 2\n")
    assert len({before, changed, library.library_path()}) == 3
    assert not cache.exists()


def test_a_compiler_that_fails_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    with pytest.raises(CompilerFailed, match="/bin/false failed: no message"):
        build()
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_without_a_compiler_the_plain_reading_is_used_unless_asked_otherwise(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nonexistent/cc")
    monkeypatch.delenv("DRC_FAST")
    assert (available(), wanted(None), cache.exists()) == (False, False, False)
    with pytest.raises(NoCompiler, match="there is no C compiler"):
        wanted(True)


def test_nobody_compiles_a_mutant_without_being_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRC_FAST")
    monkeypatch.setenv("DRC_MUTANT", "CVE-2021-39216")
    assert (available(), wanted(None), cache.exists()) == (True, False, False)


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = os.environ | {"DRC_CACHE": str(tmp_path / "file" / "cache")}
    line = [sys.executable, str(ROOT / "drc.py"), "check", "--fast", "--scope", "modules"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"drc: {tmp_path}/file/cache: Not a directory"]


QUICK = """#!/bin/sh
# A compiler for tests of what is around it: it does not optimise, and nobody takes it for GCC, which is called twice.
case "$*" in *--version*) exit 0 ;; esac
exec cc "$@" -O0
"""


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that takes a second or two."""
    path = tmp_path / "quick-cc"
    path.write_text(QUICK)
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))
    return path


def test_a_damaged_library_and_what_a_killed_process_left_are_replaced(
    cache: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    (cache / "building-killed").mkdir()
    (cache / "building-killed" / "compiled.c").write_text("")
    path = library.library_path()
    path.write_bytes(b"\x7fELF, and no more")
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
    assert json.loads(ctypes.string_at(library.load().signatures))
    assert capfd.readouterr().err.count("translating") == 1
    assert sorted(file.name for file in cache.iterdir()) == [path.name, "lock"]
    assert path.stat().st_size > 100_000


def test_a_library_that_could_not_be_counted_is_made_and_says_so(
    cache: Path, quick: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "_is_gcc", lambda _command: True)
    monkeypatch.setattr(library, "TRAIN_SECONDS_MAX", 0.01)
    assert library.build().exists()
    told = [line.rpartition(": ")[2] for line in capfd.readouterr().err.splitlines()]
    assert told == ["translating", "compiling a first time", "counting", "it could not be counted, so it will be slower", "compiling"]


def test_another_package_of_the_name_in_the_users_folder_is_not_trained(
    cache: Path, quick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fuzz").mkdir()
    (tmp_path / "fuzz" / "__init__.py").write_text("raise SystemExit('another package')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(library, "_is_gcc", lambda _command: True)
    assert library.build().exists()
    assert [line.rpartition(": ")[2] for line in capfd.readouterr().err.splitlines()][-2:] == ["counting", "compiling"]


LOST = """
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.compiled import kernel
from fuzz.compiled.machine import Machine
from fuzz.compiled.rows import Row
control = Row(kernel.CONTROL_WORDS)
control.words[kernel.POSITION], control.words[kernel.END] = 1 << 55, 1 << 56
Machine(CHECK_SCOPES["modules"]).call(kernel.expand, Row(8), Row(8), 3, Row(8), Row(8), Row(8), control)
"""


def test_a_defect_of_the_search_itself_ends_the_process() -> None:
    """There is no step to blame, and so nobody to go on with."""
    done = subprocess.run([sys.executable, "-c", LOST], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGSEGV


def test_a_library_that_was_named_and_cannot_be_loaded_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.so"
    path.write_bytes(b"no library")
    monkeypatch.setenv("DRC_LIBRARY", str(path))
    with pytest.raises(CompilerFailed, match=r"other\.so"):
        library.load.__wrapped__()
    assert path.read_bytes() == b"no library"


def test_of_old_libraries_the_newest_are_kept(cache: Path, quick: Path) -> None:
    cache.mkdir()
    for number in range(library.KEPT_MAX + 3):
        (cache / f"compiled-{number:02}.so").write_bytes(b"")
        os.utime(cache / f"compiled-{number:02}.so", (number, number))
    library._forget_old(cache / "compiled-new.so")
    assert sorted(path.name for path in cache.iterdir()) == [f"compiled-{number:02}.so" for number in range(3, library.KEPT_MAX + 3)]


def test_two_processes_make_one_library(tmp_path: Path, quick: Path) -> None:
    """Whoever comes second waits for the first."""
    environment = os.environ | {"DRC_CACHE": str(tmp_path / "cache")}
    line = [sys.executable, str(ROOT / "drc.py"), "check", "--fast", "--scope", "modules", "--json"]
    both = [
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) for _ in range(2)
    ]
    told = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert told[0][0] == told[1][0]
    assert sum("translating" in err for _out, err in told) == 1
    assert len(list((tmp_path / "cache").glob("compiled-*.so"))) == 1
