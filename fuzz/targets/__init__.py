"""Fuzz targets for atheris: one file per subject, without logic, run as `python -m fuzz.targets.runtime`."""

# Before any target imports `impl`.
import fuzz.mutants.hook  # noqa: F401
