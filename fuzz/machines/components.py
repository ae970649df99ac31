"""The machines of single components as an engine: batches of examples until the time is up or one disagrees with its reference."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.stateful import run_state_machine_as_test

from fuzz.machines.activations_table import ActivationsTableMachine
from fuzz.machines.arena import ArenaMachine
from fuzz.machines.hash_set import HashSetMachine
from fuzz.machines.registry import RegistryMachine
from fuzz.watchdog import Hang, time_limit

if TYPE_CHECKING:
    from fuzz.machines.findings import Component

BATCH: Final = 25
"""Examples of one seed; a few tenths of a second."""
STEPS_MAX: Final = 50
BATCH_SECONDS_MAX: Final = 20.0
"""What takes longer is taken for something that never ends; on an idle machine a batch takes a fiftieth of that."""
_SEED_FACTOR: Final = 1 << 32

COMPONENTS: Final[dict[str, type[Component]]] = {
    "arena": ArenaMachine,
    "hash_set": HashSetMachine,
    "activations_table": ActivationsTableMachine,
    "stack_maps": RegistryMachine,
}
"""By the module of `impl` that each is about."""


def run_component(module: str, *, seconds: float, seed: int) -> tuple[str, str]:
    """Hold a component against its reference; return the kind of what was found and what it says, or two empty words.

    What a batch does follows from the seed and its number. A story is not shrunk: it is no trace, and nobody could replay it.

    Args:
        module: of `impl`; one of `COMPONENTS`.
        seconds: time to look; at least one batch is run.
        seed: any int.
    """
    settings = hypothesis.settings(
        max_examples=BATCH,
        stateful_step_count=STEPS_MAX,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
    )
    end = time.monotonic() + seconds
    batch = 0
    while batch == 0 or time.monotonic() < end:
        # A class of its own: Hypothesis keeps the seed with the class.
        machine = type(COMPONENTS[module].__name__, (COMPONENTS[module],), {})
        try:
            with time_limit(BATCH_SECONDS_MAX):
                run_state_machine_as_test(hypothesis.seed(seed * _SEED_FACTOR + batch)(machine), settings=settings)
        except Hang as hang:
            return "Hang", str(hang)
        except Exception as error:  # noqa: BLE001  # a finding, or whatever the implementation raises; the code as it is raises nothing
            return type(error).__name__, str(error)
        batch += 1
    return "", ""
