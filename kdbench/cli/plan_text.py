"""The output of ``kdbench plan`` for people: a line per cell, and the totals."""

from collections.abc import Iterable

from kdbench.cli.plan import Plan, PlanLine
from kdbench.cli.status import count
from kdbench.cost.cohort_memory import Footprint
from kdbench.wording import duration

ROUGH = ("~ estimated from another pair; --exact counts every method on every pair",)


def text(plan: Plan) -> str:
    """Return one line per cell with the cost of a run, and the totals."""
    n, device = plan.at_once, plan.device
    at_once = f", {n} at a time: {duration(3600 * plan.hours / n)}" if n else ""
    together = (
        "a cohort shares its teacher and the GPU"
        if device.is_gpu
        else "the runs of a cohort share their teacher"
    )
    return "\n".join(
        [
            *_table(plan),
            "",
            f"{plan.grid.name}: {len(plan.states):,} runs ({count(plan.states.values())}); "
            f"{plan.to_train:,} to train in {plan.cohorts:,} cohorts",
            f"{duration(3600 * plan.hours)} of training{at_once}",
            *plan.sources,
            *([_largest(plan, plan.largest)] if plan.largest else []),
            f"Runs are counted separately, although {together}.",
            *ROUGH[: plan.rough],
            *plan.warnings,
        ]
    )


def _largest(plan: Plan, cohort: Footprint) -> str:
    """Describe the cohort that needs most memory."""
    device = plan.device
    shared, own = cohort.process + cohort.data + cohort.teacher, cohort.held + cohort.working
    where, library = ("a GPU", "CUDA") if device.is_gpu else ("a CPU", "torch")
    line = (
        f"largest cohort: {cohort.total / 2**30:.1f} GB on {where} "
        f"({shared / 2**30:.1f} {library}, data, teacher; {own / 2**30:.1f} learners)"
    )
    if plan.too_large(cohort.total):
        line += f"\n{device.name} has {device.memory / 2**30:.1f} GB: larger cohorts are split"
    return line


def _too_large(line: PlanLine, plan: Plan) -> str:
    """Say that a run alone may not fit on this machine's GPU; "" if it does."""
    needed = plan.bytes_alone(line)
    if not plan.too_large(needed):
        return ""
    return (
        f"needs {needed / 2**30:.1f} GB of the GPU's {plan.device.memory / 2**30:.1f} GB even "
        "alone: it may run out of memory"
    )


def _table(plan: Plan) -> Iterable[str]:
    """Format lines under their pairs' names and options, in 80 columns unless names are long."""
    options = {str(pair): pair.options_text for pair in plan.grid.pairs}
    states = [count(line.states) if line.runs else "imported" for line in plan.lines]
    method_width = min(28, max((len(line.method) for line in plan.lines), default=0))
    state_width = max(map(len, states), default=0)
    yield (
        f"  {'method':<{method_width}}  {'runs':>4}  {'state':<{state_width}}  {'TFLOP/run':>9}  "
        f"{'time/run':>8}  {'memory':>8}"
    )
    last = None
    for line, state in zip(plan.lines, states, strict=True):
        if line.pair != last:
            last = line.pair
            yield last
            if options.get(last):
                yield f"  ({options[last]})"
        start = f"  {line.method:<{method_width}}  {line.runs:>4}  {state:<{state_width}}"
        if line.cost.problem:
            yield start.rstrip()
            yield f"    {line.cost.problem}"
        elif not line.runs:
            yield start.rstrip()
        else:
            yield (
                f"{start}  {_flops(line.cost.flops):>9}  {duration(3600 * line.hours):>8}  "
                f"{line.cost.memory / 2**20:>5,.0f} MB{' ~' if line.cost.rough else ''}"
            )
            if too_large := _too_large(line, plan):
                yield f"    {too_large}"


def _flops(flops: float) -> str:
    """Format TFLOP with three significant digits."""
    value = flops / 1e12
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
