"""FCFD beyond the golden files: its paths, its variants, and the pairs that it cannot bridge."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_features import batch, build, features, setup
from tiny_runs import alone, numbers, stop_after, taught, train

from kdbench.cost.counting import DataShape, network_cost, term_cost
from kdbench.grid.run import Term
from kdbench.method import Features, Incompatible
from kdbench.models import upper_part
from kdbench.registry import lookup
from kdbench.registry.toy_networks import Toy
from kdbench.training.cohort import Stopped


def pair(**student: Any) -> tuple[Features, Features]:
    return features(6, (4, 6, 8), **student), features(6, (5, 7, 9), seed=1)


@given(st.integers(0, 1000), st.integers(0, 5))
def test_paths_are_drawn_without_replacement_and_from_the_step_alone(step: int, paths: int) -> None:
    method: Any = build("fcfd", *pair(), paths=paths)
    drawn = method.draw(replace(batch(), step=step, epoch=3))
    assert len(set(drawn)) == len(drawn) == min(paths, 4)
    assert {path.k for path in drawn} <= {1, 2}
    assert drawn == method.draw(replace(batch(), step=step))


def test_its_cost_is_counted_on_shapes_alone(caplog: pytest.LogCaptureFixture) -> None:
    shape = DataShape(channels=1, size=8, classes=10, train=70, test=20)
    term = Term("fcfd", 1.0, lookup.hyper("fcfd", {}))
    with caplog.at_level("DEBUG"):
        cost = term_cost("r8w3", "r8w4", shape, 16, term)
    assert not caplog.records
    # All bridges but one out of the last stage, and parts of both networks in each step.
    method = build("fcfd", *(features(channels=(w, 2 * w, 4 * w)) for w in (3, 4)))
    assert cost.parameters == sum(p.numel() for p in method.parameters())
    assert cost.macs > network_cost("r8w3", shape).macs


def test_every_path_is_drawn() -> None:
    method: Any = build("fcfd", *pair(), paths=1)
    drawn = [method.draw(replace(batch(), step=step))[0] for step in range(400)]
    counts = [drawn.count(path) for path in method.choices]
    assert len(counts) == 4
    assert min(counts) > 70


@pytest.mark.parametrize(
    ("mixed", "first"),
    [("student_first", {True}), ("teacher_first", {False}), ("both", {True, False})],
)
def test_order_of_mixed_paths(mixed: str, first: set[bool]) -> None:
    method: Any = build("fcfd", *pair(), mixed=mixed)
    assert {path.student_first for path in method.choices} == first
    assert len(method.to_student) == (0 if mixed == "student_first" else 2)


def test_without_mixed_paths_only_bridged_maps_are_matched() -> None:
    s, t = pair()
    method: Any = build("fcfd", s, t, mixed="none", weight=3.0, warmup=0.0)
    total = torch.zeros(())
    for bridge, x, y in zip(method.to_teacher, s.stages, t.stages, strict=True):
        u = torch.nn.functional.leaky_relu(bridge(x), 0.1)
        total = total + (u - y).square().mean()
    gap = u.relu().mean((2, 3)) - y.mean((2, 3))
    expected = 3 * (total + gap.square().mean())
    assert torch.allclose(method.loss(s, t, batch(6)), expected)


def test_weight_of_the_gaps_grows_in_the_first_epochs() -> None:
    s, t = pair()
    method = build("fcfd", s, t, mixed="none", warmup=20.0)
    first, tenth, last = (
        method.loss(s, t, replace(batch(6), epoch=epoch, epochs=240)).item()
        for epoch in (1, 10, 200)
    )
    assert first == pytest.approx(last / 20)
    assert tenth == pytest.approx(last / 2)


def test_bridges_to_maps_before_a_relu_are_linear() -> None:
    s, t = pair()
    t = replace(t, stages=t.preacts)
    method: Any = build("fcfd", s, t, mixed="none", warmup=0.0)
    gaps = [
        (bridge(x) - y).square().mean()
        for bridge, x, y in zip(method.to_teacher, s.stages, t.stages, strict=True)
    ]
    pooled = method.to_teacher[-1](s.stages[-1]).relu().mean((2, 3))
    gaps.append((pooled - t.stages[-1].relu().mean((2, 3))).square().mean())
    assert torch.allclose(method.loss(s, t, batch(6)), 5 * torch.stack(gaps).sum())


def test_mixed_paths_train_the_student_and_leave_its_batch_norms() -> None:
    small, large = Toy(), Toy((5, 7, 10)).eval().requires_grad_(False)
    images = torch.randn(6, 3, 8, 8)
    t = large(images)
    s = small(images).detached()
    made = setup(
        s, t, student_from=upper_part.of_live(small), teacher_from=upper_part.of_frozen(large)
    )
    cls: Any = lookup.load("fcfd")
    method = cls(made, mixed="teacher_first", paths=2)
    before = {name: x.clone() for name, x in small.named_buffers()}
    method.loss(s, t, batch(6)).backward()
    assert all(torch.equal(x, before[name]) for name, x in small.named_buffers())
    reached = {name for name, p in small.named_parameters() if p.grad is not None}
    assert {"blocks.2.0.weight", "fc.weight"} <= reached
    assert "first.0.weight" not in reached
    assert "student_from" not in dict(method.named_modules())
    assert all(name.startswith("to_") for name, _ in method.named_parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ({"channels": (4, 6)}, {}, "the student has 2 stages and the teacher 3"),
        (
            {"sizes": (8, 8, 4)},
            {"sizes": (8, 2, 2)},
            "in stage 2 they are 8x8 and 2x2",
        ),
        ({"sizes": (7, 4, 2)}, {"sizes": (4, 4, 2)}, "in stage 1 they are 7x7 and 4x4"),
    ],
)
def test_pairs_that_cannot_be_bridged(
    student: dict[str, Any], teacher: dict[str, Any], message: str
) -> None:
    with pytest.raises(Incompatible, match=message):
        build("fcfd", features(**student), features(seed=1, **teacher))


@pytest.mark.parametrize("sizes", [(8, 8, 4), (8, 4, 4), (4, 2, 2), (16, 8, 4)])
def test_maps_of_twice_the_size_are_bridged(sizes: tuple[int, ...]) -> None:
    s, t = features(6, (4, 6, 8), sizes), features(6, (5, 7, 9), (8, 4, 2), seed=1)
    try:
        method = build("fcfd", s, t, mixed="none")
    except Incompatible:
        pytest.fail("these sizes differ by a factor of 2 at most")
    assert method.loss(s, t, batch(6)).isfinite()


def test_networks_that_learn_together_are_refused() -> None:
    s, t = pair()
    with pytest.raises(Incompatible, match="one student and of a teacher's network"):
        lookup.load("fcfd")(setup(s, t, student_from=None))


def test_negative_number_of_paths() -> None:
    with pytest.raises(ValueError, match="paths is -1, expected 0 or more"):
        build("fcfd", *pair(), paths=-1)


@pytest.mark.parametrize(("large", "small"), [("wrn_10_1", "r8w3"), ("v8w8", "v8w4")])
def test_alone_in_a_cohort_and_resumed_it_is_the_same(
    tmp_path: Path, large: str, small: str
) -> None:
    teacher = alone(student=large)
    runs = [taught(teacher, name, student=small) for name in ("kd", "fcfd", "at")]
    folders = [tmp_path / name for name in ("alone", "cohort", "resumed")]
    for folder, group in zip(folders, (runs[1:2], runs, runs[1:2]), strict=True):
        train([teacher], folder)
        if folder.name == "resumed":
            with pytest.raises(Stopped):
                train(group, folder, stop=stop_after(6))
        record = train(group, folder)[runs[1].id]
        assert record.status == "done", record.reason
    found = [numbers(folder, runs[1]) for folder in folders]
    assert found[0] == found[1] == found[2]
