"""Tools listed in ``KDBENCH_REQUIRE=slurm,browser,gpu``: their absence is a failure, not a skip."""

import os


def required(marker: str) -> bool:
    """Check whether the tests with this marker must run."""
    return marker in os.environ.get("KDBENCH_REQUIRE", "").replace(",", " ").split()
