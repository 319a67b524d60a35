"""Estimates of durations from trainings on noise, on a pretended GPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_grids import first
from tape_recorder import TapeRecorder

from kdbench.cost import gpu_speed, rehearsal
from kdbench.cost.estimate import Estimator, RunCost, data_shape
from kdbench.cost.gpu_speed import GpuSpeed, gpu_of
from kdbench.cost.rehearsal import BLOCK, Rehearsal, run_seconds, timed
from kdbench.errors import UserError
from kdbench.grid.grid import Executor
from kdbench.grid.run import Run
from kdbench.models.peers import networks
from kdbench.training.context import TrainingContext
from kdbench.training.steps import GraphSteps

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., GpuSpeed]:
    """Create speeds of a pretended GPU, on which a run takes 100 s; ``calls`` are the measured."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    calls: list[tuple[str, torch.device, str]] = []

    def measured(
        run: Run, shape: object, device: torch.device, *, graphs: str, seconds: float
    ) -> float:
        calls.append((run.method, device, graphs))
        return 100.0

    monkeypatch.setattr(gpu_speed, "run_seconds", measured)

    def create(seconds: float = 1e9, **settings: Any) -> GpuSpeed:
        return GpuSpeed(GPU, Executor(**settings), seconds)

    create.calls = calls  # type: ignore[attr-defined]
    return create


def test_each_cell_is_measured_once_on_the_gpu(speeds: Any) -> None:
    speed = speeds()
    run = first("kd")
    cost = Estimator()(run)
    assert [speed.seconds_of(run, cost) for _ in range(2)] == pytest.approx([100, 100])
    assert speed.seconds_of(run, RunCost(problem="skipped: why")) == 0
    assert speeds.calls == [("kd", GPU, "auto")]
    assert speed.device == "a GPU"
    speeds(graphs="never").seconds_of(run, cost)
    speeds(graphs="always").seconds_of(run, cost)  # other grids train what cannot be captured
    assert [graphs for *_, graphs in speeds.calls] == ["auto", "never", "auto"]


def test_without_time_a_run_takes_as_long_as_a_similar_one(
    speeds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = speeds(seconds=0.0)
    kd, student = first("kd"), first("student")
    cost = RunCost(operations=replace(Estimator()(kd).operations))
    assert speed.seconds_of(kd, cost) == pytest.approx(100)  # the first is measured in any case
    assert speed.seconds_of(student, cost) == pytest.approx(100)
    assert len(speeds.calls) == 1
    twice = replace(cost, operations=replace(cost.operations, student=2 * cost.operations.student))
    expected = 100 * twice.flops / cost.flops
    other = first("kd", pairs=["r8w4 -> r8w5"])
    assert speed.seconds_of(other, twice) == pytest.approx(expected)


def test_failed_measurement_is_noted_and_replaced(
    speeds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **options: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    kd, student = first("kd"), first("student")
    speed = speeds()
    assert speed.seconds_of(student, Estimator()(student)) > 0
    monkeypatch.setattr(gpu_speed, "run_seconds", fails)
    assert speed.seconds_of(kd, Estimator()(kd)) > 0
    assert speed.failures == {"kd": "OutOfMemoryError: CUDA out of memory. Tried to allocate"}
    with pytest.raises(UserError, match=r"^measuring on a GPU: OutOfMemoryError: .*; --tflops N"):
        speeds().seconds_of(kd, Estimator()(kd))


def test_gpu_of_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [gpu_of(Executor(device=name)) for name in ("auto", "cuda", "cpu")] == [None] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    names = {"auto": "cuda:0", "cuda": "cuda:0", "cuda:1": "cuda:1", "cuda:7": "cuda:0"}
    assert {name: str(gpu_of(Executor(device=name))) for name in names} == names
    assert gpu_of(Executor(device="cpu")) is None


# --- the training that is measured, here on the CPU ----------------------------------------------


def test_measured_training_is_that_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[tuple[torch.device, str]] = []
    monkeypatch.setattr(rehearsal, "prepare", lambda *arguments: prepared.append(arguments))
    monkeypatch.setattr(rehearsal, "BLOCK", 4)
    run = first("semckd", methods=["semckd"], protocol={"preset": "demo", "precision": "bf16"})
    shape = data_shape(run.dataset)
    loop = Rehearsal([run, replace(run, gamma=0.5)], shape, CPU)
    weights = [networks(x.student)[0].head.weight.detach().clone() for x in loop.learners]
    for _ in range(loop.epoch + 2):  # more than the noise has
        loop.step()
    loop.evaluate()
    loop.wait()
    assert prepared == [(CPU, "bf16")]
    assert [x.steps_done for x in loop.learners] == [loop.epoch + 2] * 2
    assert not any(bool(x.sums.broken) for x in loop.learners)
    for before, learner in zip(weights, loop.learners, strict=True):
        assert not torch.equal(before, networks(learner.student)[0].head.weight)
    loop.close()


@pytest.mark.parametrize("method", ["at", "dkd"])  # dkd reads the epoch
def test_measured_steps_are_the_graphs_of_the_engine(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tape stands in for CUDA graphs."""
    recorder = TapeRecorder(lanes=2)
    contexts: list[TrainingContext] = []

    def make(run: Run, data: Any, teacher: Any, context: TrainingContext) -> GraphSteps:
        contexts.append(context)
        return GraphSteps(run, data, teacher, context, recorder)

    monkeypatch.setattr(rehearsal, "make_steps", make)
    monkeypatch.setattr(rehearsal, "BLOCK", 6)
    run = first(method, methods=[method])
    runs = [run, replace(run, gamma=0.5)]
    loop = Rehearsal(runs, data_shape(run.dataset), CPU, graphs="always", streams=2)
    assert len(loop.rounds(2)) == 2
    loop.close()
    assert (contexts[0].graphs, contexts[0].streams) == ("always", 2)
    assert sorted(recorder.records) == [0, 1, 2]  # two learners, and their batch and teacher
    # Of 18 steps of two learners and their batches, all but the two warm-up steps.
    assert recorder.replays == 3 * (3 * 6 - 2)


def test_duration_of_a_run_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = first("ft", methods=["ft"])  # with a phase before training
    assert run.pretrain
    shape = data_shape(run.dataset)
    seconds = iter([2.0, 1.0, 30.0, 20.0])  # rounds of steps, then evaluations
    monkeypatch.setattr(rehearsal, "timed", lambda *arguments: next(seconds))
    total = run_seconds(run, shape, CPU, graphs="auto", seconds=0.0)
    epochs, b = run.training.epochs, run.training.batch_size
    images = min(BLOCK, shape.train // b) * b
    expected = (epochs + run.pretrain[0]) * (shape.train // b)
    assert total == pytest.approx(expected + 20 * epochs * shape.test / min(500, images))


def test_clock_is_read_only_after_waiting_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, queued = [0.0], [0]
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: clock[0])

    def launch() -> None:
        queued[0] += 1

    def wait() -> None:
        clock[0] += 0.5 * queued[0]
        queued[0] = 0

    assert timed(launch, wait, 4) == 0.5
    clock[0] = 0.0
    assert timed(launch, wait, 4, seconds=5.0) == 0.5
    assert clock[0] == 6.0


def test_measuring_leaves_the_generator_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "BLOCK", 3)
    state = torch.random.get_rng_state()
    run = first("kd")
    assert run_seconds(run, data_shape(run.dataset), CPU, graphs="auto", seconds=0.0) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
