"""One engine against one mutant in a process of its own: `python -m fuzz.mutants.cell ORDERS`, which leaves its result in a file.

The result is written as soon as something is found, and again once the story is minimised: whoever kills this process, it is not
lost.
"""

from __future__ import annotations

# Before anything imports `impl`.
import fuzz.mutants.hook  # noqa: F401  # isort: skip

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fuzz.mutants.names import MEMORY_BYTES_MAX

_IMPORT_FAILED: Final = "ImportFailed"


@dataclass(frozen=True, slots=True)
class Orders:
    """What a cell is to do.

    Args:
        engine: its name.
        seconds: time to look for a finding.
        seed: of the engine.
        result: file for the result.
        pool: file of recorded programs, for the engines that replay them.
    """

    engine: str
    seconds: float
    seed: int
    result: str
    pool: str = ""


@dataclass(slots=True)
class Outcome:
    """What an engine did to a mutant.

    Args:
        status: ran, unavailable or failed.
        killed: the engine noticed.
        verdict: the kind of finding, a class name.
        text: what both sides said, or why the engine is not available.
        seconds: until the finding, or until the end.
        operations: executed until then.
        story: operations of the minimised story; 0 if there is none.
        steps: those of them that no destructor did, where the engine knows; else 0.
        whole: the story is as long as it was found.
        checked: found on the checked memory.
        trace: the story as a trace; empty if there is none.
        where: the scope, if there are several.
    """

    status: str = "ran"
    killed: bool = False
    verdict: str = ""
    text: str = ""
    seconds: float = 0.0
    operations: int = 0
    story: int = 0
    steps: int = 0
    whole: bool = False
    checked: bool = False
    trace: str = ""
    where: str = ""


def main(argv: list[str]) -> int:
    """Do what the orders say; return 0 if there is a result."""
    orders = Orders(**json.loads(argv[1]))
    if orders.engine != "prove":
        # Inherited by what the engine starts. The workers of the proofs have a limit of their own, and may not raise this one.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    path = Path(orders.result)

    def keep(outcome: Outcome) -> None:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        draft.replace(path)

    start = time.monotonic()
    try:
        from fuzz.mutants.engines import RUN
    except Exception as error:  # noqa: BLE001  # with a mutant in place even this may fail, and that is a kill
        keep(Outcome(killed=True, verdict=_IMPORT_FAILED, text=f"{type(error).__name__}: {error}", seconds=time.monotonic() - start))
        return 0
    try:
        RUN[orders.engine](orders, keep)
    except MemoryError:
        keep(Outcome(killed=True, verdict="MemoryError", text="out of memory", seconds=time.monotonic() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
