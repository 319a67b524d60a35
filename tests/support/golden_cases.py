"""Mapping of golden cases to our methods: reference names -> ours.

The builders of other methods are in ``golden_cases_*.py``; ``golden_builders.py`` merges them, and
``golden_files.py`` explains cases and what a builder returns.
"""

import re
from typing import Any

from golden_files import Builder as Builder
from golden_files import Built as Built
from golden_files import Case as Case
from golden_files import read_case as read_case
from golden_files import same_names as same_names
from torch import Tensor

from kdbench.method import Method
from kdbench.registry import lookup
from kdbench.training.objective import total


def build(case: Case, **hyper: Any) -> Method:
    """Build the method that the case's folder names."""
    return lookup.load(case.folder)(case.setup(), **hyper)


def at(case: Case) -> Built:
    return Built(build(case, p=case.hyper["p"]))


def fitnets(case: Case) -> Built:
    hyper = case.hyper
    method = build(case, hint_layer=hyper["hint_layer"], relu=hyper["use_relu"])
    return Built(method, same_names(case))


def kd(case: Case) -> Built:
    return Built(build(case, temperature=case.hyper["T"]))


def objective(case: Case) -> Built:
    """Build the whole objective around the case's term."""
    hyper = case.hyper

    def run(case: Case, method: Method) -> Tensor:
        s, t = case.student, case.teacher
        terms = [(hyper["beta"], method.loss(s, t, case.batch))]
        weights = (hyper["gamma"], hyper["alpha"], hyper["T"])
        return total(s.logits, case.batch.labels, t.logits, terms, *weights)

    return Built(lookup.load(hyper["term"])(case.setup()), run=run)


def semckd(case: Case) -> Built:
    """Map ``query_weight<i>``, ``key_weight<j>`` (or ``query_<i>``) and ``regressor<i><j>``."""
    hyper = case.hyper
    soft = hyper.get("soft", 1.0)
    method = build(case, soft=soft, factor=hyper["factor"])
    names, teacher_stages = {}, len(case.teacher.stages)
    for name in case.params:
        match = re.fullmatch(r"([a-z]+)(?:_weight|_|)(\d)(\d?)\.(.+)", name)
        assert match, f"semckd: no such reference name: {name}"
        kind, i, j, rest = match.groups()
        if kind == "regressor":
            rest = rest.removeprefix("regressor.")
            names[name] = f"regressors.{int(i) * teacher_stages + int(j)}.{rest}"
        else:
            names[name] = f"{ {'query': 'queries', 'key': 'keys'}[kind] }.{i}.{rest}"
    return Built(method, names)


def sp(case: Case) -> Built:
    return Built(build(case))


def vid(case: Case) -> Built:
    hyper = case.hyper
    method = build(case, variance=hyper["init_pred_var"], eps=hyper["eps"])
    return Built(method, same_names(case, vid="parts"))


BUILDERS: dict[str, Builder] = {
    "at": at,
    "fitnets": fitnets,
    "kd": kd,
    "objective": objective,
    "semckd": semckd,
    "sp": sp,
    "vid": vid,
}
