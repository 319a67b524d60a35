"""Training step with and without ``compile: true``, and the cost of compiling.

resnet32x4 -> resnet8x4, 3x32x32, 100 classes, batch 64, one thread, images of noise. The two steps
take turns. ``ratio`` is the median of plain over compiled, above 1 if compiling pays.
``compile_s`` is the extra time of the first compiled step, with torch's caches off. ``pays_after``
is the number of steps that win it back, null if compiling does not pay.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.subjects import CLASSES, learner, machine, noise, teacher
from kdbench.data.batches import train_batches
from kdbench.training.compiled import discard_compiled
from kdbench.training.memory import keep_memory


def main() -> None:
    """Measure, and print a JSON line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=["kd", "at", "semckd"])
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    data = noise(2_000, CLASSES)
    loaded = teacher(data)
    batch = next(train_batches(data, batch_size=64, seed=0, epoch=1, crop_pad=4, flip=True))
    t = loaded(batch[0])
    for method in options.methods:
        discard_compiled()
        ways = [
            learner(method, data, loaded, options.precision, compiled=way).train_step
            for way in (False, True)
        ]
        times: list[list[float]] = [[], []]
        for _ in range(options.rounds + 1):  # the first compiles
            for way, step in enumerate(ways):
                times[way].append(seconds(partial(step, *batch, t)))
        first = times[1][0]
        plain, compiled = (statistics.median(column[1:]) for column in times)
        gain = statistics.median(a - b for a, b in zip(times[0][1:], times[1][1:], strict=True))
        ratios = sorted(a / b for a, b in zip(times[0][1:], times[1][1:], strict=True))
        line = {
            "what": f"{method}: step, plain / compiled, {options.precision}",
            "ratio": round(statistics.median(ratios), 3),
            "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
            "plain_ms": round(1e3 * plain, 1),
            "compiled_ms": round(1e3 * compiled, 1),
            "compile_s": round(first - compiled, 1),
            "pays_after": round((first - compiled) / gain) if gain > 0 else None,
            "n": options.rounds,
        }
        print(json.dumps(line | machine()), flush=True)


def seconds(action: Callable[[], object]) -> float:
    """Return the wall-clock time of an action; compilers run in separate processes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    with torch._inductor.config.patch(force_disable_caches=True):
        main()
