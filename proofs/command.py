"""`drc prove` asks a solver about every obligation, and its exit code says whether each answer was the expected one."""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from proofs.certificates import Certificate
    from proofs.obligations import Obligation, Verdict
    from proofs.solving import Result

NOTHING_FOUND: Final = 0
FOUND: Final = 1
INCONCLUSIVE: Final = 3
INTERRUPTED: Final = 130
JOBS_MAX: Final = 64
SECONDS_USUAL: Final = 60.0
WORKER_MEMORY_MAX_BYTES: Final = 8 << 30
# What a process may take before it counts as hung: this, and so many times the limit of a question.
WORKER_SECONDS_MAX: Final = 600.0
QUESTIONS_MAX: Final = 100
WAIT_SECONDS: Final = 5.0


class Unusable(typer.BadParameter):
    """What the user asks for cannot be had: one line says why."""

    def format_message(self) -> str:
        """Return the line as it is."""
        return self.message


@dataclass(frozen=True)
class Told:
    """All that is known of one obligation.

    Args:
        result: What the first solver said.
        second: What the second said of each claim; none if it was not asked.
        certificate: What came of certification; none if it was not asked for.
    """

    result: Result
    second: tuple[Verdict, ...] | None
    certificate: Certificate | None

    @property
    def disagrees(self) -> bool:
        """Whether the second solver gives another answer than the first."""
        pairs = zip(self.second or (), self.result.claims, strict=False)
        return any(answer is not claim.verdict and answer.value != "unknown" for answer, claim in pairs)

    @property
    def failed(self) -> bool:
        """Whether something is not as it should be."""
        return self.result.surprising or self.disagrees or (self.certificate is not None and self.certificate.rejected)

    @property
    def unknown(self) -> bool:
        """Whether a solver gave up."""
        return "unknown" in {self.result.verdict.value, *(answer.value for answer in self.second or ())}


def prove(
    names: Annotated[list[str] | None, typer.Argument(help="Obligations or subjects; all by default.", show_default=False)] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what there is, and ask no solver.")] = False,
    as_json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1, max=JOBS_MAX)] = 1,
    smt2: Annotated[Path | None, typer.Option(help="Folder to write each claim to, as an SMT-LIB 2 file.")] = None,
    second_solver: Annotated[bool, typer.Option("--second-solver", help="Let bitwuzla or cvc5 answer as well; needs `solvers`.")] = False,
    certify: Annotated[bool, typer.Option("--certify", help="Make and check DRAT certificates; needs cadical and dratify.")] = False,
    seconds: Annotated[float, typer.Option(help="Limit of each question to a solver, in processor time.", min=0.001)] = SECONDS_USUAL,
) -> None:
    """Ask a solver about every obligation: what must hold of impl's functions for all sizes, and what must not hold of its defects.

    What is refuted is refuted on purpose: its witness is shown, and was replayed on the concrete function.
    """
    if not math.isfinite(seconds):
        raise Unusable(f"--seconds {seconds} is no time")
    _check_tools(second_solver=second_solver, certify=certify)
    chosen = _chosen(names or [])
    if smt2 is not None and smt2.exists() and not smt2.is_dir():
        raise Unusable(f"--smt2 {smt2}: is no folder")
    if list_:
        _print_list(chosen, json_wanted=as_json_)
        raise typer.Exit(NOTHING_FOUND)
    if smt2 is not None:
        from proofs.smtlib import write_files

        sys.stderr.write(f"{len(write_files(chosen, smt2))} files written to {smt2}\n")
    raise typer.Exit(_prove(chosen, jobs, seconds, second_solver=second_solver, certify=certify, json_wanted=as_json_))


def _prove(chosen: list[Obligation], jobs: int, seconds: float, *, second_solver: bool, certify: bool, json_wanted: bool) -> int:
    began = time.monotonic()
    found: dict[str, Told] = {}
    interrupted = False
    try:
        for told in _answers([obligation.name for obligation in chosen], jobs, seconds, second_solver, certify):
            found[told.result.name] = told
            sys.stderr.write(f"{told.result.verdict.value:8} {told.result.seconds:6.2f} s  {told.result.name}\n")
    except KeyboardInterrupt:
        interrupted = True
    in_order = [found[obligation.name] for obligation in chosen if obligation.name in found]
    if json_wanted:
        typer.echo(json.dumps(_as_json(in_order), indent=2))
    else:
        from proofs.report import print_report

        print_report(in_order, sys.stdout)
    sys.stdout.flush()
    sys.stderr.write(f"{len(in_order)} of {len(chosen)} obligations in {time.monotonic() - began:.1f} s\n")
    if interrupted:
        sys.stderr.write("drc: interrupted; this is what is known so far\n")
        return INTERRUPTED
    if any(told.failed for told in in_order):
        return FOUND
    if any(told.unknown for told in in_order):
        sys.stderr.write("drc: inconclusive: a solver gave up; --seconds gives it more time\n")
        return INCONCLUSIVE
    return NOTHING_FOUND


def _check_tools(*, second_solver: bool, certify: bool) -> None:
    """Refuse what is asked for if a library or a program for it is missing.

    Raises:
        Unusable: It is.
    """
    if find_spec("z3") is None:
        raise Unusable("drc prove needs z3, the extra `proofs`: pip install 'drc-check[proofs]'")
    if second_solver:
        from proofs.second import missing_solvers

        if missing := missing_solvers():
            raise Unusable(f"--second-solver needs {' and '.join(missing)}, the extra `solvers`: pip install 'drc-check[solvers]'")
    if certify:
        from proofs.certificates import missing_tools

        if missing := missing_tools():
            raise Unusable(f"--certify needs {' and '.join(missing)}: cadical is a system's package, dratify is in the extra `solvers`")


def _chosen(names: list[str]) -> list[Obligation]:
    """Return the obligations of these names or subjects, in their usual order.

    Raises:
        Unusable: There is none of some name.
    """
    from proofs.obligations import obligations

    everything = obligations()
    known = {obligation.name for obligation in everything} | {obligation.subject for obligation in everything}
    for name in names:
        if name not in known:
            raise Unusable(f"{name!r} is no obligation and no subject: drc prove --list shows what there is")
    return [obligation for obligation in everything if not names or {obligation.name, obligation.subject} & set(names)]


# --- work


def _answers(names: list[str], jobs: int, seconds: float, second: bool, certified: bool) -> Iterator[Told]:
    """Answer each obligation in a process of its own, and yield the answers in the order in which they come.

    A solver's witness depends on what it was asked before. Each process starts as the same copy of this one, which has asked nothing:
    so an answer depends neither on the other obligations nor on the number of processes.

    Raises:
        OSError: A process died or hung.
    """
    context = get_context("fork")
    waiting = list(reversed(names))
    running: dict[Connection, tuple[str, ForkProcess, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(there, name, seconds, second, certified))
                process.start()
                there.close()
                running[here] = name, process, time.monotonic()
            for ready in wait(list(running), timeout=WAIT_SECONDS):
                if isinstance(ready, Connection):
                    name, process, _ = running.pop(ready)
                    yield _received(ready, name, process)
            for name, _, began in running.values():
                if time.monotonic() - began > WORKER_SECONDS_MAX + QUESTIONS_MAX * seconds:
                    raise TimeoutError(f"the process for {name} hangs")
    finally:
        for _, process, _ in running.values():
            process.kill()
            process.join()


def _received(connection: Connection, name: str, process: ForkProcess) -> Told:
    try:
        came: Told | str = connection.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(f"the process for {name} died with exit code {process.exitcode}") from None
    finally:
        connection.close()
    process.join()
    if isinstance(came, str):
        raise RuntimeError(f"{name}: {came}")  # noqa: TRY004 - it stands for what was raised in the process
    return came


def _work(connection: Connection, name: str, seconds: float, second: bool, certified: bool) -> None:
    """Answer in a process of its own, and send the answer or what went wrong. An interruption is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (WORKER_MEMORY_MAX_BYTES, WORKER_MEMORY_MAX_BYTES))
    try:
        connection.send(answer(name, seconds, second, certified))
    except Exception as error:  # noqa: BLE001 - it is raised again where the answer is waited for
        connection.send(f"{type(error).__name__}: {error}")


def answer(name: str, seconds: float, second: bool, certified: bool) -> Told:
    """Answer one obligation.

    Args:
        name: Its name.
        seconds: Limit of each question to a solver.
        second: Whether to ask the second solver as well.
        certified: Whether to make a certificate.
    """
    from proofs.certificates import certify
    from proofs.second import second_verdict
    from proofs.solving import discharge

    (obligation,) = _chosen([name])
    result = discharge(obligation, seconds)
    verdicts = tuple(second_verdict(obligation, claim, seconds) for claim in obligation.claims()) if second else None
    return Told(result, verdicts, certify(obligation) if certified else None)


# --- output


def _print_list(chosen: list[Obligation], *, json_wanted: bool) -> None:
    if json_wanted:
        fields = ("name", "subject", "statement")
        listed = [
            {field: getattr(obligation, field) for field in fields} | {"expected": obligation.expected.value} for obligation in chosen
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    from proofs.report import print_list

    print_list(chosen, sys.stdout)


def _as_json(told: list[Told]) -> dict[str, object]:
    """Return what is printed as JSON; times are not part of it, because they differ between runs."""
    return {
        "as_expected": not any(each.failed or each.unknown for each in told),
        "obligations": [
            {
                "name": each.result.name,
                "subject": each.result.subject,
                "statement": each.result.statement,
                "expected": each.result.expected.value,
                "verdict": each.result.verdict.value,
                "assumptions": list(each.result.assumptions),
                "unused_assumptions": list(each.result.unused),
                "witnesses": [
                    {"part": claim.part, "values": dict(claim.witness), "shown": claim.shown}
                    for claim in each.result.claims
                    if claim.witness
                ],
                "problems": list(each.result.problems),
                **({} if each.second is None else {"second_solver": [verdict.value for verdict in each.second]}),
                **({} if each.certificate is None else {"certified": each.certificate.checked, "certificate": each.certificate.reason}),
            }
            for each in told
        ],
    }
