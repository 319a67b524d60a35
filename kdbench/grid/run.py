"""``Run``: the settings that determine a result, their id, and their form in JSON.

Imports no torch, not even indirectly.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from kdbench import NUMERICS
from kdbench.grid.settings import Dataset, Training

BASELINES = ("teacher", "student")
"""Rows that every table has in addition to the methods, in this order."""


IMPORTED = "import-"
"""Beginning of the ids of imported teachers."""


def is_imported(run_id: str) -> bool:
    """Check whether an id is that of an imported teacher."""
    return run_id.startswith(IMPORTED)


def pair_name(teacher: str, student: str) -> str:
    """Return ``TEACHER -> STUDENT``, as grid files and messages write a pair."""
    return f"{teacher} -> {student}"


@dataclass(frozen=True)
class Term:
    """One method's term in a run's objective.

    Attributes:
        method: name of the method; for a plugin given by its path, the file's without ``.py``.
        beta: weight of the term.
        hyper: all hyper-parameters of the method, defaults included; but without those at their
            defaults that earlier versions did not have (``Method.added_later``).
        source: sha256 of a plugin's file and of the local files that it imports; they determine its
            results. None for built-in methods, whose versions are ``kdbench.NUMERICS`` and
            ``version``.
        path: of the plugin; not part of the id.
        version: of a built-in method's results; part of the id if it is above 1.
    """

    method: str
    beta: float
    hyper: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    path: str | None = None
    version: int = 1

    @property
    def canonical(self) -> dict[str, Any]:
        """The values that determine a result."""
        values: dict[str, Any] = {"method": self.method, "beta": self.beta, "hyper": self.hyper}
        if self.source:
            values["source"] = self.source
        if self.version > 1:
            values["version"] = self.version
        return values

    @property
    def where(self) -> str:
        """The name that loads the method: a plugin's path or a registered name."""
        return self.path or self.method


@dataclass(frozen=True)
class Teacher:
    """The network that a student learns from, trained by another run.

    Attributes:
        arch: architecture.
        run: id of the run that trained it, or ``import-...`` of an imported checkpoint.
    """

    arch: str
    run: str


@dataclass(frozen=True)
class Run:
    """One training with one seed: of a student under an objective, or of a network alone.

    The objective is ``gamma*CE + alpha*T^2*KL + sum beta_m*term_m``.

    Attributes:
        student: architecture to train; in a teacher's own run, the teacher's.
        teacher: None for a network trained alone.
        dataset: the data.
        training: recipe, resolved for this student.
        gamma: weight of cross-entropy.
        alpha: weight of T^2*KL.
        temperature: T.
        terms: the methods' terms.
        pretrain: (epochs, learning rate) of the pretraining phase, if a method has one.
        seed: of initial weights, data order, augmentation and a method's random numbers.
        method: label of the row in tables; not part of the id.
        protocol: name of the protocol in tables; not part of the id.
    """

    student: str
    teacher: Teacher | None
    dataset: Dataset
    training: Training
    gamma: float
    alpha: float
    temperature: float
    terms: tuple[Term, ...]
    seed: int
    pretrain: tuple[int, float] | None = None
    method: str = "student"
    protocol: str = "custom"

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits of the sha256 of ``canonical``."""
        before, after, _ = self._texts
        text = f'{before}"seed":{self.seed}{after}'
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> "Run":
        """Return the run with another seed; values that all seeds share are not computed again."""
        # Faster than replace(), which sets field by field: a grid may have very many runs.
        other = object.__new__(Run)
        values = other.__dict__
        values.update(self.__dict__, seed=seed, _texts=self._texts)
        for cached in ("id", "shared"):
            values.pop(cached, None)
        return other

    @property
    def title(self) -> str:
        """The networks and the seed, for messages: ``resnet32x4 -> vgg8, seed 0``."""
        pair = pair_name(self.teacher.arch, self.student) if self.teacher else self.student
        return f"{pair}, seed {self.seed}"

    @property
    def seedless(self) -> tuple[str, str]:
        """The canonical JSON before and after the seed, the same for all runs of a cell."""
        return self._texts[:2]

    @cached_property
    def shared(self) -> str:
        """Key that is equal for learners of one cohort: teacher, data, batches and seed."""
        return f"{self._texts[2]}, seed {self.seed}"

    @cached_property
    def _texts(self) -> tuple[str, str, str]:
        """The canonical JSON before and after the seed, and ``shared`` without the seed."""
        # Keys are sorted and quotes inside strings escaped, so the first match is the run's.
        before, _, after = _json(self._canonical(None, None, None)).partition('"seed":null')
        training, data = self.training, _data_text(self.dataset)
        before = before.replace('"dataset":null', f'"dataset":{data}')
        # The last match, because a method may have a parameter of this name.
        start, _, end = after.rpartition('"training":null')
        after = f'{start}"training":{_recipe_text(training)}{end}'
        key = (
            self.teacher.run if self.teacher else None,
            data,
            training.batch_size,
            training.crop_pad,
            training.flip,
            training.precision,
        )
        return before, after, repr(key)

    @property
    def canonical(self) -> dict[str, Any]:
        """The resolved settings as plain JSON values, the same in whatever order they are given."""
        training = dict(_recipe(self.training))
        return self._canonical(self.dataset.canonical, training, self.seed)

    def _canonical(self, dataset: Any, training: Any, seed: int | None) -> dict[str, Any]:
        """Return ``canonical`` with the given values in place of the run's own."""
        values: dict[str, Any] = {
            "numerics": NUMERICS,
            "student": self.student,
            "dataset": dataset,
            "training": training,
            "gamma": self.gamma,
            "seed": seed,
        }
        if self.teacher:
            # With alpha = 0 the temperature has no effect.
            values |= {"teacher": self.teacher.run, "alpha": self.alpha}
            values |= {"temperature": self.temperature} if self.alpha else {}
        if self.terms:
            values["terms"] = [term.canonical for term in self.terms]
            if len(self.terms) > 1:
                values["terms"].sort(key=lambda term: json.dumps(term, sort_keys=True))
        if self.pretrain:
            values["pretrain"] = list(self.pretrain)
        return values

    def to_json(self) -> dict[str, Any]:
        """Return all fields, for ``run.json``."""
        return {
            "id": self.id,
            "numerics": NUMERICS,
            "method": self.method,
            "protocol": self.protocol,
            "student": self.student,
            "teacher": {"arch": self.teacher.arch, "run": self.teacher.run}
            if self.teacher
            else None,
            "dataset": self.dataset.model_dump(exclude_none=True),
            "training": self.training.model_dump(mode="json", exclude_none=True),
            "gamma": self.gamma,
            "alpha": self.alpha,
            "temperature": self.temperature,
            "terms": [
                term.canonical | ({"path": term.path} if term.path else {}) for term in self.terms
            ],
            "pretrain": list(self.pretrain) if self.pretrain else None,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Run":
        """Return the run that ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: ``values`` is not a run.
        """
        epochs_lr = values["pretrain"]
        return cls(
            student=values["student"],
            teacher=Teacher(**values["teacher"]) if values["teacher"] else None,
            dataset=Dataset(**values["dataset"]),
            training=Training(**values["training"]),
            gamma=values["gamma"],
            alpha=values["alpha"],
            temperature=values["temperature"],
            terms=tuple(
                Term(**term | {"hyper": {k: _tuples(v) for k, v in term["hyper"].items()}})
                for term in values["terms"]
            ),
            seed=values["seed"],
            pretrain=(epochs_lr[0], epochs_lr[1]) if epochs_lr else None,
            method=values["method"],
            protocol=values["protocol"],
        )


_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _data_text(dataset: Dataset) -> str:
    # Not cached with a root, whose name depends on the working folder and on links.
    return _json(dataset.canonical) if dataset.roots else _cached_data_text(dataset)


@lru_cache(maxsize=64)
def _cached_data_text(dataset: Dataset) -> str:
    return _json(dataset.canonical)


@lru_cache(maxsize=256)
def _recipe(training: Training) -> dict[str, Any]:
    # Cached, because all rows of a pair, and most pairs, share their recipe.
    return training.canonical


@lru_cache(maxsize=256)
def _recipe_text(training: Training) -> str:
    return _json(_recipe(training))


def _tuples(value: Any) -> Any:
    """Turn the lists of JSON back into tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Cell:
    """A method on a pair, over seeds: one cell of a table.

    Attributes:
        method: label of the row, a method's or one of ``BASELINES``.
        teacher: architecture of the pair's teacher.
        student: architecture of the pair's student.
        runs: one run per seed; for the row ``teacher`` the teacher's own run.
    """

    method: str
    teacher: str
    student: str
    runs: tuple[Run, ...]

    @property
    def pair(self) -> str:
        """``TEACHER -> STUDENT``."""
        return pair_name(self.teacher, self.student)
