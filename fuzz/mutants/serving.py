"""Whoever has jobs for a fork server starts one here; see `fuzz.mutants.server`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

from fuzz.mutants.catalogue import ROOT
from fuzz.mutants.cell import Outcome
from fuzz.mutants.hook import VARIABLE
from fuzz.mutants.processes import end
from fuzz.workers import HarnessFailure

if TYPE_CHECKING:
    from collections.abc import Mapping


class Server:
    """A fork server, to be closed. One thread may use it."""

    def __init__(self) -> None:
        path = os.pathsep.join(word for word in (str(ROOT), os.environ.get("PYTHONPATH")) if word)
        environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
        environment.pop(VARIABLE, None)
        self._asked = 0
        self.process = subprocess.Popen(  # our own interpreter on our own module
            [sys.executable, "-m", "fuzz.mutants.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    def ask(self, job: Mapping[str, Any]) -> Outcome:
        """Have a job done; what notices is the verdict.

        Args:
            job: see `fuzz.mutants.server`, without the number.

        Raises:
            HarnessFailure: the server has died.
        """
        asked, answers = self.process.stdin, self.process.stdout
        if asked is None or answers is None:
            raise HarnessFailure("the fork server has no pipes")
        self._asked += 1
        try:
            asked.write((json.dumps({"number": self._asked, **job}) + "\n").encode())
            asked.flush()
            line = answers.readline()
        except OSError as error:
            raise HarnessFailure(f"the fork server has gone: {error}") from error
        if not line:
            raise HarnessFailure("the fork server has died")
        number, stage, words, seconds = json.loads(line)
        if number != self._asked:
            raise HarnessFailure("the fork server answers another question")
        return Outcome(killed=bool(stage), verdict=stage, text=words, seconds=seconds)

    def close(self) -> None:
        """End the server and what it is doing."""
        end(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
