"""`drc check` follows every sequence of operations within a small scope; what it found and what it did not settle is its exit code."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fuzz.check_report import CheckProgress, Told, as_json, model_story, print_report
from fuzz.check_scopes import CHECK_SCOPES, DEEP_SCOPES
from fuzz.checkpoint import CheckpointError, load, purpose
from fuzz.compiled.keeping import restore
from fuzz.compiled.library import wanted
from fuzz.compiled.machine import fits
from fuzz.compiled.model_search import CompiledModelExplorer
from fuzz.compiled.rows import WORD_BYTES
from fuzz.compiled.search import CompiledExplorer
from fuzz.explore import MEGABYTE, Bounds, Explorer, Search, SearchLoop
from fuzz.findings import Finding, Origin, unwritable, write
from fuzz.graph import SUFFIXES, Graph, TooLarge
from fuzz.model_search import ModelExplorer
from fuzz.model_states import ModelStates
from fuzz.narrator import tell, tell_unreplayed
from fuzz.states import JointStates
from fuzz.workers import HarnessFailure, Workers, usable_processors
from model.limits import Limits, with_numbers
from model.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from fuzz.explore import Violation

NOTHING_FOUND: Final = 0
FOUND: Final = 1
INCONCLUSIVE: Final = 3
INTERRUPTED: Final = 130
CHECKPOINT_SECONDS: Final = 60.0
SPILL_MEGABYTES: Final = 4096
_SCOPES: Final = CHECK_SCOPES | DEEP_SCOPES
JOBS_MAX: Final = 64
LIMIT_DIGITS_MAX: Final = 6


def check(
    scope: Annotated[str, typer.Option(help=f"{', '.join(_SCOPES)}.")] = "reentrancy",
    limit: Annotated[list[str] | None, typer.Option(help="A bound of the scope, as in objects=3; may be given again.")] = None,
    model_only: Annotated[
        bool, typer.Option("--model-only", help="Search the model alone, whatever an implementation would decide.")
    ] = False,
    fast: Annotated[
        bool | None, typer.Option("--fast/--no-fast", help="Search in compiled code, or not; by default where there is a C compiler.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Processes that expand states, with --fast or --model-only.", min=1, max=JOBS_MAX)
    ] = None,
    spill_after: Annotated[
        int, typer.Option(help="With --fast: MB of states that wait in memory; what is more waits in files.", min=0)
    ] = SPILL_MEGABYTES,
    finale: Annotated[bool, typer.Option("--finale", help="With --model-only: let go of everything from each state at rest.")] = False,
    max_states: Annotated[int | None, typer.Option(help="Give up after so many distinct states.", min=1)] = None,
    max_depth: Annotated[int | None, typer.Option(help="Follow no sequence further than so many operations.", min=0)] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Give up after so much time.", min=0)] = None,
    max_memory: Annotated[int | None, typer.Option(help="Give up once the process has so many MB.", min=1)] = None,
    symmetry: Annotated[bool, typer.Option("--symmetry/--no-symmetry", help="Count states once that differ by a renaming.")] = True,
    exact: Annotated[bool, typer.Option("--exact", help="Keep whole states instead of digests: slow, and no collisions.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="File to keep the search in.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(help="Time between two checkpoints.", min=0)] = CHECKPOINT_SECONDS,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in the checkpoint file.")] = False,
    dump: Annotated[Path | None, typer.Option(help="Write the graph of all states to this .dot or .json file.")] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    findings: Annotated[Path, typer.Option(help="Folder that a finding's folder is put into.")] = Path("findings"),
) -> None:
    """Follow every sequence of operations within a small scope, on implementation and model side by side.

    Breadth first, so a violation is a shortest one. What a destructor does, which allocation fails and in which order a sweep goes
    are operations like any other. Once every state has been seen, the search is complete; a bound that is reached is said plainly.

    With --model-only, in small steps: everything that an implementation would decide is open, and the rules themselves are checked.
    """
    limits = _limits(scope, limit or [])
    if max_seconds is not None and not math.isfinite(max_seconds):
        raise typer.BadParameter(f"--max-seconds {max_seconds} is no time")
    if why := unwritable(findings):
        raise typer.BadParameter(f"--findings {findings}: {why}")
    if dump is not None and (dump.suffix not in SUFFIXES or not dump.parent.is_dir() or resume):
        raise typer.BadParameter(f"--dump {dump}: needs a folder that is there, a name in {' or '.join(SUFFIXES)}, and a whole search")
    if finale and not model_only:
        raise typer.BadParameter("--finale is for --model-only")
    if dump is not None and (jobs or 1) > 1:
        raise typer.BadParameter("--dump needs one job: a graph is drawn in order")
    # The plain reading says why bounds are too large for a search of the model alone, and tells its violations.
    model = _model_states(limits, symmetry=symmetry, exact=exact, finale=finale) if model_only else None
    compiled = _is_fast(fast, limits, ("--exact", exact), ("--dump", dump is not None))
    if (jobs or 1) > 1 and not (model_only or compiled):
        raise typer.BadParameter("--jobs is for --fast and --model-only")
    described = purpose(limits, symmetry=symmetry, exact=exact, model_only=model_only, finale=finale, fast=compiled)
    bounds = Bounds(max_states, max_depth, max_seconds, max_memory)
    _check_checkpoint(checkpoint, resume=resume)
    with contextlib.ExitStack() as stack:
        explorer: SearchLoop | CompiledExplorer
        graph: Graph | None = None
        if compiled:
            memory_max = spill_after * MEGABYTE // WORD_BYTES
            jobs = jobs or usable_processors()
            if model is not None:
                explorer = CompiledModelExplorer(limits, symmetry=symmetry, finale=finale, bounds=bounds, jobs=jobs, memory_max=memory_max)
            else:
                explorer = CompiledExplorer(limits, symmetry=symmetry, bounds=bounds, jobs=jobs, memory_max=memory_max)
            _resume(checkpoint, described, explorer, resume=resume)
        elif model is not None:
            workers = stack.enter_context(Workers(jobs)) if jobs is not None and jobs > 1 else None
            search = _begun(checkpoint, described, resume=resume)
            explorer, graph = ModelExplorer(model, search, bounds, workers=workers), Graph(model)
        else:
            system = JointStates(limits, symmetry=symmetry)
            explorer = Explorer(system, _begun(checkpoint, described, resume=resume), bounds)
            graph = Graph(system)
        figures = _searched(explorer, scope, checkpoint, checkpoint_seconds, described, graph, dump)
    told = Told(scope, limits, symmetry=symmetry, model_only=model_only, figures=figures)
    raise typer.Exit(_tell(explorer, told, findings, json_wanted=as_json_))


def _searched(
    explorer: SearchLoop | CompiledExplorer,
    scope: str,
    checkpoint: Path | None,
    checkpoint_seconds: float,
    described: dict[str, object],
    graph: Graph | None,
    dump: Path | None,
) -> str:
    """Run a search with its progress, its checkpoints and its graph; return how far it came, in one line."""
    search = explorer.search
    if graph is not None and isinstance(explorer, SearchLoop) and dump is not None:
        explorer.record = graph.record
    with CheckProgress(sys.stderr, scope, search) as progress:
        saved = time.monotonic()

        def between(_search: Search) -> None:
            nonlocal saved
            progress.update()
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                explorer.save(checkpoint, described)
                saved = time.monotonic()

        explorer.between = between
        with _interruptible(explorer):
            try:
                explorer.run()
            except TooLarge as error:
                raise typer.BadParameter(f"--dump {dump}: {error}") from error
        if graph is not None and dump is not None:
            graph.write(dump)
        figures = progress.figures()
        if checkpoint is not None and explorer.violation is None:
            explorer.save(checkpoint, described)
    return figures


def _limits(scope: str, changes: list[str]) -> Limits:
    if scope not in _SCOPES:
        raise typer.BadParameter(f"--scope {scope}: there is no such scope (there are: {', '.join(_SCOPES)})")
    numbers = {}
    for change in changes:
        name, _, value = change.partition("=")
        if not (value.isascii() and value.isdigit()) or len(value) > LIMIT_DIGITS_MAX:
            raise typer.BadParameter(f"--limit {change}: a bound is given as in objects=3")
        numbers[name] = int(value)
    try:
        return with_numbers(_SCOPES[scope], numbers)
    except ValueError as error:
        raise typer.BadParameter(f"--limit: {error}") from error


def _model_states(limits: Limits, *, symmetry: bool, exact: bool, finale: bool) -> ModelStates:
    try:
        return ModelStates(limits, symmetry=symmetry, exact=exact, finale=finale)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _is_fast(fast: bool | None, limits: Limits, *others: tuple[str, bool]) -> bool:
    """Say whether to search in compiled code: as was asked, or where it can be had."""
    against = [name for name, chosen in others if chosen]
    if fast and against:
        raise typer.BadParameter(f"--fast does not go with {against[0]}")
    if fast and not fits(limits):
        raise typer.BadParameter("--fast: these bounds do not fit into compiled code; use --no-fast")
    return not against and fits(limits) and wanted(fast)


def _check_checkpoint(path: Path | None, *, resume: bool) -> None:
    """Refuse a checkpoint file that cannot be used."""
    if path is None:
        if resume:
            raise typer.BadParameter("--resume needs --checkpoint, the file to go on from")
        return
    if not path.parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"--checkpoint {path}: no file can be there")
    if not resume and path.exists():
        raise typer.BadParameter(f"--checkpoint {path}: is there already; go on from it with --resume, or remove it")


def _begun(path: Path | None, described: dict[str, object], *, resume: bool) -> Search:
    """Return the search to go on with: that of the checkpoint file, or a new one."""
    if path is None or not resume:
        return Search(exact=bool(described["exact"]))
    with _readable(path):
        return load(path, described)


def _resume(path: Path | None, described: dict[str, object], explorer: CompiledExplorer, *, resume: bool) -> None:
    """Let a compiled search go on from the checkpoint file."""
    if path is not None and resume:
        with _readable(path):
            restore(path, explorer, described)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise typer.BadParameter(f"--resume: {path} is not there") from error
    except CheckpointError as error:
        raise typer.BadParameter(f"--resume: {path}: {error}") from error


@contextlib.contextmanager
def _interruptible(explorer: SearchLoop | CompiledExplorer) -> Iterator[None]:
    """Let a first interruption end the search after the state at hand, and a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if explorer.interrupted:
            signal.default_int_handler(number, frame)
        explorer.interrupted = True

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _finding(limits: Limits, scope: str, violation: Violation) -> Finding:
    """Replay a violation, so that it is told as any finding is."""
    trace = Trace(limits, violation.rows)
    origin = Origin("exhaustive", scope, 0)
    telling = tell(trace, checked=False)
    count = len(trace.rows)
    if telling.divergence is None:
        told = tell_unreplayed(trace, violation.divergence, checked=False)
        return Finding(trace, violation.divergence, False, origin, count, "it did not show again when it was replayed", told, "")
    other = tell(trace, checked=True).divergence
    says = "" if other is None or other.verdict == telling.divergence.verdict else str(other)
    return Finding(trace, telling.divergence, False, origin, count, "", telling, says)


def _tell(explorer: SearchLoop | CompiledExplorer, told: Told, parent: Path, *, json_wanted: bool) -> int:
    """Print what came of the search, write the finding, and return the exit code."""
    folder, failure, finding = None, None, None
    violation = explorer.violation
    if violation is not None and not told.model_only:
        finding = _finding(told.limits, told.scope, violation)
        try:
            folder = write(finding, parent)
        except OSError as error:
            failure = HarnessFailure(f"the finding could not be written: {error}; its trace is above")
    if json_wanted:
        found = as_json(explorer, told, finding=finding, folder=None if folder is None else str(folder))
        typer.echo(json.dumps(found, indent=2))
    else:
        print_report(explorer, told, sys.stdout)
        if finding is not None:
            again = "TRACE" if folder is None else str(folder / "trace.drc")
            for line in ("", *finding.lines(again=again), *([] if folder else ["", finding.trace_text().rstrip()])):
                typer.echo(line)
        elif violation is not None:
            typer.echo("\n" + "\n".join(model_story(violation, told.limits)))
    sys.stdout.flush()
    sys.stderr.write(f"{told.figures}\n")
    if failure is not None:
        raise failure
    return _exit_code(explorer)


def _exit_code(explorer: SearchLoop | CompiledExplorer) -> int:
    if explorer.violation is not None:
        return FOUND
    if explorer.interrupted:
        sys.stderr.write("drc: interrupted; this is what was done so far\n")
        return INTERRUPTED
    if not explorer.search.complete:
        sys.stderr.write(f"drc: inconclusive: {explorer.reached} reached before every state was seen\n")
        return INCONCLUSIVE
    if not explorer.search.transitions:
        sys.stderr.write("drc: inconclusive: nothing was done\n")
        return INCONCLUSIVE
    return NOTHING_FOUND
