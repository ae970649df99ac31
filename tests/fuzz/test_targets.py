"""The fuzz targets run for a moment, and turn a planted defect into a trace file."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fuzz.atheris_engine
import fuzz.target_support
import impl.runtime
import impl.stack_maps
from fuzz.atheris_engine import TargetFailed, run_atheris
from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.results import MissingExtra
from fuzz.target_support import Mismatch, Orders, RegistryTarget, RuntimeTarget, arguments, artifact, write_atomically
from model.limits import SCOPES
from model.ops import Kind
from model.properties import Sometimes
from model.trace import parse_bytes

TARGETS = sorted(path for path in Path(fuzz.target_support.__file__).parent.joinpath("targets").glob("*.py") if path.stem != "__init__")
needs_atheris = pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")

# As the real target, but with a defect.
PLANTED = """
    import sys
    import atheris
    with atheris.instrument_imports(include=["impl"]):
        import impl.runtime
        from fuzz.target_support import RuntimeTarget, arguments
    impl.runtime.clone = lambda _mem, externref: externref
    atheris.Setup(arguments(sys.argv, __spec__.name), RuntimeTarget(sys.argv))
    atheris.Fuzz()
"""


def forgets_to_count(_mem: Any, externref: int) -> int:
    return externref


def inputs(count: int, size: int) -> list[bytes]:
    dice = Seeded(11)
    return [bytes(dice.choose(256) for _ in range(size)) for _ in range(count)]


def first_failure(target: Callable[[bytes], None]) -> tuple[bytes, BaseException]:
    """The first input on which a target fails, and how."""
    for data in inputs(100, 100):
        try:
            target(data)
        except BaseException as found:  # noqa: BLE001  # verdicts are no exceptions
            return data, found
    pytest.fail("the defect was not found")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes some text the target of the engine."""

    def plant(text: str) -> None:
        (tmp_path / "planted_target.py").write_text(textwrap.dedent(text), encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(fuzz.atheris_engine, "TARGET", "planted_target")

    return plant


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_a_target_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25


def test_any_bytes_are_a_run_in_every_scope() -> None:
    target = RuntimeTarget(["target"])
    for data in [b"", b"\0", *inputs(60, 200)]:
        target(data)
    assert target.result.runs == 62
    assert target.result.operations > 1000
    assert {limits.scope for limits, _ in target.drivers} == set(SCOPES)
    assert {checked for _, checked in target.drivers} == {False, True}


def test_any_bytes_are_modules() -> None:
    target = RegistryTarget(["target"])
    for data in [b"", *inputs(100, 120)]:
        target(data)


def test_a_finding_becomes_a_trace_beside_the_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl.runtime, "clone", forgets_to_count)
    statistics = tmp_path / "statistics.json"
    argv = ["target", f"-artifact_prefix={tmp_path}/"]
    target = RuntimeTarget(argv, Orders(SCOPES["counting"], statistics))
    data, found = first_failure(target)
    path = artifact(data, argv).with_suffix(".trace")
    assert {path, statistics} == set(tmp_path.iterdir())
    trace = parse_bytes(path.read_bytes())
    assert isinstance(found, Divergence)
    assert trace.rows == found.rows[: found.chosen]
    with pytest.raises(Divergence):
        Driver(trace.limits, checked=True).replay(trace.rows)


def test_a_wrong_registry_is_a_finding_with_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impl.stack_maps, "entry_at", lambda mem, entries, count, pc: entries if count and mem[entries] <= pc else 0)
    target = RegistryTarget(["target", f"-artifact_prefix={tmp_path}/"])
    _, found = first_failure(target)
    assert isinstance(found, Mismatch)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("crash-")
    assert "modules offered" in path.read_text(encoding="utf-8")


def test_orders_survive_the_environment() -> None:
    kinds = frozenset({Kind.NEW, Kind.GC})
    orders = Orders(SCOPES["calls"].__class__(scope="calls", chunk=3, kinds=kinds), Path("/x"), 2.5, 7)
    assert Orders.read(orders.write()) == orders


def test_the_command_line_starts_the_target_again_and_keeps_the_alarm() -> None:
    argv = ["somewhere.py", "-runs=3"]
    assert arguments(argv, "fuzz.targets.runtime") == [f"{sys.executable} -m fuzz.targets.runtime", "-runs=3", "-timeout=0"]
    assert arguments(["x", "-timeout=9"], "m")[1:] == ["-timeout=9"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [(found.name, found.read_text(encoding="utf-8")) for found in tmp_path.iterdir()] == [("file", "old")]


def test_without_atheris_the_engine_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.atheris_engine, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'drc-check\[fuzz\]'"):
        run_atheris(SCOPES["calls"], seconds=1, runs=1, seed=1, folder=tmp_path)


@needs_atheris
def test_the_engine_does_as_many_runs_as_it_may_and_the_same_again(tmp_path: Path) -> None:
    first, second = (run_atheris(SCOPES["everything"], seconds=60, runs=60, seed=5, folder=tmp_path) for _ in range(2))
    assert (first.runs, first.finding) == (60, None)
    assert sum(first.counts) == first.operations > 100
    assert first.coverage is not None
    assert first.coverage > 100
    assert (first.counts, first.seen, first.seen_counts) == (second.counts, second.seen, second.seen_counts)
    assert list(tmp_path.iterdir()) == []


@needs_atheris
def test_the_engine_stops_when_its_time_is_up(tmp_path: Path) -> None:
    result = run_atheris(SCOPES["counting"], seconds=0.2, runs=None, seed=5, folder=tmp_path)
    assert result.runs > 0
    assert result.finding is None


@needs_atheris
def test_a_planted_defect_becomes_a_finding_an_artifact_and_a_trace(tmp_path: Path, planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(PLANTED)
    monkeypatch.setattr(impl.runtime, "clone", forgets_to_count)
    folder = tmp_path / "findings"
    result = run_atheris(SCOPES["calls"], seconds=60, runs=None, seed=5, folder=folder)
    assert result.finding is not None
    assert result.runs > 0
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 2
    assert names[1] == f"{names[0]}.trace"
    trace = parse_bytes((folder / names[1]).read_bytes())
    with pytest.raises(Divergence) as again:
        Driver(trace.limits, checked=result.checked).replay(trace.rows)
    assert again.value.verdict == result.finding.verdict


@needs_atheris
def test_a_finding_that_does_not_happen_again_says_so(tmp_path: Path, planted: Any) -> None:
    planted(PLANTED)
    result = run_atheris(SCOPES["calls"], seconds=60, runs=None, seed=5, folder=tmp_path / "findings")
    assert result.finding is not None
    assert "did not happen again" in result.finding.text
    assert result.finding.rows


def test_a_target_that_cannot_start_is_no_finding(tmp_path: Path, planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz.atheris_engine, "find_spec", lambda _name: True)
    planted("raise SystemError('broken import')")
    with pytest.raises(TargetFailed, match="broken import"):
        run_atheris(SCOPES["calls"], seconds=1, runs=1, seed=5, folder=tmp_path)


def test_a_target_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz.atheris_engine, "find_spec", lambda _name: True)
    monkeypatch.setattr(fuzz.atheris_engine, "STARTUP_SECONDS_MAX", 1.0)
    monkeypatch.setattr(fuzz.atheris_engine, "GRACE_SECONDS", 0.0)
    child = tmp_path / "child"
    planted(f"""
        import pathlib, subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(child)!r}).write_text(str(child.pid))
        time.sleep(600)
    """)
    with pytest.raises(TargetFailed, match="was killed"):
        run_atheris(SCOPES["calls"], seconds=0.5, runs=1, seed=5, folder=tmp_path)
    process = Path("/proc", child.read_text(encoding="utf-8"), "stat")
    for _ in range(200):
        # A zombie that nobody reaps, as in a container without an init, is dead all the same.
        if not process.exists() or ") Z " in process.read_text(encoding="utf-8"):
            return
        time.sleep(0.05)
    pytest.fail("the target's child is still alive")


def test_an_interruption_keeps_what_the_target_had_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_command: list[str], orders: Orders, log: Path, _seconds: float) -> int:
        log.write_bytes(b"")
        said = {
            "runs": 3,
            "operations": 4,
            "seen": 1,
            "counts": [4] + [0] * (len(Kind) - 1),
            "seen_counts": [3] + [0] * (len(Sometimes) - 1),
        }
        assert orders.statistics is not None
        orders.statistics.write_text(json.dumps(said), encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(fuzz.atheris_engine, "_run", interrupted)
    result = run_atheris(SCOPES["counting"], seconds=60, runs=None, seed=5, folder=tmp_path)
    assert (result.interrupted, result.runs, result.operations, result.finding) == (True, 3, 4, None)
