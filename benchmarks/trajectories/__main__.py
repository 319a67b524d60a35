"""Whole trainings by the authors' own code and by kdbench, side by side.

The authors' main and loops, imported from checkouts that the user provides, and kdbench's grid,
expansion and cohort train in float64 from the same weights on the same batches. Per method, the
largest differences are printed; where they exceed 1e-9, also those of the authors' own training
when its first weights change by 1e-15 of themselves: rounding alone may make so much.

python -m benchmarks.trajectories --peers FOLDER [--methods kd at ...] [--epochs 2] [--steps 4]
                                  [--pair TEACHER STUDENT] [--json FILE]

FOLDER holds RepDistiller, SemCKD, SimKD and mdistiller, or some of them. The exit code is 1 if a
difference is more than 1e-9 and more than 1000 times the authors' own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .cases import CASES, REPOSITORIES, SKIPPED, Case, Repository
from .differences import FLOOR, PARTS, Differences, differences, explained
from .matching import starting
from .ours import Ours, Trajectory, batch_size
from .ours import train as train_ours
from .peer import Job

PERTURBATION = 1e-15
REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """The comparison of one case.

    Attributes:
        case: what was compared.
        pair: teacher and student.
        found: the differences; None if nothing was compared.
        sensitivity: the authors' own differences after a perturbation, if measured.
        reason: why nothing was compared.
    """

    case: Case
    pair: tuple[str, str]
    found: Differences | None = None
    sensitivity: Differences | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One word or a reason, for the table."""
        if self.found is None:
            return self.reason
        own = self.sensitivity.largest if self.sensitivity else 0.0
        if explained(self.found.largest, own):
            return "equal"
        return f"departs: {self.case.departs}" if self.case.departs else "DIFFERS"

    @property
    def wrong(self) -> bool:
        """Whether the case claims to be equal and is not, or could not run."""
        return self.verdict == "DIFFERS" or self.reason.startswith("FAILED")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all cases, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trajectories",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--peers", type=Path, help="folder of the authors' repositories")
    parser.add_argument("--methods", nargs="+", help="rows, such as kd or crd+kd (default: all)")
    parser.add_argument("--pair", nargs=2, help="teacher and student (default: small ResNets)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = [repository.name for repository in REPOSITORIES]
    present = [x for x in names if options.peers and (options.peers / x).is_dir()]
    known = sorted({case.row for case in CASES})
    problem = ""
    if not present:
        problem = f"--peers: a folder with checkouts of {', '.join(names)}, or of some of them"
    elif unknown := [x for x in options.methods or () if x not in known]:
        problem = f"--methods: {unknown[0]} is none of {', '.join(known)}"
    elif options.epochs < 1 or options.steps < 1:
        problem = "--epochs and --steps: 1 or more"
    if problem:
        print(f"benchmarks.trajectories: {problem}", file=sys.stderr)
        return 2
    outcomes = []
    print(header())
    for repository in REPOSITORIES:
        if repository.name not in present:
            continue
        cases = [
            case
            for case in CASES
            if case.repository == repository and case.row in (options.methods or known)
        ]
        pair = tuple(options.pair or repository.pair)
        for outcome in compare(options.peers, repository, cases, pair, options.epochs, options.steps):
            outcomes.append(outcome)
            print(line(outcome), flush=True)
    if not options.methods:
        for what, reason in SKIPPED.items():
            print(f"not compared: {what}: {reason}")
    if options.json:
        settings = {"epochs": options.epochs, "steps": options.steps, "torch": torch.__version__}
        lines = [as_json(outcome) | settings for outcome in outcomes]
        options.json.write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    return int(any(outcome.wrong for outcome in outcomes))


def compare(
    peers: Path,
    repository: Repository,
    cases: Sequence[Case],
    pair: tuple[str, str],
    epochs: int,
    steps: int,
) -> Iterator[Outcome]:
    """Train all cases of a repository by kdbench, each by the authors' code, and compare."""
    if not cases:
        return
    rows = {case.row: case.options for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = train_ours(
            rows, repository.preset, pair, epochs=epochs, steps=steps, folder=folder / "ours"
        )
        for i, case in enumerate(cases):
            if case.row in ours.skipped:
                yield Outcome(case, pair, reason=f"skipped: {ours.skipped[case.row]}")
                continue
            job = job_of(case, ours, peers / repository.name, pair, epochs, batch_size(steps))
            try:
                theirs = trained(job, folder / f"{i}")
                found = differences(compared(ours.after[case.row], case), compared(theirs, case))
                sensitivity = None
                if not found.largest <= FLOOR:
                    again = trained(replace(job, perturbed=PERTURBATION), folder / f"{i}-perturbed")
                    sensitivity = differences(compared(again, case), compared(theirs, case))
            except (ValueError, RuntimeError) as error:
                yield Outcome(case, pair, reason=f"FAILED: {error}")
            else:
                yield Outcome(case, pair, found, sensitivity)


def job_of(
    case: Case, ours: Ours, checkout: Path, pair: tuple[str, str], epochs: int, batch: int
) -> Job:
    """Return what the authors' code needs to train a case."""
    s, t = ours.features
    values = {"teacher": pair[0], "student": pair[1], "epochs": epochs, "batch": batch}
    values |= {"teacher_file": "{teacher_file}"}
    for name, f in (("s", s), ("t", t)):
        values[f"{name}_width"] = f.embedding.shape[1]
        values[f"{name}_channels"] = [*(x.shape[1] for x in f.stages), f.embedding.shape[1]]
        values[f"{name}_sizes"] = [1, *(x.shape[2] for x in reversed(f.stages))]
    before, after = ours.before[case.row], ours.after[case.row]
    per_epoch = len(ours.batches["train"][0])
    phases = ["train"] if len(after.losses) == epochs * per_epoch else ["pretrain", "train"]
    return Job(
        checkout=checkout.resolve(),
        case=case,
        flags=[flag.format(**values) for flag in (*case.repository.flags, *case.flags)],
        pair=pair,
        teacher=ours.teacher,
        before=replace(before, modules=starting(before.modules, case.modules)),
        epochs=[epoch for phase in phases for epoch in ours.batches[phase]],
        test=ours.test,
        negatives=ours.negatives[case.row],
    )


def trained(job: Job, folder: Path) -> Trajectory:
    """Run the authors' code in a process of its own.

    Raises:
        RuntimeError: it failed; the message is its last line.
    """
    folder.mkdir()
    torch.save(job, folder / "job.pt")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.trajectories.peer", "job.pt", "result.pt"],
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY_ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    result: Trajectory = torch.load(folder / "result.pt", weights_only=False)
    return result


def compared(trajectory: Trajectory, case: Case) -> Trajectory:
    """Return a training with the tensors that are compared."""
    student = {k: x for k, x in trajectory.student.items() if not k.startswith(tuple(case.unused))}
    modules = starting(trajectory.modules, case.modules)
    return replace(trajectory, student=student, modules=modules)


def header() -> str:
    """Return the table's first line."""
    columns = "".join(f"{part:>11}" for part in (*PARTS, "own"))
    return f"{'repository':<13}{'method':<10}{'pair':<25}{columns}  verdict"


def line(outcome: Outcome) -> str:
    """Return a line of the table; ``own``: the authors' own sensitivity, if it was measured."""
    values = asdict(outcome.found) if outcome.found else {}
    cells = [f"{values[part]:.1e}" if values else "" for part in PARTS]
    cells.append(f"{outcome.sensitivity.largest:.1e}" if outcome.sensitivity else "")
    where = f"{outcome.case.repository.name:<13}{outcome.case.row:<10}"
    pair = f"{' -> '.join(outcome.pair):<25}"
    return where + pair + "".join(f"{cell:>11}" for cell in cells) + f"  {outcome.verdict}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as plain values."""
    return {
        "repository": outcome.case.repository.name,
        "method": outcome.case.row,
        "pair": list(outcome.pair),
        "differences": asdict(outcome.found) if outcome.found else None,
        "sensitivity": asdict(outcome.sensitivity) if outcome.sensitivity else None,
        "verdict": outcome.verdict,
        "not compared": dict(outcome.case.unused),
    }


if __name__ == "__main__":
    sys.exit(main())
