"""Submissions in ``runs/.slurm/<name>/``, from which any runner can resume.

``submission.json`` is written before sbatch is called, and ``job.json`` after it has answered. If a
runner is killed in between, the next runner looks the job up in Slurm by its unique name.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdbench.files import write_atomically
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset
from kdbench.runs import records
from kdbench.runs.data_digests import MadeOf

FOLDER = ".slurm"
SCHEMA = 1

Element = tuple[tuple[str, ...], ...]
"""Ids of the runs of an array element: a cohort for each of its tasks."""
MadeOfAsJson = tuple[tuple[dict[str, Any], dict[str, Any]], ...]
"""Data sets, and what recorded runs on them were made of."""


@dataclass(frozen=True)
class Submission:
    """An array of jobs.

    Attributes:
        name: of the folder and of the job.
        grid: name of the grid.
        runs: folder of runs.
        data: folder of data sets.
        code: folder of the code snapshot.
        executor: settings of the grid, as JSON.
        elements: ids of the runs of each array element.
        attempts: by a run's id, how often the run had been submitted before.
        ranks: number of processes that train a cohort together.
        made_of: for ``Work.made_of``, as JSON.
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
    made_of: MadeOfAsJson = ()

    def recorded_data(self) -> dict[Dataset, MadeOf]:
        """Return the data that recorded runs were made of when this was submitted."""
        return {
            Dataset(**dataset): MadeOf(**{**values, "runs": tuple(values["runs"])})
            for dataset, values in self.made_of
        }

    @property
    def folder(self) -> Path:
        """Folder of the submission."""
        return Path(self.runs) / FOLDER / self.name

    def ids(self, index: int) -> list[str]:
        """Return the ids of an element's runs."""
        return [run_id for cohort in self.elements[index] for run_id in cohort]

    def job(self) -> str | None:
        """Return Slurm's id; None until sbatch has answered."""
        try:
            return str(json.loads((self.folder / "job.json").read_bytes())["job"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def element(self, job: str | None, index: int) -> str | None:
        """Return Slurm's id of an element of ``job``; a single element has the id of the job."""
        return job if job is None or len(self.elements) == 1 else f"{job}_{index}"

    def submitted(self, job: str) -> None:
        """Store Slurm's id."""
        write_atomically(self.folder / "job.json", json.dumps({"job": job}) + "\n")

    def close(self) -> None:
        """Mark the submission as over."""
        (self.folder / "closed").touch()


def as_json(made_of: Mapping[Dataset, MadeOf]) -> MadeOfAsJson:
    """Return the data that recorded runs were made of as ``Submission.made_of``."""
    return tuple((key.model_dump(exclude_none=True), vars(made)) for key, made in made_of.items())


def name_of(grid: str) -> str:
    """Return a unique name for a job."""
    short = "".join(c if c.isalnum() or c in "-_." else "-" for c in grid)[:40]
    return f"kdb-{short}-{secrets.token_hex(4)}"


def write(submission: Submission, todo: dict[str, Run]) -> None:
    """Write a submission and its runs to disk, before sbatch is called.

    Args:
        todo: all runs of the submission, by id.
    """
    for run in todo.values():
        records.write_run(Path(submission.runs), run)
    submission.folder.mkdir(parents=True)
    text = json.dumps(asdict(submission)) + "\n"
    write_atomically(submission.folder / "submission.json", text)


def read(folder: Path) -> Submission:
    """Read a submission from its folder.

    Raises:
        OSError, ValueError, KeyError, TypeError: the folder has none, or one of another version.
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
    """Return the submissions that are not closed, oldest first."""
    dated = []
    for path in (runs / FOLDER).glob("*/submission.json"):
        if not (path.parent / "closed").exists():
            try:
                dated.append((path.stat().st_mtime, read(path.parent)))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # another version, or being written or deleted
    return [submission for _, submission in sorted(dated, key=lambda pair: pair[0])]
