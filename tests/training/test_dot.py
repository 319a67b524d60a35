"""The optimiser DOT in the engine; its steps are compared with the authors' in tests/golden."""

from pathlib import Path

import pytest
import torch
from tiny_runs import TRAINING, alone, numbers, stop_after, taught, train
from torch import nn

from kdbench.grid.grid import GridError
from kdbench.grid.optimizers import Dot as DotSettings
from kdbench.grid.optimizers import Optimizer
from kdbench.grid.repeat_command import Commands
from kdbench.grid.run import Run
from kdbench.grid.settings import Protocol, Training
from kdbench.grid.train_command import TrainFlags, one_cell
from kdbench.training.cohort import Stopped
from kdbench.training.dot import REST, TASK, Dot
from kdbench.training.objective import Loss
from kdbench.training.phases import Phases
from kdbench.training.ranks import ALONE
from kdbench.training.sgd import Sgd

DOT = Optimizer(dot=DotSettings(delta=0.075))
WITH_DOT = TRAINING.model_copy(update={"optimizer": DOT})
VALUES = {"lr": 0.1, "momentum": 0.9, "delta": 0.05, "weight_decay": 0.01}


def network() -> tuple[nn.Linear, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double(), nn.Linear(2, 2).double(), torch.randn(4, 3).double()


def loss_of(student: nn.Module, method: nn.Module, x: torch.Tensor) -> Loss:
    y = student(x)
    task, rest = y.square().mean(), (method(y) - 1).square().mean()
    return Loss(rest + task, task, (rest,))


def test_update_applies_the_gradients_of_both_parts() -> None:
    student, method, x = network()
    twin, twin_method, _ = network()
    params = [*student.parameters(), *method.parameters()]
    twins = [*twin.parameters(), *twin_method.parameters()]
    ours, given = Dot(params, **VALUES), Dot(twins, **VALUES)
    for _ in range(3):
        ours.update(loss_of(student, method, x), ALONE, params)
        loss = loss_of(twin, twin_method, x)
        assert loss.task is not None
        assert loss.rest is not None
        task = torch.autograd.grad(loss.task, twins[:2], retain_graph=True)
        rest = torch.autograd.grad(loss.rest, twins)
        given.apply(dict(zip(twins, task, strict=False)), dict(zip(twins, rest, strict=True)))
    for a, b in zip(params, twins, strict=True):
        assert torch.equal(a, b)
        assert a.grad is None


def test_loss_of_one_part_is_trained_as_by_sgd() -> None:
    for part in ("task", "rest"):
        (student, _, x), (twin, _, _) = network(), network()
        ours = Dot(student.parameters(), **(VALUES | {"weight_decay": 0.0}))
        sgd = Sgd(twin.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            for net, optimizer in ((student, ours), (twin, sgd)):
                value = net(x).square().mean()
                loss = Loss(value, value, ()) if part == "task" else Loss(value, None, (value,))
                assert isinstance(optimizer, Dot | Sgd)
                optimizer.update(loss, ALONE, [*net.parameters()])
        for a, b in zip(student.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-12)


def test_state_holds_both_momenta() -> None:
    student, method, x = network()
    params = [*student.parameters(), *method.parameters()]
    ours = Dot(params, **VALUES)
    ours.update(loss_of(student, method, x), ALONE, params)
    state = ours.state_dict()["state"]
    assert [set(state[i]) for i in range(4)] == [{TASK, REST}, {TASK, REST}, {REST}, {REST}]
    other = Dot(params, **VALUES)
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.state[params[0]][TASK], ours.state[params[0]][TASK])


def test_pretraining_phase_is_trained_by_sgd() -> None:
    student = nn.Linear(2, 2)
    phases = Phases(student, nn.ModuleList())
    phases.first = [student]
    assert isinstance(phases.optimizer("pretrain", WITH_DOT), Sgd)
    assert isinstance(phases.optimizer("train", WITH_DOT), Dot)
    assert isinstance(phases.optimizer("train", TRAINING), Sgd)


@pytest.fixture(scope="module")
def cohort_of(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    folder = tmp_path_factory.mktemp("dot")
    teacher = alone(student="r8w6")
    runs = [taught(teacher, name, training=WITH_DOT) for name in ("kd", "fitnets", "srrl")]
    train([teacher], folder)
    assert {record.status for record in train(runs, folder).values()} == {"done"}
    return folder, runs


def test_dot_differs_from_sgd_and_from_another_delta(
    cohort_of: tuple[Path, list[Run]], tmp_path: Path
) -> None:
    folder, (run, *_) = cohort_of
    teacher = alone(student="r8w6")
    train([teacher], tmp_path)
    other = WITH_DOT.model_copy(update={"optimizer": Optimizer(dot=DotSettings(delta=0.01))})
    others = [taught(teacher, "kd", training=t) for t in (TRAINING, other)]
    train(others, tmp_path)
    results = {str(numbers(folder, run)), *(str(numbers(tmp_path, one)) for one in others)}
    assert len(results) == 3
    assert len({run.id, *(one.id for one in others)}) == 3


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_resumed_alone_and_in_a_cohort_are_equal(
    cohort_of: tuple[Path, list[Run]], tmp_path: Path, steps: int
) -> None:
    folder, runs = cohort_of
    run = runs[1 if steps == 5 else 2]
    train([alone(student="r8w6")], tmp_path)
    with pytest.raises(Stopped):
        train([run], tmp_path, stop=stop_after(steps))
    train([run], tmp_path)
    assert numbers(tmp_path, run) == numbers(folder, run)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sgd", "expected {dot: {delta: 0.075}}, or null for SGD"),
        ("{adam: {}}", "expected {dot: {delta: 0.075}}, or null for SGD"),
        ("{dot: {delta: 0.2}}", "delta is 0.2, expected at most the momentum 0.9, and less than"),
        ("{dot: {delta: 0.1}}", "delta is 0.1, expected at most the momentum 0.9, and less than"),
        ("{dot: {delta: -1}}", "protocol.optimizer.dot.delta: expected 0 or more, not -1"),
        ("{dot: {}}, nesterov: true", "dot has no Nesterov form; expected nesterov: false"),
        ("{dot: {}}, momentum: 0.05", "delta is 0.075, expected at most the momentum 0.05"),
    ],
)
def test_wrong_optimizers_are_refused(given: str, message: str) -> None:
    with pytest.raises(GridError) as error:
        one_cell(TrainFlags("r8w3", "digits", protocol=f"{{epochs: 1, optimizer: {given}}}"))
    assert message in str(error.value)
    assert len(error.value.lines) == 1


def test_delta_has_a_default_and_null_means_sgd() -> None:
    assert Protocol(optimizer={"dot": {}}) == Protocol(optimizer={"dot": {"delta": 0.075}})  # type: ignore[arg-type]
    assert Training(optimizer=None).canonical == Training().canonical
    assert "optimizer" not in Training().canonical


def test_command_repeats_a_run_with_dot() -> None:
    run = one_cell(TrainFlags("r8w3", "digits", protocol="{preset: crd, optimizer: {dot: {}}}"))[1][
        -1
    ]
    assert Run.from_json(run.to_json()).id == run.id
    command = Commands(lambda _: run)(run)
    assert "{preset: crd, optimizer: {dot: {delta: 0.075}}}" in command
