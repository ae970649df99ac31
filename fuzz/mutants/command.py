"""`drc mutants` holds every engine against known defects; one that fewer than two engines notice is a survivor, and exit code 1."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fuzz.mutants.automatic import MODULES, mutate
from fuzz.mutants.catalogue import CatalogueError, Mutant, load
from fuzz.mutants.keep import keep
from fuzz.mutants.log import Log
from fuzz.mutants.matrix import Runner, chosen_engines
from fuzz.mutants.names import ENGINES
from fuzz.mutants.report import MutantProgress, as_json, listing, print_matrix
from fuzz.random_engine import SEED_MAX
from fuzz.workers import HarnessFailure

if TYPE_CHECKING:
    from fuzz.mutants.matrix import Matrix

NOTHING_FOUND: Final = 0
FOUND: Final = 1
INCONCLUSIVE: Final = 3
INTERRUPTED: Final = 130
SECONDS_USUAL: Final = 30.0
AUTO_SECONDS_USUAL: Final = 10.0
JOBS_MAX: Final = 64


def mutants(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Mutants by id; all of the catalogue if none is given.", show_default=False)
    ] = None,
    engine: Annotated[str, typer.Option(help=f"{', '.join(ENGINES)}, several with commas, or all.")] = "all",
    seconds: Annotated[float | None, typer.Option(help="Time of each engine for each mutant; 30, with --auto 10.", min=0)] = None,
    jobs: Annotated[int, typer.Option(help="Processes at once.", min=1, max=JOBS_MAX)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the engines.", min=0, max=SEED_MAX)] = 0,
    resume: Annotated[Path | None, typer.Option(help="File that results are kept in, and gone on from.")] = None,
    auto: Annotated[str | None, typer.Option(help=f"Enumerate small changes of a module of impl instead: {', '.join(MODULES)}.")] = None,
    keep_: Annotated[Path | None, typer.Option("--keep", help="Folder for the shortest trace on which each is noticed.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the mutants; those given by id with their diffs.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Put known defects back, one at a time and never in a file, and see which engine notices each, how fast, and with what story.

    With --auto all single changes of operators, constants, conditions and statements of a module are tried, and survivors shown.
    """
    if seconds is not None and not math.isfinite(seconds):
        raise typer.BadParameter(f"--seconds {seconds} is no time")
    if resume is not None and not resume.parent.is_dir():
        raise typer.BadParameter(f"--resume {resume}: no file can be there")
    if auto is not None:
        if ids or list_:
            raise typer.BadParameter("--auto takes a module, and neither ids nor --list")
        if auto not in MODULES:
            raise typer.BadParameter(f"--auto {auto}: there is no such module (there are: {', '.join(MODULES)})")
        raise typer.Exit(mutate(auto, seconds=AUTO_SECONDS_USUAL if seconds is None else seconds, jobs=jobs, resume=resume, json_=as_json_))
    try:
        wanted = _wanted(ids or [])
        engines = chosen_engines(engine)
    except CatalogueError as error:
        raise typer.BadParameter(str(error)) from error
    except KeyError as error:
        raise typer.BadParameter(f"--engine {engine}: there is no engine {error} (there are: {', '.join(ENGINES)}, all)") from error
    if list_:
        for line in listing(wanted, diffs=bool(ids)):
            typer.echo(line)
        raise typer.Exit(NOTHING_FOUND)
    control = not ids
    with MutantProgress(sys.stderr, len(engines) * (len(wanted) + control)) as progress:
        try:
            log = Log(resume)
        except CatalogueError as error:
            raise typer.BadParameter(str(error)) from error
        try:
            runner = Runner(SECONDS_USUAL if seconds is None else seconds, seed, log, progress.tell)
            matrix = runner.fill(wanted, engines, jobs, control=control)
        finally:
            log.close()
    without = keep(matrix, keep_) if keep_ is not None else []
    if without:
        sys.stderr.write(f"drc: no trace is kept of {', '.join(without)}\n")
    raise typer.Exit(_tell(matrix, json_wanted=as_json_))


def _wanted(ids: list[str]) -> list[Mutant]:
    known = load()
    for name in ids:
        if name not in known:
            raise CatalogueError(f"there is no mutant {name!r} (drc mutants --list shows all)")
    return [mutant for mutant in known.values() if not ids or mutant.name in ids]


def _tell(matrix: Matrix, *, json_wanted: bool) -> int:
    """Print the matrix and return the exit code.

    Raises:
        HarnessFailure: a cell failed.
    """
    if json_wanted:
        typer.echo(json.dumps(as_json(matrix), indent=2))
    else:
        print_matrix(matrix, sys.stdout)
    sys.stdout.flush()
    if matrix.interrupted:
        sys.stderr.write("drc: interrupted; this is what was done so far\n")
        return INTERRUPTED
    failed = [(name, engine, cell) for (name, engine), cell in matrix.cells.items() if cell.status == "failed"]
    if failed:
        name, engine, cell = failed[0]
        raise HarnessFailure(f"{len(failed)} cells failed, the first {engine} on {name}: {cell.text}")
    if not matrix.wanted():
        sys.stderr.write("drc: inconclusive: none of these engines can judge a mutant here\n")
        return INCONCLUSIVE
    return FOUND if matrix.survivors() else NOTHING_FOUND
