"""Bytes are the choices of a lockstep run, guided by the coverage of the implementation."""

from __future__ import annotations

import sys

import atheris

# Everything of ours is imported here: what was imported before is not instrumented.
with atheris.instrument_imports(include=["impl"]):
    from fuzz.target_support import RuntimeTarget, arguments

if __name__ == "__main__":
    atheris.Setup(arguments(sys.argv, __spec__.name), RuntimeTarget(sys.argv))
    atheris.Fuzz()
