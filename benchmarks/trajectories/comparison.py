"""A case trained on both sides, and the outcome of the comparison."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .cases import Case
from .differences import FLOOR, Differences, differences, verdict
from .images import batch_size
from .matching import selected
from .ours import Ours, Trajectory, train
from .peer import Job

PERTURBATION = 1e-15
"""Relative change of the authors' first weights, of which rounding makes several in a step."""
PROJECT = Path(__file__).resolve().parents[2]


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
        """One word, or a reason."""
        if self.found is None:
            return self.reason
        own = self.sensitivity.largest if self.sensitivity else 0.0
        word = verdict(self.found.largest, own)
        departs = word == "DIFFERS" and self.case.departs
        return f"departs: {self.case.departs}" if departs else word

    @property
    def wrong(self) -> bool:
        """Whether the case claims to be equal and is not, or could not run."""
        return self.verdict == "DIFFERS" or self.reason.startswith("FAILED")


def compare(
    checkout: Path, cases: Sequence[Case], pair: tuple[str, str], epochs: int, steps: int
) -> Iterator[Outcome]:
    """Train cases of one repository by kdbench, each by the authors' code, and compare."""
    if not cases:
        return
    rows = {case.row: case.options for case in cases}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = train(
            rows,
            cases[0].repository.preset,
            pair,
            epochs=epochs,
            steps=steps,
            folder=folder / "ours",
        )
        for i, case in enumerate(cases):
            if case.row in ours.skipped:
                yield Outcome(case, pair, reason=f"skipped: {ours.skipped[case.row]}")
                continue
            if case.row in ours.failed:
                yield Outcome(case, pair, reason=f"FAILED: kdbench: {ours.failed[case.row]}")
                continue
            job = job_of(case, ours, checkout, pair, epochs, batch_size(steps))
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
    values: dict[str, Any] = {
        "teacher": pair[0],
        "student": pair[1],
        "epochs": epochs,
        "batch": batch,
    }
    values |= {"teacher_file": "{teacher_file}", "lr": ours.lr}
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
        before=replace(before, modules=selected(before.modules, case.modules)),
        epochs=[epoch for phase in phases for epoch in ours.batches[phase]],
        test=ours.test,
        negatives=ours.negatives[case.row],
    )


def trained(job: Job, folder: Path) -> Trajectory:
    """Run the authors' code in a separate process.

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
            "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
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
    unused = selected(trajectory.student, tuple(case.unused))
    student = {name: x for name, x in trajectory.student.items() if name not in unused}
    modules = selected(trajectory.modules, case.modules)
    return replace(trajectory, student=student, modules=modules)
