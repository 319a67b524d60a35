"""Networks that learn together inside one student: weights, curves, records and checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import rank_processes
import torch
from peer_methods import mutual, plugin
from tiny_runs import alone, numbers, stop_after, taught, train

from kdbench.grid.run import Run
from kdbench.method import Group, Incompatible
from kdbench.models import zoo
from kdbench.models.peers import Peers, networks, shared_stages
from kdbench.runs import history, records
from kdbench.training import checkpoint
from kdbench.training.build import build_network, build_student
from kdbench.training.cohort import Cohort, Stopped
from kdbench.training.ranks import ALONE
from tests.training.test_compiled import COMPILED, needs_compiler
from tests.training.test_ranks import same_curve

NAMES = ("ensemble", "mean")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plugin(tmp_path_factory.mktemp("plugins"))


def of(path: Path) -> list[Run]:
    """A group with shared stages, with a rescaled gradient, and without anything shared."""
    return [
        mutual(path),
        mutual(path, shared=0, rescale=True),
        mutual(path, peers=2, share=False),
    ]


# --- networks -------------------------------------------------------------------------------------


def test_deployed_network_begins_as_that_of_every_other_row(path: Path) -> None:
    for run in of(path):
        student = build_student(run, num_classes=10, in_channels=1)
        first, second = networks(student)[:2]
        expected = build_network(alone(), num_classes=10, in_channels=1).state_dict()
        assert all(torch.equal(x, expected[name]) for name, x in first.state_dict().items())
        assert first.state_dict().keys() == expected.keys()
        assert not torch.equal(first.head.weight, second.head.weight)


def test_shared_stages_exist_and_run_once() -> None:
    group = Group(3, shared=-1)
    students = [zoo.create("r8w3", num_classes=10, in_channels=1) for _ in range(3)]
    whole = [network.state_dict() for network in students]
    images = torch.randn(4, 1, 8, 8)
    student = Peers(students, group)
    assert len([k for k in student.state_dict() if k.endswith("conv1.weight")]) < 3 * len(
        [k for k in whole[0] if k.endswith("conv1.weight")]
    )
    features = student(images)
    assert [x.peers for x in features.peers] == [()] * 3
    assert features.logits is features.peers[0].logits
    assert all(peer.stages[-2] is features.stages[-2] for peer in features.peers)
    assert all(peer.stages[-1] is not features.stages[-1] for peer in features.peers[1:])
    tracked = {k: int(x) for k, x in student.state_dict().items() if "num_batches" in k}
    assert set(tracked.values()) == {1}
    # The first network computes the same bits on its own.
    assert torch.equal(networks(student.eval())[0](images).logits, student(images).logits)


def test_rescaling_divides_what_enters_the_shared_stages_and_nothing_else() -> None:
    gradients = []
    for rescale in (False, True):
        torch.manual_seed(0)
        students = [zoo.create("r8w3", num_classes=10, in_channels=1) for _ in range(4)]
        student = Peers(students, Group(4, shared=1, rescale=rescale)).double()
        features = student(torch.randn(4, 1, 8, 8, dtype=torch.float64))
        torch.stack([x.logits for x in features.peers]).square().sum().backward()
        gradients.append({n: p.grad for n, p in student.named_parameters()})
    shared = ("networks.0.conv1", "networks.0.bn1", "networks.0.layer1")
    for name, plain in gradients[0].items():
        divisor = 4 if name.startswith(shared) else 1
        rescaled = gradients[1][name]
        assert plain is not None
        assert rescaled is not None
        assert torch.allclose(rescaled, plain / divisor, rtol=1e-12, atol=0), name


@pytest.mark.parametrize(
    ("shared", "expected"), [(None, None), (0, 0), (3, 3), (-1, 2), (-3, 0), (-4, ""), (4, "")]
)
def test_negative_counts_of_shared_stages_are_from_the_end(
    shared: int | None, expected: int | str | None
) -> None:
    network = zoo.create("r8w3", num_classes=10, in_channels=1)
    if expected == "":
        with pytest.raises(Incompatible, match=rf"{shared}: the network has 3; expected -3 to 3"):
            shared_stages(network, Group(2, shared))
    else:
        assert shared_stages(network, Group(2, shared)) == expected


def test_one_network_is_no_group() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Peers([zoo.create("r8w3", num_classes=10, in_channels=1)], Group(1))


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of groups and of one network, trained as one cohort."""
    folder = tmp_path_factory.mktemp("together")
    found = train([*of(path), alone()], folder)
    assert [r.status for r in found.values()] == ["done"] * 4, [r.reason for r in found.values()]
    return folder


def test_same_alone_and_in_a_cohort(path: Path, together: Path, tmp_path: Path) -> None:
    for run in (*of(path), alone()):
        train([run], tmp_path)
        assert numbers(together, run) == numbers(tmp_path, run)


@pytest.mark.parametrize("steps", [1, 4, 6, 11])
def test_same_if_stopped_and_resumed(
    path: Path, together: Path, tmp_path: Path, steps: int
) -> None:
    with pytest.raises(Stopped):
        train(of(path), tmp_path, stop=stop_after(steps))
    train(of(path), tmp_path)
    for run in of(path):
        assert numbers(together, run) == numbers(tmp_path, run)


def test_answers_are_in_record_and_curve(path: Path, together: Path) -> None:
    for run in of(path):
        record = records.read(together, run.id)
        assert record is not None
        assert record.result is not None
        assert record.result.answers is not None
        assert sorted(record.result.answers) == sorted(NAMES)
        rows = history.read(together, run.id, record=record)
        for name in NAMES:
            assert rows[-1][f"test_acc_{name}"] == record.result.answers[name]
        text = (records.folder(together, run.id) / "record.json").read_text()
        assert json.loads(text)["result"]["answers"] == record.result.answers
        assert records.Record.from_json(text) == record
    plain = (records.folder(together, alone().id) / "record.json").read_text()
    assert "answers" not in plain


def test_final_checkpoint_holds_the_deployed_network(path: Path, together: Path) -> None:
    for run in of(path):
        record = records.read(together, run.id)
        assert record is not None
        state = checkpoint.trained(records.folder(together, run.id) / "checkpoint.pt", record)
        zoo.create("r8w3", num_classes=10, in_channels=1).load_state_dict(state["model"])


def test_costs_are_of_the_deployed_network(path: Path, together: Path) -> None:
    single = records.read(together, alone().id)
    assert single is not None
    assert single.cost is not None
    for run in of(path):
        record = records.read(together, run.id)
        assert record is not None
        assert record.cost is not None
        for name in ("params", "params_deployed", "macs"):
            assert getattr(record.cost, name) == getattr(single.cost, name)
        student = build_student(run, num_classes=10, in_channels=1)
        whole = sum(p.numel() for p in student.parameters())
        mix = 4 * (networks(student)[0].head.in_features + 1)
        assert record.cost.params_extra == whole - single.cost.params + mix


def test_finished_from_the_final_checkpoint(
    path: Path, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = of(path)[0]
    train([run], tmp_path)
    for name in ("record.json", "history.csv"):
        (records.folder(tmp_path, run.id) / name).unlink()
    monkeypatch.setattr(Cohort, "_train_epoch", lambda *_: pytest.fail("trained again"))
    train([run], tmp_path)
    assert numbers(tmp_path, run) == numbers(together, run)


def test_deployed_network_can_teach(path: Path, together: Path) -> None:
    teacher = of(path)[1]
    run = taught(teacher, "kd")
    assert train([run], together)[run.id].status == "done"


def test_same_on_two_ranks(path: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    rank_processes.train(ALONE, of(path), one)
    rank_processes.together(2, rank_processes.train, of(path), two)
    for run in of(path):
        same_curve(one, two, run)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_same_compiled_but_for_rounding(path: Path, tmp_path: Path) -> None:
    """In float64, and bit for bit if alone."""
    plain, whole, apart = (tmp_path / name for name in ("plain", "whole", "apart"))
    for folder, runs in ((plain, of(path)), (whole, compiled_runs(path))):
        rank_processes.train(ALONE, runs, folder)
    for run, other in zip(of(path), compiled_runs(path), strict=True):
        rank_processes.train(ALONE, [other], apart)
        assert numbers(apart, other) == numbers(whole, other)
        a, b = (
            checkpoint.read(records.folder(folder, x.id) / "checkpoint.pt")["model"]
            for folder, x in ((plain, run), (whole, other))
        )
        for name, value in a.items():
            atol = rank_processes.DIGITS * float(value.abs().max())
            torch.testing.assert_close(b[name], value, rtol=0, atol=atol, msg=name)


def compiled_runs(path: Path) -> list[Run]:
    return [replace(run, training=COMPILED) for run in of(path)]


def test_bf16_groups_train(path: Path, tmp_path: Path) -> None:
    training = alone().training.model_copy(update={"precision": "bf16"})
    run = replace(of(path)[1], training=training)
    result = train([run], tmp_path)[run.id]
    assert result.status == "done", result.reason


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ("{'Top-1': s.logits}", "the name 'Top-1': expected lower-case letters, digits, _"),
        ("{'x': s.embedding}", "x has shape [2, 12], expected [B, K] or [P, B, K]"),
        ("{'x': s.logits[None, None]}", "x has shape [1, 1, 2, 10], expected [B, K] or"),
    ],
)
def test_wrong_answers_end_the_run(path: Path, tmp_path: Path, answers: str, reason: str) -> None:
    begin, _, end = path.read_text().partition("        logits = torch.stack")
    assert end
    other = tmp_path / "wrong.py"
    other.write_text(f"{begin}        return {answers}\n")
    run = mutual(other)
    record = train([run], tmp_path / "runs")[run.id]
    assert record.status == "failed"
    assert record.reason.startswith(f"Mutual.answers: {reason}")


def test_two_groups_in_a_row_are_refused(path: Path) -> None:
    run = of(path)[0]
    both = replace(run, terms=(*run.terms, replace(run.terms[0], method="other")))
    with pytest.raises(ValueError, match=r"mutual\.py and other both bring peers"):
        build_student(both, num_classes=10, in_channels=1)
