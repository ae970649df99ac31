"""Campaigns on released engines find what is known to be there, cut it down, and say nothing where it is mended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import drc
from fuzz.releases import folder as folders
from fuzz.releases import oracle, recipe, wheels
from fuzz.releases.advisories import Found, Sighting
from fuzz.releases.build import Built, build
from fuzz.releases.campaign import Campaign, examined_on, verdict_of
from fuzz.releases.engine import Release
from fuzz.releases.generate import PROFILES, generate
from fuzz.releases.minimise import minimise
from fuzz.releases.oracle import Verdict
from fuzz.releases.recipe import Item, Recipe
from model.limits import Limits
from model.ops import NULL, Kind

BROKEN, MENDED = "0.29.0", "0.30.0"
LIMITS = Limits(scope="everything", slots=3, globals=1, table=2, segment=0, fields=0, destructors=0, destructor_ops=0)
CHUNK = 512
"""Capacity of the activations table in these releases."""


@pytest.fixture(scope="module")
def engines() -> dict[str, Path]:
    """Folders of the releases under test: from the user's cache, like all else that pip brings fetched once."""
    return {release: wheels.obtain(release, wheels.cache_folder()) for release in (BROKEN, MENDED)}


def two_results(loads: int, *noise: Item) -> Recipe:
    """An import returns two references when the table has room for one, and Wasm hands both over."""
    rows = (
        (Kind.NEW, 0),
        (Kind.INSTANTIATE, 0, NULL, 0, 0),
        (Kind.HOST_TABLE_SET, 0, 0, 0),
        (Kind.CALL_WASM, 0, 0),
        (recipe.CHURN, recipe.OWN_TABLE, 0, loads),
    )
    transfer = (
        (Kind.CALL_IMPORT, 0),
        (Kind.NEW, 0),
        (Kind.NEW, 0),
        (Kind.RETURN_IMPORT, 1, 2),
        (Kind.CALL_IMPORT, 0, 0, 1),
        (Kind.RETURN_IMPORT,),
    )
    return Recipe(LIMITS, (*map(Item, rows), *noise, *map(Item, transfer)))


@pytest.mark.parametrize(
    ("release", "loads", "kind"),
    [(BROKEN, CHUNK - 2, ""), (BROKEN, CHUNK - 1, oracle.EARLY), (BROKEN, CHUNK, ""), (MENDED, CHUNK - 1, "")],
)
def test_the_second_of_two_results_kills_the_first_where_room_is_for_one(
    engines: dict[str, Path], release: str, loads: int, kind: str
) -> None:
    """CVE-2021-39216: one load less or more, and nothing is wrong."""
    built = build(two_results(loads))
    with Release(engines[release]) as engine:
        verdict = verdict_of(built, engine.run(built.program.as_json()))
    assert ("" if verdict is None else verdict.kind) == kind


def test_a_finding_is_minimised_on_the_release_that_shows_it(engines: dict[str, Path]) -> None:
    noise = (
        Item((Kind.LOCAL_NULL, 2), 3),
        Item((recipe.GHOST, 2), 2),
        Item((Kind.TABLE_GROW, 0, 1, 0, 0b111), 5),
        Item((Kind.GLOBAL_SET, 0, 0, 0, 0b111), 1),
        Item((Kind.LOCAL_COPY, 0, 2), 7),
    )
    built = build(two_results(CHUNK - 1, *noise))
    assert len(built.recipe.items) == 16
    with Release(engines[BROKEN]) as engine:

        def judge(candidate: Built) -> Verdict | None:
            return verdict_of(candidate, engine.run(candidate.program.as_json()))

        verdict = judge(built)
        assert verdict is not None
        small = minimise(built, verdict, judge)
    assert small.verdict.kind == oracle.EARLY
    items = small.built.recipe.items
    assert len(items) < 12
    assert all(item.form == 0 for item in items)
    assert [item.row[3] for item in items if item.row[0] == recipe.CHURN] == [CHUNK - 1]
    known = Sighting(
        Found(BROKEN, 0, 0, 16, 0.0, verdict, small.built, small.verdict, ""), {BROKEN: small.verdict.kind, MENDED: ""}
    ).known()
    assert known is not None
    assert known.name == "CVE-2021-39216"


STALE = (
    (Kind.INSTANTIATE, 0, NULL, 0, 0),
    (Kind.CALL_WASM, 0, 0),
    (Kind.TABLE_GET, 0, 0, 0, 0),
    (Kind.CALL_IMPORT, 0),
    (Kind.GC,),
)
"""An import collects at a call where nothing is live: CVE-2021-39218, as small as it was found."""


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (two_results(CHUNK - 1), "CVE-2021-39216: references moved from the host to Wasm are on no stack yet"),
        (Recipe(LIMITS, tuple(map(Item, STALE))), "CVE-2021-39218: at a safepoint without live references the previous safepoint's map"),
    ],
)
def test_controls_tell_the_two_advisories_of_one_release_apart(engines: dict[str, Path], made: Recipe, told: str) -> None:
    built = build(made)
    with Release(engines[BROKEN]) as engine:
        verdict = verdict_of(built, engine.run(built.program.as_json()))
    assert verdict is not None
    examination = examined_on(engines[BROKEN], built, verdict)
    assert examination is not None
    assert examination.told().startswith(told)
    assert "(3 of 3 as found, " in examination.told()
    assert examined_on(engines[MENDED], built, verdict) is None


@pytest.mark.parametrize("profile", range(len(PROFILES)))
def test_drawn_programs_do_what_the_model_allows_where_nothing_is_wrong(engines: dict[str, Path], profile: int) -> None:
    """Each profile has its turn; what the release cannot do is refused, and that is all."""
    with Release(engines[MENDED]) as engine:
        verdicts = []
        for seed in range(8):
            built = generate(seed, PROFILES[profile])
            verdicts.append(verdict_of(built, engine.run(built.program.as_json())))
    assert [verdict for verdict in verdicts if verdict is not None and verdict.kind != oracle.REFUSED] == []
    assert verdicts.count(None) >= 5


def test_a_campaign_finds_what_is_broken_and_runs_it_on_all_releases(engines: dict[str, Path]) -> None:
    campaign = Campaign([engines[BROKEN], engines[MENDED]], seconds=None, programs=15, seed=0, jobs=1)
    campaign.run()
    broken, mended = campaign.cells
    assert (broken.programs, mended.programs) == (15, 15)
    assert broken.findings > 0
    assert mended.findings == 0
    assert broken.found
    assert any(len(found.built.recipe.items) < found.operations for found in broken.found)
    assert campaign.sightings
    causes = {"" if sighting.examination is None else sighting.examination.name for sighting in campaign.sightings}
    assert causes <= {"CVE-2021-39216", "CVE-2021-39218"}
    for sighting in campaign.sightings:
        assert sighting.found.release == BROKEN
        assert sighting.shows[MENDED] == ""


LINKED = Limits(scope="everything", slots=3, globals=1, table=2, segment=0, fields=0, destructors=0, destructor_ops=0, instances=2)
ACROSS = (
    (Kind.NEW, 0),
    (Kind.INSTANTIATE, 0, NULL, 0, 0),
    (Kind.INSTANTIATE, 0, NULL, 0, 0),
    (Kind.CALL_WASM, 1, 0, 0),
    (Kind.CALL_FUNCTION, 0, 0, 0b001, 0),
    (Kind.TABLE_SET, 0, 0, 0, 0b001),
    (Kind.CALL_IMPORT, 0b001, 0),
    (Kind.GC,),
    (Kind.RETURN_IMPORT, 0),
    (Kind.RETURN, 0, 1),
    (Kind.RETURN, 0),
)
"""A function of instance 1 calls one of instance 0, which stores what it is given and hands it to the host; both hand it back."""


@pytest.mark.parametrize("release", ["0.24.0", BROKEN, MENDED, "24.0.0", "50.0.1"])
def test_a_function_calls_one_of_another_instance(release: str) -> None:
    built = build(Recipe(LINKED, tuple(Item(row, int(row[0] == Kind.INSTANTIATE)) for row in ACROSS)))
    assert [item.row for item in built.recipe.items] == [*ACROSS]
    assert '(import "env" "f0" (func $lf0 (param externref) (result externref externref)))' in built.program.wat
    assert "(call $lf0 (local.get $s0))" in built.program.wat
    made = [action for action in built.program.script if action[0] == "instantiate"]
    assert made == [
        ["instantiate", 0, {"f0": ["host", "h1_2"]}],
        ["instantiate", 1, {"f0": ["function", 0, "f0"]}],
    ]
    with Release(wheels.obtain(release, wheels.cache_folder())) as engine:
        outcome = engine.run(built.program.as_json())
    assert verdict_of(built, outcome) is None
    assert [event[2] for event in outcome.events if event[0] == "got"] == [[0], [0]]


def test_a_campaign_goes_on_without_a_release_that_cannot_run_here(engines: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "0.1").mkdir()
    (tmp_path / "0.1" / "wasmtime.py").write_text("import os\nos.abort()\n", encoding="utf-8")
    campaign = Campaign([tmp_path / "0.1", engines[BROKEN]], seconds=None, programs=15, seed=0, jobs=1)
    campaign.run()
    assert [(cell.programs, cell.problem) for cell in campaign.cells] == [
        (0, "wasmtime 0.1 does not start on this machine: SIGABRT"),
        (15, ""),
    ]
    assert campaign.sightings
    assert all(list(sighting.shows) == [BROKEN] for sighting in campaign.sightings)


def test_times_are_told_where_time_bounds_a_campaign(engines: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["releases", "--versions", BROKEN, "--seed", "1", "--findings", str(tmp_path)]
    assert drc.main([*words, "--seconds", "2", "--json"]) == drc.FOUND
    (cell,) = json.loads(capsys.readouterr().out)["releases"]
    assert cell["first"]
    assert all(0 < first["seen"] <= first["minimised"] <= cell["seconds"] for first in cell["first"])
    assert [first["minimised"] for first in cell["first"]] == sorted(first["minimised"] for first in cell["first"])
    assert all(first["processor_seconds"] > 0 for first in cell["first"])
    assert cell["processor_seconds"] > 0
    assert drc.main([*words, "--programs", "15", "--json"]) == drc.FOUND
    told = json.loads(capsys.readouterr().out)
    (cell,) = told["releases"]
    assert sorted(cell) == ["minimised", "programs", "release", "verdicts"]
    for finding in told["findings"]:
        assert finding["examination"]["is"] in {"CVE-2021-39216", "CVE-2021-39218", "CVE-2021-39218 and CVE-2021-39216"}
        assert {"controls", "counts", "instead", "passes", "release", "together"} == {*finding["examination"]} - {"is"}


# The command line.


def sighting() -> Sighting:
    built = build(two_results(CHUNK - 1))
    verdict = Verdict(oracle.EARLY, "value 1 was destroyed too early")
    return Sighting(Found(BROKEN, 3, 0, 40, 1.0, verdict, built, verdict, "said\n"), {BROKEN: oracle.EARLY, MENDED: ""})


def test_a_finding_is_a_folder_that_replays(engines: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folders.write(sighting(), tmp_path, 2)
    assert folders.write(sighting(), tmp_path, 2) == path
    assert [child.name for child in tmp_path.iterdir()] == [path.name]
    names = ["module.wat", "program.json", "repro.py", "script.txt", "stderr.txt", "story.txt"]
    assert sorted(child.name for child in path.iterdir()) == names
    assert "CVE-2021-39216" in (path / "story.txt").read_text()
    assert "calls f0 of instance 0 with ()" in (path / "script.txt").read_text()
    assert folders.read((path / "program.json").read_text()).program == sighting().found.built.program

    assert drc.main(["replay", str(path / "program.json"), "--on", f"wasmtime=={BROKEN}"]) == drc.FOUND
    assert f"wasmtime {BROKEN}: early destruction: value 1 was destroyed" in capsys.readouterr().out
    assert drc.main(["replay", str(path / "program.json"), "--on", f"wasmtime=={BROKEN}", "--controls"]) == drc.FOUND
    out = capsys.readouterr().out
    assert "\nCVE-2021-39216: " in out
    assert "\nalive + room      0 of 3  one more reference, always null, is live over every call, and the host collects before" in out
    assert drc.main(["replay", str(path / "program.json"), "--on", f"wasmtime=={MENDED}", "--controls"]) == drc.NOTHING_FOUND
    assert f"no control experiments: there are none for what this is on wasmtime {MENDED}" in capsys.readouterr().out
    assert drc.main(["replay", str(path / "program.json"), "--controls"]) == drc.BAD_INPUT
    assert "name one with --on wasmtime==VERSION" in capsys.readouterr().err
    assert drc.main(["replay", str(path / "program.json"), "--on", f"wasmtime=={MENDED}"]) == drc.NOTHING_FOUND
    assert f"wasmtime {MENDED} does what the model allows" in capsys.readouterr().out

    for release, right in ((BROKEN, False), (MENDED, True)):
        command = [sys.executable, str(path / "repro.py")]
        done = subprocess.run(command, env={"PYTHONPATH": str(engines[release])}, capture_output=True, timeout=120, check=False)
        assert (done.returncode == 0) == right, done.stdout.decode()


def test_a_trace_runs_on_a_release(engines: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    trace = Path(__file__).parent.parent / "traces" / "upstream" / "recursion-five-deep-collects-at-the-bottom.drc"
    assert drc.main(["replay", str(trace), "--on", f"wasmtime=={MENDED}"]) == drc.NOTHING_FOUND
    assert "does what the model allows" in capsys.readouterr().out


def test_the_same_programs_give_the_same_bytes(engines: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["releases", "--versions", MENDED, "--programs", "12", "--seed", "5", "--findings", str(tmp_path / "none")]
    assert drc.main([*words, "--json"]) == drc.NOTHING_FOUND
    first = capsys.readouterr().out
    assert drc.main([*words, "--json", "--jobs", "2"]) == drc.NOTHING_FOUND
    second = capsys.readouterr().out
    assert first == second
    told = json.loads(first)
    assert [(cell["release"], cell["programs"]) for cell in told["releases"]] == [(MENDED, 12)]
    assert not (tmp_path / "none").exists()
    assert drc.main(words) == drc.NOTHING_FOUND
    assert capsys.readouterr().out.endswith("\nnothing found\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["releases", "--versions", "spring"], "not a release or a range of releases: 'spring'"),
        (["releases", "--versions", "0.10.0"], "too old"),
        (["releases", "--seconds", "inf"], "--seconds inf is no time"),
        (["releases", "--findings", __file__], "is no folder"),
        (["replay", __file__, "--on", "wasmer==1.0"], "it must be wasmtime==VERSION"),
        (["replay", __file__, "--on", "wasmtime=="], "it must be wasmtime==VERSION"),
        (["replay", __file__, "--on", f"wasmtime=={MENDED}"], "not a trace"),
        (["replay", "/nowhere/at/all", "--on", f"wasmtime=={MENDED}"], "No such file"),
    ],
)
def test_bad_input_is_one_line(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(words) == drc.BAD_INPUT
    told = capsys.readouterr()
    lines = [line for line in told.err.splitlines() if line.startswith("drc:")]
    assert told.out == ""
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.update(format="something else"), "not a program"),
        (lambda data: data["program"].update(values="many"), "values is a number"),
        (lambda data: data["program"]["script"].append(["gc"]), "its recipe does not make its program"),
        (lambda data: data.update(recipe=[]), "a recipe has limits and items"),
    ],
)
def test_a_program_that_was_changed_is_refused(change: object, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(folders.files(sighting(), 2)["program.json"])
    assert callable(change)
    change(data)
    path = tmp_path / "program.json"
    path.write_text(json.dumps(data))
    assert drc.main(["replay", str(path), "--on", f"wasmtime=={MENDED}"]) == drc.BAD_INPUT
    assert reason in capsys.readouterr().err
