"""Importing this puts the mutant into place that the environment variable `DRC_MUTANT` names; without it nothing happens.

`drc` and the fuzz targets import it before anything of `impl`. So every command and every process that one starts sees the mutant:
`DRC_MUTANT=CVE-2021-39216 drc fuzz`. A line on stderr says so each time, and a mutant that is unknown or stale ends the process.
"""

from __future__ import annotations

import os
import sys
from typing import Final

VARIABLE: Final = "DRC_MUTANT"
QUIET: Final = "DRC_MUTANT_QUIET"
"""Set by `drc mutants` for the processes that it starts, whose output it reads itself."""


def _install(name: str) -> None:
    from fuzz.mutants.catalogue import CatalogueError, chosen
    from fuzz.mutants.importer import install

    try:
        mutant = chosen(name)
        install(mutant)
    except (CatalogueError, ImportError) as error:
        sys.stderr.write(f"drc: {VARIABLE}={name}: {error}\n")
        sys.exit(2)
    if QUIET not in os.environ:
        sys.stderr.write(f"drc: MUTANT in place: impl.{mutant.module} has the defect {mutant.name} ({VARIABLE})\n")


if os.environ.get(VARIABLE):
    _install(os.environ[VARIABLE])
