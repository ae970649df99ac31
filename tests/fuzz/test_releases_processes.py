"""Processes that run released engines are forked, stopped when they hang, replaced when they die, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fuzz.releases import wheels
from fuzz.releases.engine import Release, RunnerError, Settings, StartError, environment

Data = dict[str, Any]

NEW = "50.0.1"


@pytest.fixture(scope="module")
def engines() -> dict[str, Path]:
    """The folder of the release under test: from the user's cache, like all else that pip brings fetched once."""
    return {NEW: wheels.obtain(NEW, wheels.cache_folder())}


def program(wat: str, script: list[Any]) -> Data:
    return {"id": 5, "wat": wat, "values": 9, "script": script, "imports": [], "destructors": {}}


def test_a_hang_is_stopped_and_the_next_program_runs(engines: dict[str, Path]) -> None:
    endless = program('(module (func (export "f") (loop $l (br $l))))', [["instantiate", 0, {}], ["call", 0, "f", []]])
    harmless = program("(module)", [["instantiate", 0, {}]])
    with Release(engines[NEW], Settings(program_seconds=1.0)) as release:
        outcomes = list(release.run_all([endless, harmless, endless]))
    assert [outcome.death for outcome in outcomes] == ["hang", "", "hang"]
    assert outcomes[0].events[-1] == ["at", ["script", 1]]
    assert outcomes[1].events[-1] == ["end"]


def test_a_process_that_does_nothing_is_given_up_too(engines: dict[str, Path]) -> None:
    with Release(engines[NEW], Settings(program_seconds=0.1)) as release:
        os.kill(release.started(), signal.SIGSTOP)
        assert release.run(program("(module)", [])).death == "hang"


def test_an_interrupt_is_for_the_parent(engines: dict[str, Path]) -> None:
    """A terminal sends it to every process: it must not be taken for a death."""
    with Release(engines[NEW]) as release:
        os.kill(release.started(), signal.SIGINT)
        assert release.run(program("(module)", [["gc"]])).death == ""


def processes_of(folder: Path) -> set[str]:
    """Ids of the live processes that run the release in a folder."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"fuzz.releases.runner" in words and str(folder).encode() in words:
            found.add(path.parent.name)
    return found


def private_copy(folder: Path, copy: Path) -> Path:
    """The same release in a folder of its own, so that its processes are this test's."""
    copy.mkdir()
    for item in folder.iterdir():
        (copy / item.name).symlink_to(item)
    return copy


def spoilt(folder: Path, copy: Path, *lines: str) -> Path:
    """The same release, but making a store does something else."""
    (copy / "wasmtime").mkdir(parents=True)
    text = [
        "import os, sys, signal, threading",
        f"sys.path.insert(0, {str(folder)!r})",
        "del sys.modules['wasmtime']",
        "import wasmtime",
        "real = wasmtime.Store",
        "def store(engine):",
        *("    " + line for line in lines),
        "    return real(engine)",
        "wasmtime.Store = store",
    ]
    (copy / "wasmtime" / "__init__.py").write_text("\n".join(text), encoding="utf-8")
    return copy


def test_a_process_that_sleeps_for_ever_is_a_deadlock_and_known_soon(engines: dict[str, Path], tmp_path: Path) -> None:
    """It waits for a lock that it has itself: what a corrupt heap does to an allocator."""
    folder = spoilt(engines[NEW], tmp_path / "release", "lock = threading.Lock()", "lock.acquire()", "lock.acquire()")
    # If sleep were not seen, it would be a hang, after twenty seconds.
    with Release(folder, Settings(program_seconds=20.0)) as release:
        assert release.run(program("(module)", [["gc"]])).death == "deadlock"


def test_after_a_crash_another_process_is_forked_and_the_engine_is_not_made_again(engines: dict[str, Path], tmp_path: Path) -> None:
    flag = tmp_path / "crash"
    folder = spoilt(engines[NEW], tmp_path / "release", f"if os.path.exists({str(flag)!r}):", "    os.abort()")
    wanted = program("(module)", [["instantiate", 0, {}]])
    with Release(folder) as release:
        first = release.started()
        (runner,) = processes_of(folder) - {str(first)}
        flag.touch()
        deaths = [release.run(wanted).death for _ in range(3)]
        flag.unlink()
        deaths.append(release.run(wanted).death)
        assert deaths == ["abort SIGABRT"] * 3 + [""]
        assert release.started() != first
        assert processes_of(folder) == {runner, str(release.started())}
        spent = release.processor_seconds
    assert spent > 0.0
    assert release.processor_seconds >= spent
    assert processes_of(folder) == set()


def test_a_process_that_dies_between_two_programs_is_no_death_of_the_second(engines: dict[str, Path], tmp_path: Path) -> None:
    """The first has left a heap on which the second cannot even be read, perhaps not to its end."""
    folder = private_copy(engines[NEW], tmp_path / "release")
    wanted = program(f"(module) ;;{'x' * (1 << 18)}", [["instantiate", 0, {}]])
    with Release(folder) as release:
        for _ in range(3):
            os.kill(release.started(), signal.SIGABRT)
            assert release.run(wanted).death == ""


def test_a_release_that_cannot_run_here_says_so(engines: dict[str, Path], tmp_path: Path) -> None:
    """Some old releases panic on newer processors before they have an engine."""
    (tmp_path / "0.1").mkdir()
    (tmp_path / "0.1" / "wasmtime.py").write_text(
        "import os, sys\nsys.stderr.write('thread panicked at cpuid\\nlast words\\n'); sys.stderr.flush(); os.abort()\n", encoding="utf-8"
    )
    with (
        Release(tmp_path / "0.1") as release,
        pytest.raises(StartError, match=r"^wasmtime 0\.1 does not start on this machine: thread panicked at cpuid$"),
    ):
        release.run(program("(module)", []))


def test_processes_are_recycled_and_reaped_and_leave_nothing(engines: dict[str, Path], tmp_path: Path) -> None:
    folder = private_copy(engines[NEW], tmp_path / "release")
    wanted = program("(module)", [["instantiate", 0, {}]])
    files = {path.name for path in Path("/proc/self/fd").iterdir()}
    seen = set()
    with Release(folder, Settings(programs_max=2)) as release:
        for _ in range(5):
            assert release.run(wanted).death == ""
            # One that forks, and one that runs.
            assert len(processes_of(folder)) == 2
            seen |= processes_of(folder)
    assert len(seen) == 1 + 3
    assert processes_of(folder) == set()
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == files


def test_a_runner_ends_with_its_parent(engines: dict[str, Path], tmp_path: Path) -> None:
    folder = private_copy(engines[NEW], tmp_path / "release")
    endless = program('(module (func (export "f") (loop $l (br $l))))', [["instantiate", 0, {}], ["call", 0, "f", []]])
    (tmp_path / "endless.json").write_text(json.dumps(endless), encoding="utf-8")
    code = (
        "import json, os, threading; from pathlib import Path; from fuzz.releases.engine import Release; "
        f"release = Release(Path({str(folder)!r})); release.started(); process = release._process; "
        "threading.Timer(1.0, lambda: os._exit(3 if process.poll() is None else 4)).start(); "
        f"release.run(json.loads(Path({str(tmp_path / 'endless.json')!r}).read_text()))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path.cwd())}, timeout=200, check=False)
    assert done.returncode == 3
    # Its signal is on its way when the parent is reaped.
    deadline = time.monotonic() + 60
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes_of(folder) == set()


def test_a_mistake_of_the_runner_is_no_finding(engines: dict[str, Path], tmp_path: Path) -> None:
    with Release(engines[NEW]) as release, pytest.raises(RunnerError, match=r"the runner of 50\.0\.1 failed: .*do_nonsense"):
        release.run(program("(module)", [["nonsense"]]))
    with Release(tmp_path) as release, pytest.raises(RunnerError, match=r"failed: .*No module named .wasmtime."):
        release.run(program("(module)", []))


def test_the_environment_of_a_runner_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASMTIME_LOG", "trace")
    monkeypatch.setenv("MALLOC_PERTURB_", "0")
    variables = environment(checked_allocator=False)
    assert "WASMTIME_LOG" not in variables
    assert variables["MALLOC_PERTURB_"] == "165"
    assert "LD_PRELOAD" not in variables
