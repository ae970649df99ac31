"""The catalogue fits the code, a mutant is in place in every process that it should be in, and nowhere else."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.mutants.catalogue import CLASSES, ROOT, CatalogueError, Mutant, chosen, load
from fuzz.mutants.hook import VARIABLE
from fuzz.mutants.importer import Finder, install
from fuzz.mutants.keep import VERDICT
from fuzz.mutants.serving import Server

TRACES = ROOT / "tests" / "traces" / "mutants"
MUTANTS = load()
HISTORY = {
    *("CVE-2021-39216", "CVE-2021-39218", "CVE-2022-23636", "CVE-2022-24791", "CVE-2022-31146", "CVE-2024-30266", "CVE-2025-61670"),
    *("wt#1923", "wt#1969", "wt#2386", "wt#2034", "wt#8137", "wt#10401", "wt#11416", "wt#13179", "wt#13316"),
}
ENTRY = """
[[mutant]]
id = "one"
module = "stack"
origin = "derived"
class = "leak"
breaks = "Something."
old = "SCALAR: Final = 7"
new = "SCALAR: Final = 9"
"""


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != VARIABLE} | {"PYTHONPATH": str(ROOT)} | more


def python(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], env=environment(**more), capture_output=True, text=True, timeout=120, check=False)


def entry(tmp_path: Path, text: str = ENTRY, **replaced: str) -> Path:
    for old, new in replaced.items():
        text = text.replace(f"{old} = ", f"{old} = {new} #", 1)
    path = tmp_path / "mutants.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_catalogue_says_what_history_says() -> None:
    origins = " ".join(mutant.origin for mutant in MUTANTS.values())
    assert len(MUTANTS) >= 45
    assert {word for word in HISTORY if word not in origins} == set()
    assert sum(mutant.origin.startswith("seed: ") for mutant in MUTANTS.values()) >= 10


def test_each_mutant_changes_its_module_and_no_two_make_the_same() -> None:
    texts = [(mutant.module, mutant.mutated()) for mutant in MUTANTS.values()]
    assert all(mutant.mutated() != mutant.mended() for mutant in MUTANTS.values())
    assert len(set(texts)) == len(texts)


def test_each_part_of_the_implementation_has_mutants() -> None:
    modules = {mutant.module for mutant in MUTANTS.values()}
    assert modules >= {
        *("activation", "activations_table", "arena", "collector", "externref", "hash_set", "instance", "layout", "stack"),
        *("stack_maps", "store", "transfers"),
    }
    assert {mutant.severity for mutant in MUTANTS.values()} == set(CLASSES)


def test_a_mutant_is_shown_as_a_unified_diff() -> None:
    lines = MUTANTS["CVE-2022-31146"].diff().splitlines()
    assert lines[:2] == ["--- impl/collector.py", "+++ impl/collector.py (CVE-2022-31146)"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-    while bits != 0:", "+    while bits > 1:"]


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"old": '"SCALAR: Final = 8"'}, "mutant one is stale: its old text occurs 0 times in impl/stack.py, not once"),
        ({"old": '"fp"'}, r"mutant one is stale: its old text occurs \d+ times in impl/stack.py, not once"),
        ({"new": '"SCALAR: Final = ("'}, "mutant one: impl/stack.py would be no Python"),
        ({"new": '"SCALAR: Final = 7"'}, "one changes nothing"),
        ({"module": '"nowhere"'}, "mutant one: impl.nowhere cannot be read"),
        ({"module": '"../model/ops"'}, "is no name"),
        ({"class": '"bad"'}, "class 'bad' is none of"),
        ({"breaks": "1"}, "entry 1 has not exactly these texts"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(tmp_path: Path, replaced: dict[str, str], said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        load(entry(tmp_path, **replaced))


def test_an_entry_that_is_there_twice_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="one is there twice"):
        load(entry(tmp_path, ENTRY + ENTRY))
    with pytest.raises(CatalogueError, match="has 2 mutants"):
        chosen(str(entry(tmp_path, ENTRY + ENTRY.replace('"one"', '"two"').replace("= 9", "= 11"))))
    with pytest.raises(CatalogueError, match=r"there is no \[\[mutant\]\]"):
        load(entry(tmp_path, "x = 1\n"))
    with pytest.raises(CatalogueError, match="No such file"):
        load(tmp_path / "nothing.toml")


def test_a_stale_mutant_ends_a_command_with_one_line(tmp_path: Path) -> None:
    path = entry(tmp_path, old='"no such text"')
    done = python("-m", "drc", "--version", **{VARIABLE: str(path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"drc: {VARIABLE}={path}: mutant one is stale: its old text occurs 0 times in impl/stack.py, not once"
    ]


def test_only_the_variable_puts_a_mutant_into_place_and_it_is_said(tmp_path: Path) -> None:
    show = "import drc, impl.stack, sys; print(impl.stack.SCALAR, len([x for x in sys.meta_path if type(x).__name__ == 'Finder']))"
    done = python("-c", show)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7 0\n", "")
    done = python("-c", show, **{VARIABLE: str(entry(tmp_path))})
    assert (done.returncode, done.stdout) == (0, "9 1\n")
    assert done.stderr == f"drc: MUTANT in place: impl.stack has the defect one ({VARIABLE})\n"


def test_a_mutated_module_leaves_no_compiled_file_and_shows_its_own_text(tmp_path: Path) -> None:
    cached = Path(importlib_cache("impl/stack.py"))
    before = cached.read_bytes() if cached.exists() else None
    show = "import fuzz.mutants.hook, impl.stack, inspect; print('Final = 9' in inspect.getsource(impl.stack))"
    done = python("-c", show, **{VARIABLE: str(entry(tmp_path))})
    assert done.stdout == "True\n"
    assert (cached.read_bytes() if cached.exists() else None) == before


def importlib_cache(name: str) -> str:
    import importlib.util

    return importlib.util.cache_from_source(str(ROOT / name))


def test_a_mutant_comes_too_late_for_a_module_that_is_imported() -> None:
    with pytest.raises(ImportError, match=r"impl.stack is imported already, mutant x comes too late"):
        install(Mutant("x", "stack", "derived", "leak", "", "SCALAR: Final = 7", "SCALAR: Final = 9"))
    assert not [finder for finder in sys.meta_path if isinstance(finder, Finder)]


def test_worker_processes_have_the_mutant_too(tmp_path: Path) -> None:
    """With two jobs the process that is started does no run itself."""
    words = ("fuzz", "--runs", "32", "--jobs", "2", "--scope", "counting", "--findings", str(tmp_path / "findings"), "--json")
    done = python("-m", "drc", *words, **{VARIABLE: "count-starts-at-two"})
    assert done.returncode == 1
    assert json.loads(done.stdout)["finding"]["verdict"] == "InvariantViolated"
    assert len(re.findall("MUTANT in place", done.stderr)) == 3


def test_the_instrumented_target_has_the_mutant_too() -> None:
    code = "import fuzz.targets, impl.stack; print(impl.stack.walk_step.__code__.co_code)"
    plain, mutated = python("-c", code), python("-c", code, **{VARIABLE: "walk-skips-a-frame"})
    assert plain.stdout
    assert plain.stdout != mutated.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


def text_of(name: str) -> str:
    return (TRACES / f"{name}.drc").read_text(encoding="utf-8")


def recorded(name: str) -> tuple[str, bool]:
    """The verdict in a kept trace, and whether it is the checked memory's."""
    line = next(line for line in text_of(name).splitlines() if line.startswith(VERDICT))
    match = re.fullmatch(rf"{VERDICT}(\w+) on the (raw|checked) memory", line)
    assert match is not None
    return match[1], match[2] == "checked"


def test_each_mutant_has_a_trace_and_each_trace_a_mutant() -> None:
    assert sorted(path.stem for path in TRACES.glob("*.drc")) == sorted(MUTANTS)


@pytest.mark.parametrize("name", MUTANTS)
def test_its_trace_shows_a_mutant_and_nothing_without_it(server: Server, name: str) -> None:
    mutant = MUTANTS[name]
    verdict, checked = recorded(name)
    job = {"module": mutant.module, "trace": text_of(name), "checked": checked}
    assert server.ask({**job, "text": mutant.mutated()}).verdict == verdict
    assert server.ask({**job, "text": ""}).verdict == ""


def test_the_catalogue_is_part_of_the_distribution() -> None:
    """`package-data` names it; without this file an installed `drc mutants` has nothing to put back."""
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert data["fuzz"] == ["*.toml"]
    assert json.dumps(sorted(path.name for path in (ROOT / "fuzz").glob("*.toml"))) == '["equivalents.toml", "mutants.toml"]'
