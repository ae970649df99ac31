"""A campaign runs the same numbered programs on several releases; what it finds is minimised there, then run on all of them.

Each release has its own time. Workers are processes; each has its own engine process and takes every so-manieth program. A slice of
work ends by itself after a few seconds, so that an interruption loses little.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fuzz.releases import controls, oracle
from fuzz.releases.advisories import Found, Sighting
from fuzz.releases.build import collecting
from fuzz.releases.engine import Release, StartError
from fuzz.releases.generate import OPERATIONS_MAX, PROFILES, generate
from fuzz.releases.minimise import MEMORY, Minimised, family, minimise
from fuzz.releases.oracle import Verdict
from fuzz.workers import Workers, stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fuzz.releases.build import Built
    from fuzz.releases.engine import Outcome
    from fuzz.releases.examined import Examination

SLICE_SECONDS: Final = 5.0
SLICE_MODULES: Final = 200
"""Most modules of a slice."""
MINIMISE_SECONDS_MAX: Final = 20.0
"""For one finding."""
MINIMISE_SECONDS_MIN: Final = 5.0
"""For one that is found when the time is nearly over."""
EXAMINE_PROGRAM_SECONDS: Final = 2.0
MINIMISE_PROGRAM_SECONDS: Final = 1.0
"""Processor time of one program while minimising; most take a hundredth of it."""
OPERATIONS_FIRST: Final = 8
OPERATIONS_STEP: Final = 2
"""The first module of a release has few operations, each further one so many more, up to the most: so the first findings are small."""
MINIMISE_SHARE: Final = 0.5
"""Of a release's time, where that is bounded: what comes later is counted, but not minimised."""
FINDINGS_MAX: Final = 2
"""Findings of one verdict that says memory is corrupt, of one profile, that are minimised on one release: they may be of several kinds."""
QUIET_FINDINGS_MAX: Final = 1
"""The same for findings of other families, which come in hundreds where they come."""
SHOWINGS: Final = 3
"""Times that a smallest program is run on a release before it counts as harmless there: what freed memory holds is chance."""
REFUSALS: Final = 10
"""A profile of which a release has refused so many programs and at least a fifth is left out from then on."""
EXAMINE_SECONDS_MAX: Final = 10.0
"""For one finding, where time bounds the campaign; most take a fifth of a second."""
EXAMINE_RELEASES_MAX: Final = 3
"""Releases on which a finding is examined, as long as nothing is seen of it again."""
VARIANTS: Final = 3
"""Programs of one module: as it was drawn, with a collection before each action of the host, and before some."""
_HARNESS: Final = ("out of memory", "flood", "exit", "killed")
"""Ends of a process that do not count against the engine."""
_SALT: Final = 0x5EED


@dataclass(slots=True)
class Slice:
    """What one slice of work came to."""

    next: int
    programs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    profiles: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in PROFILES])
    found: list[Found] = field(default_factory=list)
    minimising: float = 0.0
    processor: float = 0.0

    def count(self, verdict: Verdict | None, profile: int) -> None:
        """Count a program."""
        self.programs += 1
        self.profiles[profile][0] += 1
        if verdict is not None:
            self.verdicts[verdict.kind] += 1
            self.profiles[profile][1] += verdict.kind == oracle.REFUSED


@dataclass(slots=True)
class Cell:
    """What came of one release.

    Args:
        release: its number.
        programs: programs run to their end or their finding.
        verdicts: programs by verdict; those in order are not counted.
        found: minimised findings, by number of program.
        seconds: wall time.
        minimising: time of one worker that went into minimising.
        processor: processor time of workers and engines, in seconds.
        problem: why it could not be run on this machine; one line.
    """

    release: str
    programs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    profiles: list[list[int]] = field(default_factory=lambda: [[0, 0] for _ in PROFILES])
    found: list[Found] = field(default_factory=list)
    seconds: float = 0.0
    minimising: float = 0.0
    processor: float = 0.0
    problem: str = ""

    def add(self, part: Slice) -> None:
        """Count a slice."""
        self.programs += part.programs
        self.verdicts += part.verdicts
        for total, new in zip(self.profiles, part.profiles, strict=True):
            total[0] += new[0]
            total[1] += new[1]
        self.found += part.found
        self.minimising += part.minimising
        self.processor += part.processor

    @property
    def firsts(self) -> list[Found]:
        """The first finding of each verdict that was minimised, in the order in which they were."""
        firsts: dict[str, Found] = {}
        for found in sorted(self.found, key=lambda found: found.seconds):
            firsts.setdefault(found.verdict.kind, found)
        return list(firsts.values())

    @property
    def judged(self) -> int:
        """Programs that the release has not refused."""
        return self.programs - self.verdicts[oracle.REFUSED] - self.verdicts[oracle.UNFINISHED]

    @property
    def findings(self) -> int:
        """Programs with a finding."""
        return sum(self.verdicts.values()) - self.verdicts[oracle.REFUSED] - self.verdicts[oracle.UNFINISHED]


def verdict_of(built: Built, outcome: Outcome) -> Verdict | None:
    """Judge a program by what became of it. What was wrong before the process died says more than how it died."""
    verdict = oracle.judge(built.expected, outcome.events)
    if not outcome.death or (verdict is not None and verdict.finding):
        return verdict
    said = [line for line in outcome.stderr.splitlines() if line.strip()]
    if outcome.death.startswith(_HARNESS):
        return Verdict(oracle.UNFINISHED, outcome.death)
    where = next((event[1] for event in reversed(outcome.events) if event[0] == "at"), None)
    place = f"after {oracle.words(tuple(where))}" if where else "at the beginning"
    return Verdict(outcome.death, f"{place}{': ' + said[0][:160] if said else ''}")


@dataclass(frozen=True, slots=True)
class Order:
    """What a slice of work is asked to do.

    Args:
        folder: of the release.
        seed: of the campaign.
        first, step: numbers of modules.
        modules: most modules.
        programs: number of programs of the whole campaign, or None; the last module may have fewer than the others.
        seconds: when to begin no other module; None for no bound.
        profiles: programs and refusals by profile so far.
        minimised: findings that have been minimised so far, by verdict and profile.
        began: when the release's campaign began, by the monotonic clock, which all processes share.
        processor: processor time of this worker in the release's campaign before this slice.
        minimising_max: when to stop minimising, in seconds; None for no bound.
        until: when the release's time is over, by the monotonic clock; None for never.
    """

    folder: Path
    seed: int
    first: int
    step: int
    modules: int
    programs: int | None
    seconds: float | None
    profiles: Sequence[Sequence[int]]
    minimised: Counter[tuple[str, int]]
    began: float
    processor: float
    minimising_max: float | None
    until: float | None


def run_slice(order: Order) -> Slice:
    """Run the programs of modules number `first`, `first + step` and so on."""
    part = Slice(order.first)
    began, own = time.monotonic(), time.process_time()
    minimised = order.minimised.copy()
    with Release(order.folder) as release:
        for _ in range(order.modules):
            number = part.next
            over = order.seconds is not None and time.monotonic() - began >= order.seconds
            if over or stopping() or (order.programs is not None and number * VARIANTS >= order.programs):
                break
            part.next += order.step
            index = _profile(number, order.profiles, part.profiles)
            operations = min(OPERATIONS_MAX, OPERATIONS_FIRST + OPERATIONS_STEP * number)
            base = generate(_seed(order.seed, number), PROFILES[index], number, operations)
            done: set[str] = set()
            for variant in range(VARIANTS if order.programs is None else min(VARIANTS, order.programs - number * VARIANTS)):
                built = collecting(base, variant and variant + number * (variant > 1))
                verdict = verdict_of(built, release.run(built.program.as_json()))
                part.count(verdict, index)
                key = "" if verdict is None else verdict.kind, index
                late = order.minimising_max is not None and part.minimising > order.minimising_max
                # What has not been seen yet is worth any time.
                late = late and any(kind == key[0] for kind, _ in minimised)
                most = FINDINGS_MAX if family(verdict) == MEMORY else QUIET_FINDINGS_MAX
                if verdict is None or not verdict.finding or key[0] in done or late or minimised[key] >= most:
                    continue
                done.add(key[0])
                minimised[key] += 1
                start = time.monotonic()
                # The last one may take a little longer than the release's time.
                most_seconds = None if order.until is None else max(MINIMISE_SECONDS_MIN, min(MINIMISE_SECONDS_MAX, order.until - start))
                small = _minimised(release, built, verdict, most_seconds)
                stderr = release.run(small.built.program.as_json()).stderr
                now, spent = time.monotonic(), time.process_time() - own + release.processor_seconds
                part.minimising += now - start
                found = Found(order.folder.name, number, index, len(built.recipe.items), now - order.began, verdict, *small.shown, stderr)
                part.found.append(replace(found, seen=start - order.began, processor=order.processor + spent))
        part.processor = time.process_time() - own + release.processor_seconds
    return part


def _profile(number: int, before: Sequence[Sequence[int]], now: Sequence[Sequence[int]]) -> int:
    """Return the profile of a program: in turn, less those that the release does not take."""
    fit = []
    for index in range(len(PROFILES)):
        refused = before[index][1] + now[index][1]
        if refused < REFUSALS or refused * 5 < before[index][0] + now[index][0]:
            fit.append(index)
    return fit[number % len(fit)] if fit else number % len(PROFILES)


def _seed(seed: int, number: int) -> int:
    return (seed << 32 | number) ^ _SALT


def _minimised(release: Release, built: Built, verdict: Verdict, seconds: float | None) -> Minimised:
    end = None if seconds is None else time.monotonic() + seconds

    def judge(candidate: Built) -> Verdict | None:
        return verdict_of(candidate, release.run(candidate.program.as_json(), MINIMISE_PROGRAM_SECONDS))

    def again(candidate: Built) -> Verdict | None:
        release.close()
        return verdict_of(candidate, release.run(candidate.program.as_json()))

    def stop() -> bool:
        return (end is not None and time.monotonic() > end) or stopping()

    return minimise(built, verdict, judge, again=again, stop=stop)


class Campaign:
    """A campaign over releases.

    Args:
        folders: of the releases, oldest first; a folder's name is the release's number.
        seconds: for each release; None has no bound.
        programs: most programs for each release, or None.
        seed: of the programs.
        jobs: processes.
        say: told of each release that is done, and now and then meanwhile.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        seconds: float | None,
        programs: int | None,
        seed: int,
        jobs: int,
        say: Callable[[Cell, bool], None] = lambda _cell, _over: None,
    ) -> None:
        self.folders = list(folders)
        self.seconds = seconds
        self.programs = programs
        self.seed = seed
        self.jobs = jobs
        self.say = say
        self.cells: list[Cell] = []
        self.sightings: list[Sighting] = []
        self.interrupted = False

    def run(self) -> None:
        """Run it. An interruption from the keyboard ends it with what is known so far.

        Raises:
            RunnerError: the runner failed.
            HarnessFailure: a worker died.
        """
        try:
            with Workers(self.jobs) as workers:
                for folder in self.folders:
                    cell = Cell(folder.name)
                    self.cells.append(cell)
                    try:
                        self._fill(cell, folder, workers)
                    except StartError as error:
                        cell.problem = str(error)
                    self.say(cell, True)
        except KeyboardInterrupt:
            self.interrupted = True
        self.sightings = self._sightings()

    def _fill(self, cell: Cell, folder: Path, workers: Workers) -> None:
        began = time.monotonic()
        positions = list(range(self.jobs))
        minimised: Counter[tuple[str, int]] = Counter()
        while True:
            left = None if self.seconds is None else min(SLICE_SECONDS, self.seconds - (time.monotonic() - began))
            wanted = [first for first in positions if self.programs is None or first * VARIANTS < self.programs]
            if (left is not None and left <= 0) or not wanted:
                break
            spent = cell.minimising / self.jobs
            orders = [
                Order(
                    folder,
                    self.seed,
                    first,
                    self.jobs,
                    SLICE_MODULES,
                    self.programs,
                    left,
                    cell.profiles,
                    minimised,
                    began,
                    cell.processor / self.jobs,
                    None if self.seconds is None else self.seconds * MINIMISE_SHARE - spent,
                    None if self.seconds is None else began + self.seconds,
                )
                for first in wanted
            ]
            futures = [workers.submit(run_slice, order) for order in orders]
            try:
                parts = [workers.result(future) for future in futures]
            except KeyboardInterrupt:
                # They hand in what they have. A second interruption ends the waiting.
                workers.stop()
                for future in futures:
                    cell.add(workers.result(future))
                cell.seconds = time.monotonic() - began
                raise
            positions = [part.next for part in parts]
            for part in parts:
                cell.add(part)
            minimised = Counter((found.first.kind, found.profile) for found in cell.found)
            cell.seconds = time.monotonic() - began
            self.say(cell, False)
        cell.found.sort(key=lambda found: found.number)
        cell.seconds = time.monotonic() - began

    def _sightings(self) -> list[Sighting]:
        """Run the smallest programs of each kind of finding on all releases; of those that show alike, keep the smallest."""
        smallest: dict[tuple[str, tuple[int, ...]], Found] = {}
        for cell in self.cells:
            for found in cell.found:
                known = smallest.get(found.shape())
                if known is None or found.size < known.size:
                    smallest[found.shape()] = found
        chosen = sorted(smallest.values(), key=lambda found: (found.size, found.number, found.release))
        shown: list[dict[str, str]] = [{} for _ in chosen]
        problems = {cell.release for cell in self.cells if cell.problem}
        for folder in self.folders:
            if folder.name in problems:
                continue
            with Release(folder) as release:
                for found, shows in zip(chosen, shown, strict=True):
                    shows[folder.name] = _shows(release, found.built)
        alike: dict[tuple[object, ...], Sighting] = {}
        for found, shows in zip(chosen, shown, strict=True):
            sighting = Sighting(found, shows)
            name = match.name if (match := sighting.known()) else ""
            alike.setdefault((found.verdict.kind, tuple(sighting.affected), name), sighting)
        if self.interrupted:
            return list(alike.values())
        folders = {folder.name: folder for folder in self.folders}
        return [replace(sighting, examination=self._examined(sighting, folders)) for sighting in alike.values()]

    def _examined(self, sighting: Sighting, folders: dict[str, Path]) -> Examination | None:
        """Examine a finding on the release that showed it; on others that do, if nothing is seen of it there."""
        found, first = sighting.found, None
        others = [name for name in sighting.affected if name != found.release]
        for name in [found.release, *others][:EXAMINE_RELEASES_MAX]:
            end = None if self.seconds is None else time.monotonic() + EXAMINE_SECONDS_MAX
            examination = examined_on(folders[name], found.built, found.verdict, end)
            if examination is not None and examination.seen:
                return examination if name == found.release else replace(examination, release=name)
            first = first or examination
        return first


def examined_on(folder: Path, built: Built, verdict: Verdict, end: float | None = None) -> Examination | None:
    """Examine a smallest program on a release; None if there is nothing to examine.

    Args:
        folder: of the release.
        built: the program.
        verdict: what it shows.
        end: when to stop, by the monotonic clock; None for never.

    Raises:
        RunnerError: the runner failed, or cannot be started.
    """
    if not controls.applies(folder.name, verdict):
        return None
    with Release(folder) as release:

        def run(candidate: Built, fresh: int) -> Verdict | None:
            if fresh == controls.ENGINE:
                release.close()
            elif fresh == controls.PROCESS:
                release.renew()
            return verdict_of(candidate, release.run(candidate.program.as_json(), EXAMINE_PROGRAM_SECONDS))

        collection = release.run(controls.COLLECTION)
        collects = not any(event[0] == "skipped" for event in collection.events)
        return controls.examine(
            built,
            verdict,
            folder.name,
            run,
            collects=collects,
            stop=lambda: end is not None and time.monotonic() > end,
        )


def _shows(release: Release, built: Built) -> str:
    """Return what a program shows on a release; empty if nothing is wrong several times."""
    for _ in range(SHOWINGS):
        verdict = verdict_of(built, release.run(built.program.as_json()))
        if verdict is not None:
            return verdict.kind
    return ""
