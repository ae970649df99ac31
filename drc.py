"""The command line: `drc fuzz`, `drc check`, `drc prove`, `drc replay`, `drc shrink`; each ends in an exit code that says what came of it.

0: nothing was found, and work was done. 1: a finding. 2: bad usage or input. 3: inconclusive. 4: the harness or its machine
failed. 130: interrupted. Results go to stdout, and are the same bytes for the same work; progress, speed and errors go to stderr.
"""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import fuzz.mutants.hook as _hook  # noqa: F401  # before anything imports `impl`
from fuzz.campaign import ENGINES, Task, run_campaign
from fuzz.check_command import check
from fuzz.compiled.library import CompilerFailed, wanted
from fuzz.findings import Finding, Origin, minimise, unwritable, version, write
from fuzz.mutants.command import mutants
from fuzz.narrator import Telling, tell
from fuzz.random_engine import RUNS_MAX, SEED_MAX
from fuzz.releases.command import releases, replay_on
from fuzz.report import Progress, as_json, print_tables, speed
from fuzz.results import MissingExtra
from fuzz.story import LINES_MAX, sides, step_lines, story
from fuzz.workers import HarnessFailure
from model.limits import SCOPES
from model.trace import SIZE_MAX_BYTES, Trace, TraceError, format_row, format_trace, parse_bytes
from proofs.command import prove

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.campaign import Campaign

NOTHING_FOUND: Final = 0
FOUND: Final = 1
BAD_INPUT: Final = 2
INCONCLUSIVE: Final = 3
HARNESS_FAILED: Final = 4
INTERRUPTED: Final = 130
SECONDS_USUAL: Final = 60.0
JOBS_MAX: Final = 256

app = typer.Typer(
    help="Model checker and fuzzing harness for deferred reference counting.",
    epilog="Exit codes: 0 nothing found, 1 a finding, 2 bad usage or input, 3 inconclusive, 4 the harness failed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class BadInput(Exception):
    """What the user gave cannot be used. The message is one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Errors are one line on stderr, unless DRC_TRACEBACK=1 is set.

    Args:
        arguments: words after `drc`; those of the process by default.
    """
    if threading.current_thread() is threading.main_thread():
        # Whoever ends a campaign from outside, with `timeout` for instance, wants to know what is known so far.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = typer.main.get_command(app).main(args=None if arguments is None else list(arguments), prog_name="drc", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, and the interpreter would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HARNESS_FAILED
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        if os.environ.get("DRC_TRACEBACK") == "1":
            traceback.print_exc()
        code, line = _judge(error)
        sys.stderr.write(f"drc: {line}\n" if line else "")
        return code
    return int(code or 0)


def _judge(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for what ended the program."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, BadInput | MissingExtra | CompilerFailed):
        return BAD_INPUT, str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            return BAD_INPUT, f"no command given\n{error.format_message()}"
        return BAD_INPUT, f"{error.format_message()} (see {context.command_path if context else 'drc'} --help)"
    if isinstance(error, HarnessFailure):
        return HARNESS_FAILED, str(error)
    if isinstance(error, OSError):
        return HARNESS_FAILED, f"the machine failed: {error}"
    return HARNESS_FAILED, f"internal error: {type(error).__name__}: {error} (DRC_TRACEBACK=1 shows where)".replace("\n", " ")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"drc-check {version()}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Model checker and fuzzing harness for deferred reference counting."""


# drc fuzz


@app.command(
    short_help="Look for a difference between implementation and model.",
    epilog="Example: drc fuzz --scope reentrancy --seconds 30 --seed 7",
)
def fuzz(
    seconds: Annotated[float | None, typer.Option(help="Time to spend. 60 if neither this nor --runs is given.", min=0)] = None,
    runs: Annotated[int | None, typer.Option(help="Most runs of each engine on each scope.", min=1, max=RUNS_MAX)] = None,
    seed: Annotated[int, typer.Option(help="The same seed and --runs give the same output.", min=0, max=SEED_MAX)] = 0,
    scope: Annotated[str, typer.Option(help=f"{', '.join(SCOPES)}, or all.")] = "everything",
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINES)}, or all.")] = "random",
    jobs: Annotated[int, typer.Option(help="Processes of the random engine.", min=1, max=JOBS_MAX)] = 1,
    fast: Annotated[
        bool | None,
        typer.Option(
            "--fast/--no-fast", help="Do random runs in compiled code, on raw memory, or not; by default where there is a C compiler."
        ),
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    findings: Annotated[Path, typer.Option(help="Folder that a finding's folder is put into.")] = Path("findings"),
) -> None:
    """Run an implementation and its model side by side, and look for a difference.

    A finding is minimised, told as a story, and written to a folder with its trace and a test that replays it.
    """
    if seconds is None and runs is None:
        seconds = SECONDS_USUAL
    if seconds is not None and not math.isfinite(seconds):
        raise BadInput(f"--seconds {seconds} is no time; leave it out and give --runs to have no bound")
    tasks = [
        Task(engine_name, SCOPES[scope_name])
        for engine_name in _chosen(engine, "engine", ENGINES)
        for scope_name in _chosen(scope, "scope", tuple(SCOPES))
    ]
    _check_folder(findings)
    compiled = any(task.engine == "random" for task in tasks) and wanted(fast)
    with Progress(sys.stderr, total=len(tasks), runs=runs) as progress:
        campaign = run_campaign(tasks, seconds=seconds, runs=runs, seed=seed, jobs=jobs, observer=progress, fast=compiled)
        finding = _finding(campaign, progress)
    raise typer.Exit(_tell(campaign, finding, findings, json_wanted=as_json_))


def _chosen(word: str, what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if word == "all":
        return names
    if word not in names:
        raise BadInput(f"--{what} {word}: there is no such {what} (there are: {', '.join(names)}, all)")
    return (word,)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that no finding could be written to, before the work is done."""
    why = unwritable(folder)
    if why:
        raise BadInput(f"--findings {folder}: {why}")


def _finding(campaign: Campaign, progress: Progress) -> Finding | None:
    part = campaign.finding
    if part is None or part.result.finding is None:
        return None
    progress.say(f"found {part.result.finding.verdict}; minimising")
    return minimise(part.result.limits, part.result.finding, checked=part.result.checked, origin=campaign.origin(part))


def _tell(campaign: Campaign, finding: Finding | None, parent: Path, *, json_wanted: bool) -> int:
    """Print what came of a campaign, write the finding, and return the exit code."""
    folder, failure = None, None
    if finding is not None:
        try:
            folder = write(finding, parent)
        except OSError as error:
            failure = HarnessFailure(f"the finding could not be written: {error}; its trace is above")
    missing = campaign.missing()
    if json_wanted:
        _print(json.dumps(as_json(campaign, finding, None if folder is None else str(folder), missing), indent=2))
    else:
        print_tables(campaign, sys.stdout)
        if finding is not None:
            again = "TRACE" if folder is None else str(folder / "trace.drc")
            _print("", *finding.lines(again=again), *([] if folder else ["", finding.trace_text().rstrip()]))
        for line in missing:
            _print(line)
    sys.stdout.flush()
    sys.stderr.write(f"{speed(campaign.operations, campaign.seconds)} over {campaign.seconds:.1f} s\n")
    if failure is not None:
        raise failure
    return _exit_code(campaign, missing)


def _exit_code(campaign: Campaign, missing: list[str]) -> int:
    if campaign.interrupted:
        sys.stderr.write("drc: interrupted; this is what was done so far\n")
        return INTERRUPTED
    if campaign.finding is not None:
        return FOUND
    idle = [str(part.task) for part in campaign.parts if not part.result.operations]
    if idle or not campaign.parts:
        sys.stderr.write(f"drc: inconclusive: nothing was done: {'; '.join(idle)}\n")
        return INCONCLUSIVE
    if missing:
        sys.stderr.write(f"drc: inconclusive: {len(missing)} things that should have happened by now have not\n")
        return INCONCLUSIVE
    return NOTHING_FOUND


def _print(*lines: str) -> None:
    """Print lines, whatever the terminal can show of them."""
    for line in lines:
        typer.echo(line)


app.command(
    short_help="Search a small scope exhaustively.",
    epilog="Example: drc check --scope reentrancy",
)(check)
app.command(
    short_help="Run generated programs on released engines.",
    epilog="Example: drc releases --versions 0.24.0,0.29.0,0.30.0 --seconds 60",
)(releases)

app.command(
    short_help="Prove what must hold for all sizes.",
    epilog="Example: drc prove lookup --second-solver",
)(prove)

app.command(
    short_help="Put known defects back and see who notices.",
    epilog="Example: drc mutants CVE-2021-39216 --engine random,check",
)(mutants)


# drc replay


@app.command(
    short_help="Replay a trace step by step.",
    epilog="Example: drc replay findings/Violation-1a2b3c4d/trace.drc -v",
)
def replay(
    file: Annotated[Path, typer.Argument(help="A trace.", show_default=False)],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the model's state after each step, and the finale.")] = False,
    checked: Annotated[bool, typer.Option("--checked/--raw", help="Which memory; checked names errors where they happen.")] = True,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    on: Annotated[str | None, typer.Option(help="Run it, or a program.json, on a released engine: wasmtime==0.29.0.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="With --on: if memory is corrupt, run control experiments for the cause.")
    ] = False,
) -> None:
    """Replay a trace step by step, and compare both sides after each.

    An operation that is not possible when its turn comes is skipped, and said so.
    """
    if on is not None:
        raise typer.Exit(replay_on(file, on, examine=controls))
    if controls:
        raise typer.BadParameter("--controls: they run on a released engine; name one with --on wasmtime==VERSION")
    telling = _replayed(file, _read(file), checked=checked, states=verbose)
    divergence = telling.divergence
    executed = sum(step.skipped is None and not step.finale for step in telling.steps)
    if as_json_:
        _print(json.dumps(_telling_as_json(telling), indent=2))
    else:
        _print(*_replay_lines(telling, verbose=verbose))
        if divergence is not None:
            model, implementation = sides(divergence)
            _print(f"{divergence.verdict}", f"  the model:          {model}", f"  the implementation: {implementation}")
        else:
            skipped = sum(step.skipped is not None for step in telling.steps)
            _print(f"both sides agree to the end: {executed} operations executed, {skipped} skipped")
    if divergence is None and not executed:
        sys.stderr.write(f"drc: inconclusive: no operation of {file} was executed\n")
        raise typer.Exit(INCONCLUSIVE)
    raise typer.Exit(FOUND if divergence is not None else NOTHING_FOUND)


def _replayed(file: Path, trace: Trace, *, checked: bool, states: bool = False) -> Telling:
    try:
        return tell(trace, checked=checked, states=states)
    except (ValueError, MemoryError) as error:
        raise BadInput(f"{file}: line 1: these bounds cannot be had: {error}") from error


def _read(file: Path) -> Trace:
    """Read a trace file.

    Raises:
        BadInput: names the file, and the line where there is one.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{file}: not a file" if not stat.S_ISDIR(status.st_mode) else f"{file}: a folder, not a trace")
        if status.st_size > SIZE_MAX_BYTES:
            raise BadInput(f"{file}: {status.st_size} bytes; a trace has at most {SIZE_MAX_BYTES}")
        return parse_bytes(file.read_bytes())
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadInput(f"{str(file)!r} is no path: {error}") from error
    except TraceError as error:
        raise BadInput(f"{file}: {error}") from error


def _replay_lines(telling: Telling, *, verbose: bool) -> list[str]:
    """Return the steps; if verbose, each with the model's state after it."""
    lines = step_lines(telling, finale=verbose)
    if not verbose:
        return lines
    told = []
    latest = -1
    for index, ended in telling.events:
        if not ended:
            told.append(lines[index])
        else:
            after = "" if index == latest else f"after {index + 1}: "
            told += [f"        {after}{line}" for line in telling.steps[index].state]
        latest = index
    return told


def _telling_as_json(telling: Telling) -> dict[str, Any]:
    divergence = telling.divergence
    return {
        "agrees": divergence is None,
        "memory": "checked" if telling.checked else "raw",
        "operations": [
            {
                "operation": format_row(step.row, telling.limits),
                "depth": step.depth,
                "finale": step.finale,
                "skipped": step.skipped,
                "did": None if step.skipped is not None else step.did,
                "destroyed": step.destroyed,
                "failed": step.failed,
                **({"state": step.state} if step.state else {}),
            }
            for step in telling.steps
        ],
        "divergence": None if divergence is None else {"verdict": divergence.verdict, "text": divergence.text},
    }


# drc shrink


@app.command(
    short_help="Cut a trace down to what its disagreement needs.",
    epilog="Example: drc shrink crash.drc --raw > small.drc",
)
def shrink(
    file: Annotated[Path, typer.Argument(help="A trace on which the two sides disagree.", show_default=False)],
    checked: Annotated[bool, typer.Option("--checked/--raw", help="The memory that it diverges on.")] = True,
) -> None:
    """Cut a trace down to what its disagreement needs, and print it; the story goes to stderr."""
    trace = _read(file)
    divergence = _replayed(file, trace, checked=checked).divergence
    if divergence is None:
        memory = "checked" if checked else "raw"
        raise BadInput(f"{file}: both sides agree to the end on the {memory} memory, so there is nothing to shrink")
    finding = minimise(trace.limits, divergence, checked=checked, origin=Origin("replay", trace.limits.scope, 0))
    _print(format_trace(finding.trace, finding.divergence.depths[: len(finding.trace.rows)]).rstrip("\n"))
    sys.stdout.flush()
    shrunk = f"{len(finding.trace.rows)} of {finding.operations} operations"
    sys.stderr.write("\n".join(story(finding.telling, where=shrunk, lines_max=LINES_MAX)) + "\n")
    raise typer.Exit(FOUND)


if __name__ == "__main__":
    sys.exit(main())
