"""``kdbench plan --json``: the estimated cost of a grid as values.

MB are 2^20 bytes, as in the output for people and in records.
"""

from typing import Any

from kdbench.cli.json_output import grid_keys
from kdbench.cli.plan import Plan, PlanLine
from kdbench.cli.status_json import counts
from kdbench.cost.cohort_memory import Footprint

MB = 2**20


def content(plan: Plan) -> dict[str, Any]:
    """Return a row per cell, the totals, and the cohort that needs most memory.

    What is not known is None: the cost of a row with a ``problem``, and the hours of all cohorts
    together where this machine cannot tell how many train at once.
    """
    n = plan.at_once
    return grid_keys(plan.grid) | {
        "rows": [_row(line, plan) for line in plan.lines],
        "pairs": [{"pair": str(pair), "options": pair.options or None} for pair in plan.grid.pairs],
        "totals": {
            "runs": len(plan.states),
            "states": counts(plan.states.values()),
            "runs_to_train": plan.to_train,
            "cohorts_to_train": plan.cohorts,
            "training_hours": plan.hours,
            "cohorts_at_once": n,
            "elapsed_hours": plan.hours / n if n else None,
        },
        "largest_cohort": _cohort(plan.largest, plan) if plan.largest else None,
        "device": {
            "kind": "gpu" if plan.device.is_gpu else "cpu",
            "name": plan.device.name or None,
            "memory_mb": plan.device.memory / MB if plan.device.memory else None,
        },
        "hours_from": plan.sources,
        "warnings": plan.warnings,
    }


def _row(line: PlanLine, plan: Plan) -> dict[str, Any]:
    known = line.runs > 0 and not line.cost.problem
    operations = line.cost.operations
    return {
        "pair": line.pair,
        "method": line.method,
        "runs": line.runs,
        "imported": not line.runs,
        "states": counts(line.states),
        "problem": line.cost.problem or None,
        "rough": line.cost.rough,
        "tflop_per_run": line.cost.flops / 1e12 if known else None,
        "tflop_of_student": operations.student / 1e12 if known else None,
        "tflop_of_teacher": operations.teacher / 1e12 if known else None,
        "tflop_of_methods": operations.methods / 1e12 if known else None,
        "tflop_of_evaluation": operations.evaluation / 1e12 if known else None,
        "hours_per_run": line.hours if known else None,
        "memory_mb": line.cost.memory / MB if known else None,
        "too_large_for_gpu": known and plan.too_large(plan.bytes_alone(line)),
    }


def _cohort(cohort: Footprint, plan: Plan) -> dict[str, Any]:
    return {
        "memory_mb": cohort.total / MB,
        "process_mb": cohort.process / MB,
        "data_mb": cohort.data / MB,
        "teacher_mb": cohort.teacher / MB,
        "learners_mb": (cohort.held + cohort.working) / MB,
        "too_large_for_gpu": plan.too_large(cohort.total),
    }
