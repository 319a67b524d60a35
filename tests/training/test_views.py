"""Methods that want a second view of each image, alone, in cohorts, resumed and recorded."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tape_recorder import TapeRecorder
from tiny_runs import CPU, TRAINING, alone, data, numbers, stop_after, taught, train
from torch import Tensor

from kdbench.data.strong_views import StrongViews
from kdbench.grid.run import Run
from kdbench.method import Batch, Features
from kdbench.runs import records
from kdbench.training import cohort, steps
from kdbench.training.cohort import Stopped
from kdbench.training.feed import ON_CPU, Feed, Shared
from kdbench.training.learner import Learner
from kdbench.training.schedule import Rate
from kdbench.training.steps import GraphSteps
from kdbench.training.teacher import LoadedTeacher

TEACHER = alone(student="r8w6")
METHODS = ("mlkd", "kd", "semckd")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    """Train a cohort of which one learner wants views."""
    folder = tmp_path_factory.mktemp("views")
    train([TEACHER], folder)
    runs = [taught(TEACHER, name) for name in METHODS]
    assert {record.status for record in train(runs, folder).values()} == {"done"}
    return folder, runs


@pytest.mark.parametrize("number", range(len(METHODS)), ids=METHODS)
def test_run_alone_equals_the_run_in_a_cohort(
    together: tuple[Path, list[Run]], tmp_path: Path, number: int
) -> None:
    folder, runs = together
    train([TEACHER], tmp_path)
    train([runs[number]], tmp_path)
    assert numbers(tmp_path, runs[number]) == numbers(folder, runs[number])


@pytest.mark.parametrize("stop", [1, 2, 6])
def test_resumed_run_equals_the_run(
    together: tuple[Path, list[Run]], tmp_path: Path, stop: int
) -> None:
    folder, runs = together
    train([TEACHER], tmp_path)
    with pytest.raises(Stopped):
        train(runs[:2], tmp_path, stop=stop_after(stop))
    train(runs[:2], tmp_path)
    for run in runs[:2]:
        assert numbers(tmp_path, run) == numbers(folder, run)


def test_teacher_is_asked_once_for_each_view_and_only_as_far_as_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    asked: list[Tensor] = []
    seen: dict[str, list[tuple[Batch, Features]]] = {}
    ask, loss = LoadedTeacher.__call__, Learner._loss

    def note(self: LoadedTeacher, images: Tensor) -> Features:
        asked.append(images)
        return ask(self, images)

    def look(self: Learner, s: Features, t: Features, batch: Batch) -> Any:
        seen.setdefault(self.run.method, []).append((batch, t))
        assert len(s.views) == len(t.views) == len(batch.views) == self.views - 1
        return loss(self, s, t, batch)

    monkeypatch.setattr(LoadedTeacher, "__call__", note)
    monkeypatch.setattr(Learner, "_loss", look)
    runs = [taught(TEACHER, name) for name in ("mlkd", "kd", "mlkd+at")]
    train(runs, tmp_path)
    assert len(asked) == 2 * 12  # steps
    for (a, of_a), (b, of_b) in zip(seen["mlkd"], seen["kd"], strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(of_a.logits, of_b.logits)
        assert not torch.equal(a.images, a.views[0])
        assert not torch.equal(of_a.logits, of_a.views[0].logits)
    for (a, _), (b, _) in zip(seen["mlkd"], seen["mlkd+at"], strict=True):
        assert torch.equal(a.views[0], b.views[0])


def test_views_are_not_made_without_a_learner_that_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nobody wants strong views")

    train([TEACHER], tmp_path)
    monkeypatch.setattr(steps, "StrongViews", refuse)
    assert train([run := taught(TEACHER, "kd")], tmp_path)[run.id].status == "done"


def test_batch_norms_see_the_weak_view_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    order: list[Tensor] = []
    loss = Learner._loss

    def look(self: Learner, s: Features, t: Features, batch: Batch) -> Any:
        assert all(
            torch.equal(x, y) for x, y in zip(order[-2:], (batch.images, *batch.views), strict=True)
        )
        return loss(self, s, t, batch)

    build = Learner.__init__

    def hooked(self: Learner, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        self.student.register_forward_pre_hook(lambda _, x: order.append(x[0]))

    monkeypatch.setattr(Learner, "__init__", hooked)
    monkeypatch.setattr(Learner, "_loss", look)
    run = taught(TEACHER, "mlkd")
    assert train([run], tmp_path)[run.id].status == "done"
    assert len(order) > 2 * 12


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> TapeRecorder:
    """Take steps on a tape, whose learning rate is a tensor as on a GPU."""
    init = Rate.__init__

    def with_tensor(self: Rate, device: torch.device) -> None:
        init(self, device)
        self.tensor = torch.zeros(())

    recorder = TapeRecorder()
    monkeypatch.setattr(Rate, "__init__", with_tensor)
    monkeypatch.setattr(cohort, "make_steps", partial(GraphSteps, recorder=recorder))
    return recorder


def test_recorded_steps_read_the_views_of_each_step(
    recorded: TapeRecorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("graph", "eager")]
    runs = [taught(TEACHER, name) for name in ("mlkd", "kd")]
    lines: list[str] = []

    def report(_: object, line: str) -> None:
        lines.append(line)

    train([TEACHER], folders[0])
    before = recorded.replays
    train(runs, folders[0], report=report)
    assert recorded.replays - before > 10
    assert [line for line in lines if "graph" in line] == [
        f"batches and teacher: not a CUDA graph, so slower: {ON_CPU}"
    ]
    monkeypatch.setattr(cohort, "make_steps", steps.Steps)
    train([TEACHER], folders[1])
    train(runs, folders[1])
    for run in runs:
        assert numbers(folders[0], run) == numbers(folders[1], run)


def test_published_views_stay_in_the_same_memory() -> None:
    feed = Feed(TapeRecorder(), False, 1)
    assert feed.reason == ON_CPU

    def made(value: float) -> Shared:
        images, labels, index, view = (torch.full((2,), value) for _ in range(4))
        return Shared(images, labels, index, None, (view,))

    first = feed.publish(made(1.0))
    second = feed.publish(made(2.0))
    assert first.views[0] is second.views[0]
    assert first.views[0].tolist() == [2.0, 2.0]


PLUGIN = '''
"""A method for tests (2020)."""
from kdbench.method import Method


class Writes(Method):
    views = 2

    def loss(self, s, t, batch):
        {body}
        return (s.views[0].logits - t.views[0].logits).square().mean()
'''


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("batch.views[0].mul_(2)", "batch.views[0]"),
        ("t.views[0].logits.add_(1)", "the teacher's views[0].logits"),
        ("t.views[0].stages[1].data.add_(1)", "the teacher's views[0].stages[1]"),
    ],
)
def test_method_must_not_write_into_views(tmp_path: Path, body: str, name: str) -> None:
    train([TEACHER], tmp_path)
    path = tmp_path / "writes.py"
    path.write_text(PLUGIN.format(body=body).lstrip())
    run, kd = taught(TEACHER, str(path)), taught(TEACHER, "kd")
    done = train([run, kd], tmp_path)
    assert done[run.id].status == "failed"
    assert f"changes {name}" in done[run.id].reason
    assert done[kd.id].status == "done"


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"crop_pad": 0, "flip": False}])
def test_views_work_in_other_protocols(tmp_path: Path, changes: dict[str, Any]) -> None:
    training = TRAINING.model_copy(update=changes)
    teacher = alone(student="r8w6", training=training)
    run = taught(teacher, "mlkd", training=training)
    train([teacher], tmp_path)
    assert train([run], tmp_path)[run.id].status == "done"


def test_first_strong_view_is_that_of_the_run_s_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    seen: list[Tensor] = []
    loss = Learner._loss

    def look(self: Learner, s: Features, t: Features, batch: Batch) -> Any:
        seen.append(batch.views[0])
        return loss(self, s, t, batch)

    monkeypatch.setattr(Learner, "_loss", look)
    run = taught(TEACHER, "mlkd", seed=5)
    train([run], tmp_path)
    views = StrongViews(data(), batch_size=16, seed=5, crop_pad=1, flip=True)
    expected = [views("train", epoch, step) for epoch in (1, 2, 3) for step in range(4)]
    gaps = [(a - b).abs().flatten(1).amax(1).tolist() for a, b in zip(seen, expected, strict=True)]
    assert not any(map(any, gaps)), gaps
    assert records.read(tmp_path, run.id) is not None and seen[0].device == CPU
