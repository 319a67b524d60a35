"""The authors' side, in a separate process: their main runs on given weights and batches.

python -m benchmarks.trajectories.peer JOB RESULT, in an empty folder: their code writes to it.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import shims
from .cases import Case
from .images import CLASSES
from .matching import State, matched, without
from .ours import Epoch, Trajectory

LEARNED = (
    *("ConvReg", "LinearEmbed", "VIDLoss", "CRDLoss", "Connector", "Paraphraser", "Translator"),
    *("SelfA", "SRRL", "SimKD"),
)
"""Classes of train_student.py whose objects hold a method's tensors."""


@dataclass
class Job:
    """One training by the authors' code.

    Attributes:
        checkout: folder of the repository.
        case: what to train.
        flags: all arguments.
        pair: teacher and student.
        teacher: kdbench's tensors of the teacher.
        before: kdbench's tensors of student and method.
        epochs: batches of all phases.
        test: batches of the test set.
        negatives: CRD's samples of each step.
        perturbed: relative size of a change of the first weights; 0: none.
    """

    checkout: Path
    case: Case
    flags: list[str]
    pair: tuple[str, str]
    teacher: State
    before: Trajectory
    epochs: list[Epoch]
    test: Epoch
    negatives: list[torch.Tensor]
    perturbed: float = 0.0


@dataclass
class Filled:
    """The authors' modules, filled with kdbench's tensors, and read again under kdbench's names.

    Attributes:
        ours: tensors to fill in, in the order in which the authors build their modules.
        unmatched: pattern of the names of tensors that kdbench does not have.
        parts: each module, with kdbench's names of its tensors.
    """

    ours: State
    unmatched: str = ""
    parts: list[tuple[nn.Module, str, dict[str, str]]] = field(default_factory=list)

    def fill(self, module: nn.Module, inside: str = "") -> None:
        """Fill a module with the next tensors; ``inside``: pattern of names to leave out."""
        pattern = "|".join(x for x in (self.unmatched, inside) if x)
        theirs = without(module.state_dict(), pattern)
        done = {name for _, _, names in self.parts for name in names.values()}
        left = {name: x for name, x in self.ours.items() if name not in done}
        mine = left if theirs.keys() == left.keys() else dict([*left.items()][: len(theirs)])
        names = matched(theirs, mine)
        state = module.state_dict()
        module.load_state_dict(state | {name: mine[names[name]] for name in theirs})
        self.parts.append((module, pattern, names))

    def read(self) -> State:
        """Return copies of the present tensors under kdbench's names.

        Raises:
            ValueError: some tensors were not filled in anywhere.
        """
        state = {
            names[name]: x.clone()
            for module, pattern, names in self.parts
            for name, x in without(module.state_dict(), pattern).items()
        }
        if missing := self.ours.keys() - state.keys():
            raise ValueError(f"the authors' code builds no module for {min(missing)}")
        return state


def perturbed(state: State, size: float) -> State:
    """Change each number by ``size`` of itself, up or down at random."""
    random = torch.Generator().manual_seed(0)
    return {
        name: x * (1 + size * (2 * torch.randint(2, x.shape, generator=random).to(x) - 1))
        if size and x.is_floating_point()
        else x
        for name, x in state.items()
    }


def run(job: Job) -> Trajectory:
    """Train by the authors' main, and return what it led to under kdbench's names."""
    losses: list[float] = []
    shims.install(losses)
    if job.case.signs:
        shims.give_signs()
    student = Filled(perturbed(job.before.student, job.perturbed))
    modules = Filled(perturbed(job.before.modules, job.perturbed), job.case.unmatched)
    by_name = {"train_student.py": train_student, "tools/train.py": mdistiller}
    by_name[job.case.repository.main](job, student, modules)
    return Trajectory(student.read(), modules.read(), losses)


def train_student(job: Job, student: Filled, modules: Filled) -> None:
    """Run the main of RepDistiller, SemCKD or SimKD."""
    counted = job.case.repository.name == "RepDistiller"
    columns = 3 if counted or job.negatives else 2
    count = sum(len(batch[1]) for batch in job.epochs[0])
    train = shims.Loader(job.epochs, columns, job.negatives)
    shims.stub_data(train, shims.Loader([job.test], 2), count, counted=counted)
    main = _module(job.checkout, "train_student.py")
    teacher, name = job.pair
    file = Path(f"{teacher}_vanilla", "teacher.pth").resolve()
    file.parent.mkdir()
    weights = teacher_weights(main.model_dict[teacher](num_classes=CLASSES), job.teacher)
    torch.save({"model": weights}, file)
    main.model_dict[name] = filling(main.model_dict[name], student.fill)
    for kind in LEARNED:
        if hasattr(main, kind):
            setattr(main, kind, filling(getattr(main, kind), modules.fill))
    replaced = {"{teacher_file}": str(file)}
    sys.argv = ["train_student.py", "--distill", job.case.theirs]
    sys.argv += [replaced.get(flag, flag) for flag in job.flags]
    main.main()


def mdistiller(job: Job, student: Filled, modules: Filled) -> None:
    """Run the main of mdistiller."""
    shims.stub("mdistiller.dataset", get_dataset=None)
    main = _module(job.checkout, "tools/train.py")
    count = sum(len(batch[1]) for batch in job.epochs[0])
    train, test = shims.Loader(job.epochs, 3, job.negatives), shims.Loader([job.test], 2)
    main.get_dataset = lambda cfg: (train, test, count, CLASSES)
    make = {name: main.cifar_model_dict[name][0] for name in job.pair}
    weights = teacher_weights(make[job.pair[0]](num_classes=CLASSES), job.teacher)
    main.load_checkpoint = lambda path: {"model": weights}
    main.cifar_model_dict[job.pair[0]] = (make[job.pair[0]], "teacher")
    main.cfg.merge_from_file(str(job.checkout / job.case.theirs))
    main.cfg.merge_from_list(job.flags)

    def fill(distiller: Any) -> None:
        # FitNet and VID have passed a random image through the teacher in train mode.
        distiller.teacher.load_state_dict(weights)
        student.fill(distiller.student)
        modules.fill(distiller, r"(student|teacher)\..*")

    kind = main.cfg.DISTILLER.TYPE
    main.distiller_dict[kind] = filling(main.distiller_dict[kind], fill)
    main.main(main.cfg, False, [])


def teacher_weights(network: nn.Module, ours: State) -> State:
    """Return kdbench's tensors under the names of the authors' network."""
    names = matched(network.state_dict(), ours)
    return {name: ours[names[name]] for name in names}


def filling(make: Callable[..., Any], fill: Callable[[Any], None]) -> Callable[..., Any]:
    """Return a constructor whose objects are filled."""

    def made(*args: Any, **named: Any) -> Any:
        module = make(*args, **named)
        fill(module)
        return module

    return made


def _module(checkout: Path, file: str) -> Any:
    """Import a file of a repository whose folder is then the first on the path."""
    sys.path.insert(0, str(checkout))
    spec = importlib.util.spec_from_file_location("authors_main", checkout / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _, job_file, result_file = sys.argv  # their main reads others from it
    torch.save(run(torch.load(job_file, weights_only=False)), result_file)
