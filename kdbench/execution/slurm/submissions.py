"""What was submitted, in ``runs/.slurm/<name>/``: all that another runner has to know.

``submission.json`` is written before sbatch is called and ``job.json`` after it has answered, so
whatever is killed in between can be looked up in Slurm by the job's name, which is unique.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdbench.files import write_atomically
from kdbench.grid.run import Run
from kdbench.runs import records

FOLDER = ".slurm"
SCHEMA = 1

Element = tuple[tuple[str, ...], ...]
"""Ids of the runs of an element of an array: a cohort for each of its tasks."""


@dataclass(frozen=True)
class Submission:
    """An array of jobs.

    Attributes:
        name: of the folder and of the job. grid: of the grid.
        runs, data, code: folders; ``code`` is the snapshot.
        executor: of the grid, as JSON.
        elements: what each element of the array trains.
        attempts: run id -> how often it had been submitted before.
        ranks: processes that train one cohort together.
    """

    name: str
    grid: str
    runs: str
    data: str
    code: str
    executor: dict[str, Any]
    elements: tuple[Element, ...]
    attempts: dict[str, int]
    ranks: int = 1
    schema: int = SCHEMA

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return Path(self.runs) / FOLDER / self.name

    def ids(self, index: int) -> list[str]:
        """The runs of an element."""
        return [run_id for cohort in self.elements[index] for run_id in cohort]

    def job(self) -> str | None:
        """Slurm's id; None until sbatch has answered."""
        try:
            return str(json.loads((self.folder / "job.json").read_bytes())["job"])
        except (OSError, ValueError, KeyError):
            return None

    def element(self, job: str | None, index: int) -> str | None:
        """Slurm's id of an element of ``job``; an array of one is no array."""
        return job if job is None or len(self.elements) == 1 else f"{job}_{index}"

    def submitted(self, job: str) -> None:
        """Note Slurm's id."""
        write_atomically(self.folder / "job.json", json.dumps({"job": job}) + "\n")

    def close(self) -> None:
        """Nothing of it is left to wait for."""
        (self.folder / "closed").touch()


def name_of(grid: str) -> str:
    """A name that no other job has."""
    short = "".join(c if c.isalnum() or c in "-_." else "-" for c in grid)[:40]
    return f"kdb-{short}-{secrets.token_hex(4)}"


def write(submission: Submission, todo: dict[str, Run]) -> None:
    """Write a submission, and the runs it trains, before it is submitted.

    Args:
        todo: every run of it, by id.
    """
    for run in todo.values():
        records.write_run(Path(submission.runs), run)
    submission.folder.mkdir(parents=True)
    text = json.dumps(asdict(submission)) + "\n"
    write_atomically(submission.folder / "submission.json", text)


def read(folder: Path) -> Submission:
    """The submission that lies in a folder.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is none, or of another kind.
    """
    values = json.loads((folder / "submission.json").read_bytes())
    if values["schema"] != SCHEMA:
        raise ValueError(f"{folder}: schema {values['schema']}, this kdbench reads {SCHEMA}")
    values["elements"] = tuple(
        tuple(tuple(cohort) for cohort in element) for element in values["elements"]
    )
    # The folder of runs may have been moved since.
    values["runs"] = str(folder.resolve().parent.parent)
    return Submission(**values)


def unfinished(runs: Path) -> list[Submission]:
    """Every submission that nobody has closed, oldest first."""
    found = []
    for path in (runs / FOLDER).glob("*/submission.json"):
        if not (path.parent / "closed").exists():
            try:
                found.append((path.stat().st_mtime, read(path.parent)))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # another's, being written or deleted
    return [submission for _, submission in sorted(found, key=lambda pair: pair[0])]
