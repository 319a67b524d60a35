"""Which method to use, how sure that is, and at what cost: the sentences of page and Markdown."""

import math
from collections.abc import Sequence

from kdbench.grid.run import BASELINES
from kdbench.report import numbers
from kdbench.report.text.places_of_methods import (
    left_out,
    listed,
    methods_of,
    no_ranking,
    not_ranked,
    nothing_leads,
    others,
    over_pairs,
    rows_of,
    several,
    unplaced,
)
from kdbench.report.text.seeds_needed import seeds_sentence
from kdbench.stats.aggregate import Aggregate
from kdbench.stats.cell_summary import first_result
from kdbench.stats.decision import Decision
from kdbench.stats.headline import chooses_on_held_out, how_to_choose
from kdbench.stats.over_seeds import mean, standard_error
from kdbench.stats.paired_differences import Contrast
from kdbench.wording import counted, duration


def which(aggregate: Aggregate) -> list[str]:
    """Answer which method to use; in a grid that chooses swept values, how to choose one."""
    decision, grid = aggregate.decision, aggregate.evidence.grid
    if chooses_on_held_out(grid):
        return [f"{how_to_choose(grid)}."]
    if problem := no_ranking(decision):
        return [problem]
    advice = decision.recommendation
    if advice.leader is None:
        lines = [nothing_leads(decision), *unplaced(aggregate)]
    else:
        lines = [_leader(aggregate, advice.leader), *others(aggregate, advice.leader)]
        lines += [_named(aggregate, name, advice.leader) for name in advice.named[1:]]
        if advice.cheaper:
            lines.append(_cheaper(aggregate, advice.cheaper, advice.leader))
    return lines + not_ranked(aggregate) + left_out(decision)


def sure(aggregate: Aggregate) -> list[str]:
    """Answer how sure that is: how many rows differ, and how many seeds would settle more."""
    decision = aggregate.decision
    if chooses_on_held_out(aggregate.evidence.grid):
        return _held_out(aggregate)
    if not any(c.known for c in decision.over.contrasts.once()):
        return []
    baseline = decision.baseline
    compared = [
        decision.over.contrasts[row, baseline]
        for row in rows_of(decision)
        if baseline and row != baseline and (row, baseline) in decision.over.contrasts
    ]
    lines = [_told(decision, compared)] if baseline and any(c.known for c in compared) else []
    if baseline:
        lines += [
            f"{baseline} itself is noisy on {pair}: with few seeds, intervals of differences to it "
            "may cover less than 95 %."
            for pair in decision.over.pairs
            if baseline in decision.pairs[pair].noisy
        ]
    needed = seeds_sentence(decision)
    return lines + ([needed] if needed else [])


def cost(aggregate: Aggregate) -> list[str]:
    """Answer at what cost: training times, deployed parameters, and the time of all runs."""
    evidence, decision = aggregate.evidence, aggregate.decision
    ids = dict.fromkeys(run.id for cell in evidence.cells for run in cell.runs)
    records = map(evidence.records.get, ids)
    costs = [record.cost for record in records if record and record.cost]
    if not costs:
        return []
    lines = []
    times = {row: time for row, time in decision.times.items() if numbers.known(time)}
    methods = sorted((row for row in times if row not in BASELINES), key=times.__getitem__)
    if len(methods) > 1 and decision.baseline:
        low, high = methods[0], methods[-1]
        lines.append(
            f"Methods take from {numbers.times(times[low])} ({low}) to "
            f"{numbers.times(times[high])} ({high}) the training time of {decision.baseline}."
        )
    larger = [
        f"{row} ({ratio})" for row in methods_of(decision) if (ratio := _deployed(aggregate, row))
    ]
    if larger:
        lines.append(f"Deployed with more parameters than the student: {listed(larger)}.")
    seconds = math.fsum(one.seconds + one.teacher_seconds for one in costs)
    lines.append(f"{counted(len(costs), 'run')}: {duration(seconds)} in total.")
    return lines


def elsewhere(aggregate: Aggregate) -> list[str]:
    """Answer whether it would hold on another pair."""
    decision = aggregate.decision
    if chooses_on_held_out(aggregate.evidence.grid):
        return []
    begun = sum(bool(one.means) for one in decision.pairs.values())
    if decision.other is None:
        return [f"{begun} pairs say little of others."] if begun > 1 else []
    leader, baseline, other = decision.recommendation.leader, decision.baseline, decision.other
    lines = []
    if leader and baseline and (leader, baseline) in other.contrasts:
        contrast = other.contrasts[leader, baseline]
        if contrast.known:
            lines.append(
                f"Mean over pairs like these {begun}: {leader} is {numbers.signed(contrast.diff)} "
                f"over {baseline} {numbers.interval(contrast.low, contrast.high)}."
            )
    placed = other.standings or {}
    best = [row for row, standing in placed.items() if standing.leading]
    if best:
        lines.append(f"{len(best)} of {len(placed)} rows may be the best there.")
    return lines


def _leader(aggregate: Aggregate, leader: str) -> str:
    decision = aggregate.decision
    over, baseline = decision.over, decision.baseline
    acc = over.means[leader]
    highest = all(over.means[row] <= acc for row in methods_of(decision) if row in over.means)
    parts = [
        f"{leader}: the highest mean{'' if highest else ' of those that can be placed'}, "
        f"{numbers.number(acc)} %{over_pairs(decision)}"
    ]
    if baseline and baseline != leader and (leader, baseline) in over.contrasts:
        parts.append(_difference(over.contrasts[leader, baseline], len(over.pairs)))
    if baseline and baseline != leader and numbers.known(decision.times.get(leader)):
        parts.append(f"{numbers.times(decision.times[leader])} its training time")
    text = ", ".join(parts) + _deploys(aggregate, leader) + "."
    return f"{text} Nothing is shown to beat {baseline}." if baseline == leader else text


def _difference(contrast: Contrast, pairs: int) -> str:
    """Describe a difference, e.g. ``+1.34 over kd [−0.41, +3.08] (not settled)``."""
    text = f"{numbers.signed(contrast.diff)} over {contrast.other}"
    if contrast.pairs < pairs:
        text += f" on {contrast.pairs} of {pairs} pairs"
    if not contrast.known:
        same = "one seed in common" if contrast.n < 2 else "all seeds differ by the same"
        return f"{text} ({same}: no interval)"
    text += f" {numbers.interval(contrast.low, contrast.high)}"
    if contrast.low <= 0 <= contrast.high:
        return f"{text} (not settled)"
    return f"{text} (adjusted p {adjusted(contrast.p_adj)})"


def adjusted(p: float) -> str:
    """Format an adjusted p-value with its sign, e.g. ``= 0.89`` or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def _named(aggregate: Aggregate, row: str, leader: str) -> str:
    decision = aggregate.decision
    return (
        f"{row} takes {numbers.times(decision.times[row])}, is {_below(decision, row, leader)}"
        f"{_deploys(aggregate, row)}."
    )


def _cheaper(aggregate: Aggregate, row: str, leader: str) -> str:
    decision = aggregate.decision
    return (
        f"For less time: {row} takes {numbers.times(decision.times[row])}: "
        f"{_below(decision, row, leader)}, told better than {decision.baseline}"
        f"{_deploys(aggregate, row)}."
    )


def _below(decision: Decision, row: str, leader: str) -> str:
    contrast = decision.over.contrasts[leader, row]
    text = numbers.with_interval(contrast.diff, contrast.low, contrast.high, sign=False)
    return f"{text} below {leader}"


def _deploys(aggregate: Aggregate, row: str) -> str:
    ratio = _deployed(aggregate, row)
    return f"; it deploys {ratio} the student's parameters" if ratio else ""


def _deployed(aggregate: Aggregate, row: str) -> str:
    """Return deployed parameters over the student's on each pair; empty if never more."""
    frame = aggregate.frame
    params = {
        name: dict(zip(rows["pair"], rows["params_deployed"], strict=True))
        for name, rows in frame[frame["method"].isin([row, "student"])].groupby("method")
    }
    own, alone = params.get(row, {}), params.get("student", {})
    ratios = [
        float(n) / float(alone[pair])
        for pair, n in own.items()
        if numbers.known(n) and numbers.known(alone.get(pair)) and alone[pair] > 0
    ]
    if not any(ratio > 1 for ratio in ratios):
        return ""
    digits = 1 if max(ratios) >= 1.05 else 3
    texts = list(dict.fromkeys(f"{ratio:.{digits}f} ×" for ratio in ratios))
    if len(texts) > 2:
        texts = [f"{min(ratios):.{digits}f} × to {max(ratios):.{digits}f} ×"]
    return " and ".join(texts)


def _told(decision: Decision, compared: Sequence[Contrast]) -> str:
    told = [contrast for contrast in compared if contrast.told]
    up = sum(contrast.diff > 0 for contrast in told)
    down = len(told) - up
    others = decision.rows - 1
    if others == 1:
        how = "better than" if up else "worse than" if down else "not told apart from"
        return f"{compared[0].row} is {how} {decision.baseline}."
    over = " over pairs" if several(decision) else ""
    rows = f"{len(told)} of {counted(others, 'row')} {'is' if len(told) == 1 else 'are'}"
    if not told:
        return f"{rows} told apart from {decision.baseline}{over}."
    if len(told) == 1:
        how = f"{told[0].row} is {'better' if up else 'worse'}"
    else:
        how = f"{up} better, {down} worse" if up and down else "all better" if up else "all worse"
        if any(contrast.row == decision.student for contrast in told):
            how += ", the student among them"
    return f"{rows} told apart from {decision.baseline}{over} ({how})."


def _held_out(aggregate: Aggregate) -> list[str]:
    """Say how exact an accuracy on the held-out images is."""
    evidence, headline = aggregate.evidence, aggregate.headline
    result = first_result(evidence.cells, evidence.records)
    if result is None or not aggregate.decision.over.means:
        return []
    held = headline.count(evidence.grid.dataset, result)
    level = mean(aggregate.decision.over.means.values())
    points = numbers.number(standard_error(level, held), 1)
    return [
        f"{counted(held, 'image')} held out: one accuracy has a standard error of {points} points, "
        "which more seeds do not reduce."
    ]
