"""Bytes are modules of code that the registry must accept or refuse as a linear scan does."""

from __future__ import annotations

import sys

import atheris

# Everything of ours is imported here: what was imported before is not instrumented.
with atheris.instrument_imports(include=["impl"]):
    from fuzz.target_support import RegistryTarget, arguments

if __name__ == "__main__":
    atheris.Setup(arguments(sys.argv, __spec__.name), RegistryTarget(sys.argv))
    atheris.Fuzz()
