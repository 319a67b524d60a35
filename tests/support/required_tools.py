"""What ``KDBENCH_REQUIRE=slurm,browser`` lists: tools whose absence is a failure, not a skip."""

import os


def required(marker: str) -> bool:
    """Whether the tests with this marker must run here."""
    return marker in os.environ.get("KDBENCH_REQUIRE", "").replace(",", " ").split()
