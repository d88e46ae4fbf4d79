"""How long the readers are fuzzed: the same short while in every `make test`, or as long as one likes."""

import os

from hypothesis import HealthCheck, settings


def fuzzing(examples: int) -> settings:
    """So many examples, the same ones every time; with BRANCHPOINT_FUZZ=N, N times as many, other ones each time."""
    times = os.environ.get("BRANCHPOINT_FUZZ")
    return settings(
        max_examples=examples * int(times or 1),
        deadline=None,
        derandomize=times is None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
