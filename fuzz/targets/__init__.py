"""Fuzz targets for atheris: one file per subject, without logic, run as `python -m fuzz.targets.runtime`."""
