"""Check a GPU: ``python -m benchmarks.gpu_check --out DIR``.

Exit code 0: nothing failed; 1: a check or a section failed; 2: bad arguments, or no GPU.
"""

import argparse
import faulthandler
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

BEGAN = time.monotonic()
ROOT = Path(__file__).parents[2]
MODULE = "benchmarks.gpu_check"
SECONDS, MOST = 330.0, 480.0


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with code 2."""
        self.exit(2, f"gpu_check: {message}\n")


def duration(text: str) -> float:
    """Return a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 to {MOST:g} seconds")
    return value


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog=f"python -m {MODULE}", description="Check kdbench on a GPU.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    parser.add_argument(
        "--seconds", type=duration, default=SECONDS, help=f"time for all sections, {SECONDS:g}"
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --small")
    parser.add_argument("--small", action="store_true", help="tiny networks, to test the check")
    parser.add_argument("--sections", default="", help="names, with commas; default: all")
    parser.add_argument(
        "--packed", type=Path, default=Path(".gpu"), help="folder of packed CIFAR-100, .gpu"
    )
    # For this program itself and for tests.
    parser.add_argument("--append", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--unlimited", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--plant", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.unlimited:
        chosen.seconds = 1e6
    from benchmarks.gpu_check.sections import NAMES

    wanted = [name.strip() for name in chosen.sections.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        parser.error(f"--sections: {unknown[0]}: unknown; accepted: {', '.join(NAMES)}")
    chosen.names = [name for name in NAMES if name in wanted] if wanted else NAMES
    problem = device_problem(chosen.device, chosen.small)
    if problem:
        parser.error(problem)
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {chosen.out}: {error.strerror}")
    return chosen


def device_problem(name: str, small: bool) -> str:
    """Return why a device cannot be checked, or ""."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        return f"--device {name}: unknown; accepted: cuda, cuda:N, cpu"
    if device.type == "cpu":
        return "" if small else "--device cpu: needs --small; only a GPU is checked in full size"
    if device.type != "cuda":
        return f"--device {name}: unknown; accepted: cuda, cuda:N, cpu"
    if not torch.cuda.is_available():
        return f"--device {name}: torch finds no GPU; --device cpu --small runs the same code here"
    gpus = torch.cuda.device_count()
    if (device.index or 0) >= gpus:
        accepted = ", ".join(["cuda", *(f"cuda:{i}" for i in range(gpus))])
        return f"--device {name}: torch finds no such GPU; accepted here: {accepted}"
    return ""


def main(arguments: list[str]) -> int:
    """Run the sections, print and write the table, and return the exit code."""
    chosen = options(arguments)
    faulthandler.enable()
    # If a call never returns, say where, and end; what was measured is in the file.
    faulthandler.dump_traceback_later(chosen.seconds + 60, exit=True)
    sys.path[:0] = [str(ROOT / "tests" / "support")]  # golden cases
    import torch

    from benchmarks.gpu_check import sizes
    from benchmarks.gpu_check.check import Check
    from benchmarks.gpu_check.sections import lost, run_all
    from benchmarks.gpu_check.table import write_table

    device = torch.device("cuda:0" if chosen.device == "cuda" else chosen.device)
    if device.type == "cpu":
        torch.set_num_threads(1)  # more only wait for each other in tiny networks
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    path = chosen.out / "check.jsonl"
    with path.open("a" if chosen.append else "w") as file:
        check = Check(
            device=device,
            card=card,
            sizes=sizes.small() if chosen.small else sizes.real(),
            folder=chosen.out,
            packed=chosen.packed,
            small=chosen.small,
            began=BEGAN,
            file=file,
        )
        outcomes = run_all(check, chosen.names, chosen.seconds, chosen.plant)
        done = [outcome.name for outcome in outcomes]
        rest = [name for name in chosen.names if name not in done]
        if rest and lost(check):
            check.line(what="device lost", note=f"a new process starts at section {rest[0]}")
    failed = write_table(path, chosen.out / "table.txt")
    left = chosen.seconds - (time.monotonic() - BEGAN)
    if rest and left > 1:
        go_on(chosen, rest, left)
    return 1 if failed else 0


def go_on(chosen: Any, names: list[str], seconds: float) -> NoReturn:
    """Replace this process, whose device is lost, by one that runs the other sections."""
    command = [sys.executable, "-m", MODULE, "--append", "--out", str(chosen.out)]
    command += ["--seconds", f"{max(1, seconds):.0f}", "--device", chosen.device]
    command += ["--sections", ",".join(names), "--packed", str(chosen.packed)]
    command += ["--small"] if chosen.small else []
    sys.stdout.flush()
    os.execv(sys.executable, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
