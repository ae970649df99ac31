"""`drc releases` says which released engines break, with programs that anyone can run; `drc replay --on` runs one on a release."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fuzz.live import Lines
from fuzz.random_engine import SEED_MAX
from fuzz.releases import oracle, wheels
from fuzz.releases.build import build
from fuzz.releases.campaign import Campaign, Cell, examined_on, verdict_of
from fuzz.releases.engine import Release, RunnerError
from fuzz.releases.folder import controls_text, instructions, read, story, verdict_told, write
from fuzz.releases.recipe import of_trace
from fuzz.workers import HarnessFailure
from model.trace import SIZE_MAX_BYTES, TraceError, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.releases.advisories import Sighting
    from fuzz.releases.build import Built
    from fuzz.releases.oracle import Verdict

NOTHING_FOUND: Final = 0
FOUND: Final = 1
INCONCLUSIVE: Final = 3
INTERRUPTED: Final = 130
SECONDS_USUAL: Final = 60.0
JOBS_MAX: Final = 256
WIDTH: Final = 120
PROGRAM_BYTES_MAX: Final = 1 << 24


def releases(
    versions: Annotated[str, typer.Option(help="Releases and ranges, as in 0.24.0,0.29-1.0.1,50; or all.")] = "newest",
    newest: Annotated[bool, typer.Option("--newest", help="The newest release alone; the same as --versions newest.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Time for each release. 60 if neither this nor --programs is given.", min=0)] = None,
    programs: Annotated[int | None, typer.Option(help="Most programs for each release.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="The same seed and --programs give the same programs.", min=0, max=SEED_MAX)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1, max=JOBS_MAX)] = 1,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    findings: Annotated[Path, typer.Option(help="Folder that a finding's folder is put into.")] = Path("findings"),
    cache: Annotated[Path | None, typer.Option(help="Folder that releases are kept in; the user's cache by default.")] = None,
) -> None:
    """Run generated programs on released engines, and hold what they do against the model.

    Releases of the wasmtime package are fetched with pip. Findings are minimised on the release that showed them, run on all releases
    of the campaign, and written to a folder with a file that needs only the package.
    """
    if seconds is None and programs is None:
        seconds = SECONDS_USUAL
    if seconds is not None and not math.isfinite(seconds):
        raise typer.BadParameter(f"--seconds {seconds} is no time; leave it out and give --programs to have no bound")
    if findings.exists() and not findings.is_dir():
        raise typer.BadParameter(f"--findings {findings}: is no folder")
    kept = cache or wheels.cache_folder()
    with Progress() as progress:
        folders = _obtain("newest" if newest else versions, kept, progress)
        campaign = Campaign(folders, seconds=seconds, programs=programs, seed=seed, jobs=jobs, say=progress.tell)
        try:
            campaign.run()
        except RunnerError as error:
            raise HarnessFailure(str(error)) from error
    raise typer.Exit(_tell(campaign, findings, json_wanted=as_json_))


class Progress(Lines):
    """Tells how a campaign goes on, on stderr."""

    def __init__(self) -> None:
        self.cell: Cell | None = None
        self.doing = "looking for releases"
        super().__init__(sys.stderr, self._display)

    def begin(self, doing: str) -> None:
        """Something else than a campaign begins."""
        self.doing = doing
        if self.due():
            self.say(doing)

    def tell(self, cell: Cell, over: bool) -> None:
        """A release's campaign has come so far."""
        self.cell = cell
        if over or self.due():
            self.say(_figures(cell))

    def _display(self) -> Text:
        return Text(self.doing if self.cell is None else _figures(self.cell))


def _figures(cell: Cell) -> str:
    rate = f"{cell.programs / cell.seconds:,.0f} programs/s" if cell.seconds else "starting"
    minimised = f", {len(cell.found)} minimised" if cell.found else ""
    return (
        f"wasmtime {cell.release}: {cell.programs:,} programs in {cell.seconds:.0f} s, {rate}, {cell.findings:,} with a finding{minimised}"
    )


def _obtain(wanted: str, cache: Path, progress: Progress) -> list[Path]:
    """Return the folders of the releases wanted, fetched where necessary.

    Raises:
        typer.BadParameter: there is no such release.
        HarnessFailure: the network, the machine or the download failed.
    """
    names = [name.strip() for name in wanted.split(",")]
    try:
        # What is named in full and kept already needs no network.
        kept = set(names) <= set(wheels.cached(cache))
        chosen = wheels.select(wanted, sorted(names, key=wheels.key) if kept else wheels.listed())
        folders = []
        for number, release in enumerate(chosen, start=1):
            progress.begin(f"obtaining wasmtime {release} ({number} of {len(chosen)})")
            folders.append(wheels.obtain(release, cache))
    except wheels.WheelError as error:
        if error.exit_code == 2:
            raise typer.BadParameter(str(error)) from error
        raise HarnessFailure(str(error)) from error
    return folders


def _tell(campaign: Campaign, parent: Path, *, json_wanted: bool) -> int:
    """Print what came of a campaign, write the findings, and return the exit code."""
    folders: list[str] = []
    failure = None
    for sighting in campaign.sightings:
        try:
            folders.append(str(write(sighting, parent, len(campaign.folders))))
        except OSError as error:
            folders.append("")
            failure = HarnessFailure(f"a finding could not be written: {error}")
    if json_wanted:
        typer.echo(json.dumps(as_json(campaign, folders), indent=2))
    else:
        print_report(campaign, folders)
    sys.stdout.flush()
    total, spent = sum(cell.programs for cell in campaign.cells), sum(cell.seconds for cell in campaign.cells)
    sys.stderr.write(f"{total:,} programs, {total / spent if spent else 0:,.0f} programs/s over {spent:.0f} s\n")
    if failure is not None:
        raise failure
    if campaign.interrupted:
        sys.stderr.write("drc: interrupted; this is what was done so far\n")
        return INTERRUPTED
    if any(cell.findings for cell in campaign.cells):
        return FOUND
    idle = [cell.release for cell in campaign.cells if not cell.judged]
    if idle:
        sys.stderr.write(f"drc: inconclusive: nothing was run to its end on {', '.join(idle)}\n")
        return INCONCLUSIVE
    return NOTHING_FOUND


def matrix(cells: Sequence[Cell]) -> Table:
    """Return releases by verdicts: how many programs showed what."""
    kinds = sorted({kind for cell in cells for kind in cell.verdicts if kind not in {oracle.REFUSED, oracle.UNFINISHED}})
    extra = [kind for kind in (oracle.REFUSED, oracle.UNFINISHED) if any(cell.verdicts[kind] for cell in cells)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("release", no_wrap=True)
    for heading in ("programs", *extra, *(kinds or ["findings"])):
        table.add_column(heading, justify="right")
    for cell in cells:
        counts = [f"{cell.verdicts[kind]:,}" for kind in extra] + [
            f"{cell.verdicts[kind]:,}" if cell.verdicts[kind] else "-" for kind in kinds
        ]
        table.add_row(cell.release, f"{cell.programs:,}", *counts, *([] if kinds else ["-"]))
    return table


def print_report(campaign: Campaign, folders: Sequence[str]) -> None:
    """Print the matrix and the findings."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as text:
        console.print(matrix(campaign.cells))
    lines = [line.rstrip() for line in text.get().splitlines()]
    problems = [cell.problem for cell in campaign.cells if cell.problem]
    lines += ["", *problems] if problems else []
    lines += _times_told(campaign)
    for sighting, folder in zip(campaign.sightings, folders, strict=True):
        lines += ["", *story(sighting, len(campaign.folders)), *([f"  folder:        {folder}"] if folder else [])]
    if not campaign.sightings:
        lines += ["", "nothing found"]
    for line in lines:
        typer.echo(line)


def _times_told(campaign: Campaign) -> list[str]:
    """Say when the first finding of each verdict was there, and how dear a program was."""
    if campaign.seconds is None:
        return []
    lines = [""]
    for cell in campaign.cells:
        rate = cell.programs / cell.seconds if cell.seconds else 0
        each = f"{1000 * cell.processor / cell.programs:.1f} ms of processor time each" if cell.programs else "nothing was run"
        lines.append(f"{cell.release}: {rate:,.0f} programs/s, {each}")
        for found in cell.firsts:
            when = f"first seen at {found.seen:.1f} s, minimised at {found.seconds:.1f} s"
            size = f"{instructions(found.built.program.wat)} Wasm instructions"
            lines.append(f"  {found.verdict.kind}: {when} ({found.processor:.1f} s of processor time) to {size}")
    return lines


def _times(cell: Cell) -> dict[str, Any]:
    """The same for a program."""
    return {
        "seconds": round(cell.seconds, 3),
        "processor_seconds": round(cell.processor, 3),
        "first": [
            {
                "verdict": found.verdict.kind,
                "seen": round(found.seen, 3),
                "minimised": round(found.seconds, 3),
                "processor_seconds": round(found.processor, 3),
                "instructions": instructions(found.built.program.wat),
            }
            for found in cell.firsts
        ],
    }


def as_json(campaign: Campaign, folders: Sequence[str]) -> dict[str, Any]:
    """Return a campaign as a JSON object. Times are told where time bounds it; else the same campaign gives the same bytes."""
    return {
        "seed": campaign.seed,
        "interrupted": campaign.interrupted,
        "releases": [
            {
                "release": cell.release,
                "programs": cell.programs,
                "verdicts": dict(sorted(cell.verdicts.items())),
                "minimised": [[found.number, str(found.verdict)] for found in cell.found],
                **({"problem": cell.problem} if cell.problem else {}),
                **({} if campaign.seconds is None else _times(cell)),
            }
            for cell in campaign.cells
        ],
        "findings": [_as_json(sighting, folder) for sighting, folder in zip(campaign.sightings, folders, strict=True)],
    }


def _as_json(sighting: Sighting, folder: str) -> dict[str, Any]:
    found, known = sighting.found, sighting.known()
    return {
        "verdict": found.verdict.kind,
        "text": found.verdict.text,
        "release": found.release,
        "module": found.number,
        "operations": len(found.built.recipe.items),
        "operations_before": found.operations,
        "instructions": instructions(found.built.program.wat),
        "shows": sighting.shows,
        "looks_like": known.name if known else None,
        "examination": None if sighting.examination is None else sighting.examination.as_json(),
        "program": found.built.program.as_json(),
        "folder": folder or None,
    }


# drc replay FILE --on wasmtime==V


def replay_on(file: Path, on: str, cache: Path | None = None, *, examine: bool = False) -> int:
    """Run a trace or a finding's program.json on a release, tell what it does, and return the exit code.

    Args:
        file: to read.
        on: the release, as in `wasmtime==0.29.0`.
        cache: folder that releases are kept in; the user's cache by default.
        examine: whether to run control experiments too, if there is a memory error.

    Raises:
        typer.BadParameter: the file or the release is not what it must be.
        HarnessFailure: the release cannot be had, or the runner failed.
    """
    package, _, wanted = on.partition("==")
    if package != wheels.PACKAGE or not wanted:
        raise typer.BadParameter(f"--on {on}: it must be {wheels.PACKAGE}==VERSION")
    built = _read(file)
    with Progress() as progress:
        folders = _obtain(wanted, cache or wheels.cache_folder(), progress)
    try:
        with Release(folders[-1]) as release:
            outcome = release.run(built.program.as_json())
    except RunnerError as error:
        raise HarnessFailure(str(error)) from error
    verdict = verdict_of(built, outcome)
    for event in outcome.events:
        typer.echo(" ".join([event[0], *(json.dumps(part) for part in event[1:])]))
    if outcome.stderr:
        sys.stderr.write(outcome.stderr if outcome.stderr.endswith("\n") else f"{outcome.stderr}\n")
    seen = examine and _examined(built, verdict or verdict_told(file.read_bytes()), folders[-1])
    if verdict is None and seen:
        typer.echo(f"wasmtime {folders[-1].name} does what the model allows this time")
        return FOUND
    if verdict is None:
        typer.echo(
            f"wasmtime {folders[-1].name} does what the model allows: {len(built.recipe.items)} operations, {built.program.values} values"
        )
        if built.recipe.items:
            return NOTHING_FOUND
        sys.stderr.write(f"drc: inconclusive: {file} has no operation that an engine can be asked for\n")
        return INCONCLUSIVE
    typer.echo(f"wasmtime {folders[-1].name}: {verdict}")
    return FOUND if verdict.finding else INCONCLUSIVE


def _examined(built: Built, verdict: Verdict | None, folder: Path) -> bool:
    """Run control experiments, tell what they say, and return whether they have seen the error."""
    try:
        examination = None if verdict is None else examined_on(folder, built, verdict)
    except RunnerError as error:
        raise HarnessFailure(str(error)) from error
    if examination is None:
        typer.echo(f"no control experiments: there are none for what this is on wasmtime {folder.name}")
        return False
    typer.echo(controls_text(examination).rstrip())
    return examination.seen


def _read(file: Path) -> Built:
    try:
        if file.stat().st_size > PROGRAM_BYTES_MAX:
            raise typer.BadParameter(f"{file}: larger than {PROGRAM_BYTES_MAX} bytes")
        data = file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror or error}") from error
    try:
        if data.lstrip()[:1] == b"{":
            return read(data.decode())
        if len(data) > SIZE_MAX_BYTES:
            raise typer.BadParameter(f"{file}: {len(data)} bytes; a trace has at most {SIZE_MAX_BYTES}")
        return build(of_trace(parse_bytes(data)))
    except (ValueError, TraceError) as error:
        raise typer.BadParameter(f"{file}: {error}") from error
