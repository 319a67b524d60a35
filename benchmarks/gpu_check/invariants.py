"""The same bits alone, in a cohort, as graphs, on streams, after a stop and in another process."""

import math
import statistics
from collections.abc import Mapping

import torch

from benchmarks.gpu_check import subjects
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.timing import Marks
from benchmarks.gpu_check.training import OtherProcess, School, school
from benchmarks.gpu_check.ways import Column, Way


def small(check: Check) -> None:
    """Train every method in all ways with tiny networks, and compare the bits."""
    sizes, pupils = check.sizes, school(check)
    streams = sizes.streams[-2] if len(sizes.streams) > 2 else sizes.streams[-1]
    graph, many, eager = Way("fp32", 1), Way("fp32", streams), Way("fp32")
    other = OtherProcess(check, sizes.methods, many)
    try:
        found = {"eager cohort": trained(pupils, eager, "eager cohort")}
        found["graph cohort, streams"] = trained(pupils, many, "graph cohort, streams")
        found["resumed"] = trained(pupils, many, "resumed", stops=(sizes.stop,))
        found["graph cohort, serial"] = trained(pupils, graph, "graph cohort, serial")
        found["eager alone"] = trained(pupils, eager, "eager alone", alone=True)
        found["graph alone"] = trained(pupils, graph, "graph alone", alone=True)
        # More than its budget, if need be: all of the card's work of this section is done.
        found["another process"] = other.digests(max(8.0, check.left()))
        if not found["another process"]:
            check.has_time("another process", math.inf)
    finally:
        other.end()
    differing = compare(check, "fp32", found)
    for precision in ("tf32", "bf16"):
        if precision == "tf32" and not check.cuda:
            check.skip("trainings in tf32", "only GPUs have it")
            continue
        ways = {"eager alone": Way(precision), "graph cohort, streams": Way(precision, streams)}
        some = {
            name: trained(pupils, way, f"{name}, {precision}", alone="alone" in name)
            for name, way in ways.items()
        }
        differing += compare(check, precision, some)
    check.outcome.headline = f"{len(sizes.methods)} runs, {len(found)} ways: " + (
        f"other bits: {', '.join(sorted(set(differing)))}" if differing else "the same bits"
    )


def trained(
    pupils: School, way: Way, name: str, *, alone: bool = False, stops: tuple[int, ...] = ()
) -> dict[str, str]:
    """Train all methods in a way, as long as there is time for it."""
    check = pupils.check

    def enough(group: str) -> bool:
        return check.has_time(f"{name}: {group}")

    return pupils.trained(check.sizes.methods, way, alone=alone, stops=stops, enough=enough)


def compare(check: Check, precision: str, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Write a line for each method, and return those whose digests differ.

    Args:
        check: the check.
        precision: of the trainings.
        found: way -> method -> digest.
    """
    differing = []
    for method in dict.fromkeys(name for digests in found.values() for name in digests):
        ways = {way: digests[method] for way, digests in found.items() if method in digests}
        values = set(ways.values())
        refused = all(value.startswith("skipped") for value in values)
        failed = [v for v in values if ":" in v and not v.startswith("skipped")]
        same = len(values) == 1 and not failed
        if not same:
            differing.append(method)
        check.expect(
            same,
            f"{method} in {precision}: the same bits in {len(ways)} ways",
            method=method,
            precision=precision,
            ways=ways,
            refused=refused,
        )
    return differing


def real(check: Check) -> None:
    """Compare eager steps alone with graphs on streams on the real pair, also in little memory."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.images)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    steps, way = sizes.real_steps, Way("fp32" if not check.cuda else "tf32", sizes.streams[-1])

    def column(methods: tuple[str, ...], how: Way) -> Column:
        return Column(check, methods, how, sizes.pair, data, loaded, sizes.batch)

    found: dict[str, dict[str, str]] = {}
    cohort = column(sizes.column, way)
    cohort.run(steps)
    found["graph cohort, streams"] = cohort.digests()
    check.line(what="not graphs", methods=cohort.not_graphs(), **way.values)
    del cohort
    check.free()
    found["eager alone"] = {}
    for name in sizes.column:
        if not check.has_time(f"{name} alone"):
            break
        single = column((name,), Way(way.precision))
        single.run(steps)
        found["eager alone"] |= single.digests()
        del single
    check.free()
    if check.has_time("in little memory"):
        filler = fill(check)
        tight = column(sizes.column, way)
        tight.run(steps)
        found["in little memory"] = tight.digests()
        del tight, filler
    differing = compare(check, way.precision, found)
    check.outcome.headline = f"{len(sizes.column)} methods, {steps} steps, {way}: " + (
        f"other bits: {', '.join(differing)}" if differing else "the same bits"
    )


def fill(check: Check) -> torch.Tensor | None:
    """Take nine tenths of the card's memory, but leave what a cohort surely needs."""
    if not check.cuda:
        check.skip("memory nearly full", "a CPU's memory is not the card's")
        return None
    free, total = torch.cuda.mem_get_info(check.device)
    needed = 1.2 * torch.cuda.max_memory_reserved(check.device)
    size = int(min(free - 0.1 * total, free - needed))
    check.line(what="memory nearly full", taken_gib=round(max(0, size) / 2**30, 1))
    return torch.empty(max(1, size), dtype=torch.uint8, device=check.device)


def without_determinism(check: Check) -> None:
    """Run the same steps twice with algorithms that may vary; show what determinism costs."""
    sizes = check.sizes
    data = subjects.noise_images(check, sizes.images)
    loaded = subjects.teacher(data, sizes.pair[0], check.device)
    way = Way("tf32" if check.cuda else "fp32", sizes.streams[-1])
    digests: list[dict[str, str]] = []
    ms: dict[str, float] = {}
    for name in ("deterministic", "free", "free again"):
        if not check.has_time(name):
            break
        column = Column(check, sizes.column, way, sizes.pair, data, loaded, sizes.batch)
        if check.cuda and name != "deterministic":
            torch.backends.cudnn.deterministic = False
            torch.use_deterministic_algorithms(False)
        column.run(sizes.real_steps // 2)
        marks = Marks(check.device)
        for _ in range(sizes.real_steps - sizes.real_steps // 2):
            marks.mark()
            column.step()
            column.join()
        marks.mark()
        ms[name] = statistics.median(marks.between())
        check.line(what=name, ms=round(ms[name], 3), **way.values)
        if name != "deterministic":
            digests.append(column.digests())
        del column
        check.free()
    if len(digests) < 2:
        check.outcome.headline = ", ".join(f"{name} {value:.2f} ms" for name, value in ms.items())
        return
    first, second = digests
    varying = [name for name in first if first[name] != second[name]]
    price = ms["deterministic"] / ms["free"] - 1
    check.line(what="varying without determinism", methods=varying, price=round(price, 4))
    check.outcome.headline = (
        f"determinism costs {price:+.1%}; without it {len(varying)} of {len(first)} methods vary"
    )
