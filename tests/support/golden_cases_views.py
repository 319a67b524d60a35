"""Mapping of the golden cases with two views; ``golden_files.py`` explains the terms."""

from golden_cases import build
from golden_files import Builder, Built, Case


def mlkd(case: Case) -> Built:
    """Leave out the strong view's cross-entropy, which the file's loss does not have."""
    hyper = case.hyper
    method = build(
        case,
        tau=hyper["T"],
        weight=hyper["kd_weight"],
        strong_ce=0.0,
        variant=case.variant,
    )
    return Built(method)


BUILDERS: dict[str, Builder] = {"mlkd": mlkd}
