"""Settings that make every test a function of the source alone."""

import os

from hypothesis import HealthCheck, settings

# The examples follow from the test's own text, nothing is remembered between runs, and no verdict depends on how
# fast the machine is.
settings.register_profile(
    "deterministic",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("deterministic")

# Defects are planted in the plain reading. Tests of the compiled one say --fast.
os.environ["DRC_FAST"] = "0"
