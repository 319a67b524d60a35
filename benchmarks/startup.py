"""Startup time of kdbench in fresh processes on a warm disk: medians of n.

It measures ``kdbench --help`` from start to end, and ``kdbench run`` on a grid of one cohort of
three runs on digits, from the start of the process to the end of the cohort's first optimiser step.
The cohort trains in a worker process, as is usual (``local``), or in the process itself
(``debug``). The grid's last method is a plugin that reports the step. Seconds are wall-clock time;
``processor`` is the processor time of the training process until then. Shares are fractions of
that processor time: importing torch, and importing ``torch._dynamo`` as well, which torch imports
when it creates its first optimiser.

python -m benchmarks.startup [N]
"""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HELP = 0.3
"""Target in seconds for ``kdbench --help``."""
FIRST_STEP = 6.0
"""Target in seconds for the end of the first step."""
TIMEOUT = 120.0
"""Longest wait in seconds for the first step."""
Times = tuple[float, float]
"""Wall-clock seconds and processor seconds."""
OUTPUT = "KDBENCH_BENCHMARK_OUTPUT"
"""Environment variable with the file that the plugin writes."""

GRID = """
name: first-step
dataset: digits
protocol: {{preset: demo, epochs: 1}}
seeds: [0]
pairs: [r8w3 -> v5w4]
methods: [{plugin}]
report: {{baseline: student}}
"""

PLUGIN = f'''
"""Writes the time of the end of the first optimiser step."""

import os
import time
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

from kdbench.method import Method, Objective


class FirstStep(Method):
    """Adds nothing to the loss."""

    family = "logit"
    needs_teacher = False
    objective = Objective(gamma=1.0, alpha=0.0)

    registered = False

    def loss(self, s, t, batch):
        # This learner is the last of its cohort, so its optimiser is the next to step.
        if s.logits.requires_grad and not self.registered:
            self.registered, self.hook = True, register_optimizer_step_post_hook(self.ended)
        return 0.0 * s.logits.sum()

    def ended(self, optimizer, args, kwargs):
        self.hook.remove()
        path = Path(os.environ["{OUTPUT}"])
        fresh = path.with_suffix(".new")
        fresh.write_text(f"{{time.monotonic()}} {{time.process_time()}}")
        fresh.replace(path)
'''


def main() -> None:
    """Print one JSON object per line."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    show("kdbench --help", [timed("-m", "kdbench", "--help") for _ in range(2 * n)], HELP)
    torch, needed = [], []
    steps: dict[str, list[Times]] = {"debug": [], "local": []}
    for _ in range(n):  # in turns, so that other load affects all alike
        torch.append(timed("-c", "import torch"))
        needed.append(timed("-c", "import torch, torch._dynamo"))
        for executor, times in steps.items():
            times.append(first_step(executor))
    show("import torch", torch)
    show("import torch, torch._dynamo", needed)
    for executor, times in steps.items():
        used = processor(times)
        show(
            f"kdbench run, to the end of a cohort's first training step, executor {executor}",
            times,
            FIRST_STEP,
            share_of_torch=round(processor(torch) / used, 3),
            share_of_torch_and_dynamo=round(processor(needed) / used, 3),
        )


def processor(times: Sequence[Times]) -> float:
    """Return the median processor time."""
    return statistics.median(used for _, used in times)


def show(name: str, times: Sequence[Times], target: float | None = None, **more: float) -> None:
    """Print the result of one measurement."""
    middle = statistics.median(seconds for seconds, _ in times)
    ratio = {"ratio": round(middle / target, 3)} if target else {}
    out = {
        "what": name,
        "seconds": round(middle, 3),
        **ratio,
        "processor": round(processor(times), 3),
        **more,
        "n": len(times),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one used",
    }
    print(json.dumps(out), flush=True)


def timed(*arguments: str) -> Times:
    """Measure a Python process from start to end."""
    began, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, os.times()
    user, system = (getattr(after, f"children_{k}") - getattr(before, f"children_{k}")
                    for k in ("user", "system"))  # fmt: skip
    return seconds, user + system


def first_step(executor: str) -> Times:
    """Measure the time to the end of the first step, and the training process's processor time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin, grid, times = folder / "first_step.py", folder / "grid.yaml", folder / "times"
        plugin.write_text(PLUGIN)
        grid.write_text(GRID.format(plugin=plugin))
        command = [
            *(sys.executable, "-m", "kdbench", "run", "--grid", str(grid)),
            *("--executor", executor, "--workers", "1"),
            *("--runs", str(folder / "runs"), "--results", str(folder / "results")),
        ]
        began = time.monotonic()  # counted from boot, so comparable between processes
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                command,
                env=os.environ | {OUTPUT: str(times)},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while not times.exists():
                if process.poll() is not None or time.monotonic() - began > TIMEOUT:
                    sys.exit(f"no first step:\n{(folder / 'output').read_text()}")
                time.sleep(0.01)
            ended, used = map(float, times.read_text().split())
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return ended - began, used


if __name__ == "__main__":
    main()
