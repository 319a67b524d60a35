"""The comparison of whole trainings with the authors' code: matching, differences, fake authors."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fake_authors import write_repository
from torch import nn

from benchmarks.trajectories import comparison, shims
from benchmarks.trajectories.__main__ import main
from benchmarks.trajectories.cases import CASES, REPDISTILLER
from benchmarks.trajectories.differences import differences, verdict
from benchmarks.trajectories.images import CLASSES, batch_size
from benchmarks.trajectories.matching import MatchingError, matched, selected, without
from benchmarks.trajectories.ours import Trajectory, float64
from benchmarks.trajectories.peer import Filled, Job, perturbed
from kdbench.models import zoo

PEERS = "KDBENCH_PEERS"
"""Variable with the folder of the authors' repositories."""
PAIR = ("r8w16", "r8w3")
KD = next(case for case in CASES if case.repository == REPDISTILLER and case.row == "kd")


def tensors(**sizes: int) -> dict[str, torch.Tensor]:
    """Return tensors of different values, of the given numbers of entries."""
    return {name: torch.arange(n, dtype=torch.float64) + n for name, n in sizes.items()}


# --- matching -----------------------------------------------------------------------------------


def test_tensors_match_by_name_before_order() -> None:
    assert matched(tensors(a=1, b=2), tensors(b=2, a=1)) == {"a": "a", "b": "b"}
    assert matched(tensors(x=1, y=2), tensors(b=1, a=2)) == {"x": "b", "y": "a"}


@pytest.mark.parametrize(
    ("theirs", "kdbench", "message"),
    [
        ({"x": 1, "y": 2}, {"a": 1}, "have 2 tensors, kdbench 1"),
        ({"x": 1, "y": 2}, {"a": 2, "b": 1}, r"x is \[1\], kdbench's a \[2\]"),
    ],
)
def test_other_tensors_are_refused(
    theirs: dict[str, int], kdbench: dict[str, int], message: str
) -> None:
    with pytest.raises(MatchingError, match=message):
        matched(tensors(**theirs), tensors(**kdbench))


def test_patterns_select_in_their_order() -> None:
    state = tensors(keys0=1, queries0=2, keys1=3)
    assert list(selected(state, ("queries", "keys"))) == ["queries0", "keys0", "keys1"]
    assert list(selected(state, ("",))) == list(state)
    assert list(without(state, "keys.")) == ["queries0"]
    assert list(without(state, "")) == list(state)


def test_modules_are_filled_one_after_the_other() -> None:
    state = {"s.w": torch.ones(2, 3), "s.b": torch.ones(2)}
    state |= {"t.w": torch.ones(2, 4), "t.b": torch.zeros(2)}
    filled = Filled(state)
    first, second = nn.Linear(3, 2), nn.Linear(4, 2)
    filled.fill(first)
    with pytest.raises(ValueError, match=r"no module for t\.b"):
        filled.read()
    filled.fill(second)
    with torch.no_grad():
        second.bias.add_(1)
    assert first.weight.eq(1).all()
    after = filled.read()
    assert set(after) == set(state)
    assert after["t.b"].eq(1).all()


def test_perturbation_changes_every_weight_by_its_share() -> None:
    state = {"w": torch.full((100,), 2.0, dtype=torch.float64), "n": torch.tensor(3)}
    changed = perturbed(state, 1e-3)
    assert (changed["w"] / state["w"] - 1).abs().allclose(torch.tensor(1e-3, dtype=torch.float64))
    assert len(changed["w"].unique()) == 2
    assert changed["n"] == 3
    assert perturbed(state, 0.0)["w"].equal(state["w"])


# --- differences --------------------------------------------------------------------------------


def trajectory() -> Trajectory:
    student = {"weight": torch.arange(3.0), "bn.running_mean": torch.ones(2)}
    return Trajectory(student, tensors(regressor=4), [1.0, 0.5])


def test_every_part_has_its_own_difference() -> None:
    same = trajectory()
    assert differences(same, trajectory()).largest == 0
    changed = {
        "weights": replace(same, student=same.student | {"weight": torch.zeros(3)}),
        "statistics": replace(same, student=same.student | {"bn.running_mean": torch.zeros(2)}),
        "modules": replace(same, modules={"regressor": same.modules["regressor"] * 2}),
        "losses": replace(same, losses=[1.0, 0.7]),
    }
    for part, other in changed.items():
        found = differences(other, same)
        assert getattr(found, part) == found.largest > 0.1
        assert sum(vars(found).values()) == found.largest


def test_differences_are_relative_to_entries_above_one() -> None:
    changed = replace(trajectory(), losses=[1.0, 0.5 + 1e-3])
    assert differences(changed, trajectory()).losses == pytest.approx(1e-3)
    large = replace(trajectory(), losses=[1.0, 1000.0])
    changed = replace(large, losses=[1.0, 1001.0])
    assert differences(changed, large).losses == pytest.approx(1e-3)


def test_other_steps_or_tensors_are_no_small_difference() -> None:
    with pytest.raises(ValueError, match="2 steps here, 1 there"):
        differences(trajectory(), replace(trajectory(), losses=[1.0]))
    with pytest.raises(ValueError, match="only one side has regressor"):
        differences(trajectory(), replace(trajectory(), modules={}))


def test_nan_is_never_equal() -> None:
    broken = differences(replace(trajectory(), losses=[1.0, float("nan")]), trajectory())
    assert broken.largest != broken.largest
    assert verdict(broken.largest, 1e-12) == "DIFFERS"


@pytest.mark.parametrize(
    ("difference", "sensitivity", "word"),
    [
        (1e-9, 0.0, "equal"),
        (2e-9, 0.0, "DIFFERS"),
        (2e-9, 1e-12, "DIFFERS"),
        (2e-9, 3e-12, "rounding"),
        (1e-2, 1e-3, "undecided"),
    ],
)
def test_verdict(difference: float, sensitivity: float, word: str) -> None:
    assert verdict(difference, sensitivity) == word


# --- what replaces the authors' packages --------------------------------------------------------


def test_loader_yields_epoch_after_epoch() -> None:
    epochs: list[list[tuple[torch.Tensor, ...]]]
    epochs = [[(torch.tensor(i), torch.tensor(10 + i), torch.tensor(20 + i))] for i in range(2)]
    loader = shims.Loader(epochs, 2, [torch.tensor(7), torch.tensor(8)])
    read = [[tuple(map(int, row)) for row in loader] for _ in range(2)]
    assert read == [[(0, 10, 7)], [(1, 11, 8)]]


def test_configuration_reads_files_and_options(tmp_path: Path) -> None:
    node = shims.Configuration
    cfg = node(SOLVER=node(LR=0.1, STAGES=[1], TYPE="SGD"), LOG=node(WANDB=True))
    (tmp_path / "a.yaml").write_text("SOLVER:\n  LR: 5e-2\n  TYPE: Adam\n")
    cfg.merge_from_file(str(tmp_path / "a.yaml"))
    cfg.merge_from_list(["SOLVER.STAGES", "[2, 3]", "LOG.WANDB", "False"])
    assert (cfg.SOLVER.LR, cfg.SOLVER.TYPE, cfg.SOLVER.STAGES) == (0.05, "Adam", [2, 3])
    assert cfg.LOG.WANDB is False


def test_singular_vectors_get_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "svd", torch.svd)  # restored after the test
    matrix = torch.randn(20, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = torch.svd(matrix).V.sum(1)
    shims.give_signs()
    u, values, v = torch.svd(matrix)
    assert (before < 0).any()
    assert (v.sum(1) >= 0).all()
    assert torch.allclose(u * values[:, None] @ v.mT, matrix)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_every_class_has_an_image(steps: int) -> None:
    assert steps * batch_size(steps) >= CLASSES


# --- kdbench beside a plain loop ----------------------------------------------------------------


def plain_loop(job: Job, folder: Path, *, decay: float = 5e-4) -> Trajectory:
    """Train KD by a plain loop, in place of the authors' code."""
    with float64():
        teacher, student = (zoo.create(name, num_classes=CLASSES) for name in job.pair)
        teacher.load_state_dict(job.teacher)
        teacher.eval()
        student.load_state_dict(perturbed(job.before.student, job.perturbed))
        optimizer = torch.optim.SGD(student.parameters(), 0.05, 0.9, weight_decay=decay)
        losses = []
        for number, epoch in enumerate(job.epochs):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * 0.1**number
            for images, labels, _ in epoch:
                with torch.no_grad():
                    target = (teacher(images).logits / 4).softmax(1)
                logits = student(images).logits
                kl = F.kl_div((logits / 4).log_softmax(1), target, reduction="batchmean") * 16
                loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kl
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    return Trajectory(student.state_dict(), {}, losses)


def test_equal_loop_is_equal_and_planted_decay_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = comparison.train({"kd": {}}, "crd", PAIR, epochs=2, steps=2, folder=tmp_path)
    monkeypatch.setattr(comparison, "train", lambda *args, **named: result)
    for loop, word in ((plain_loop, "equal"), (partial(plain_loop, decay=4e-4), "DIFFERS")):
        monkeypatch.setattr(comparison, "trained", loop)
        (outcome,) = comparison.compare(tmp_path, [KD], PAIR, 2, 2)
        assert outcome.verdict == word
        assert outcome.wrong == (word == "DIFFERS")
        departing = replace(outcome, case=replace(KD, departs="on purpose"))
        assert departing.verdict == ("equal" if word == "equal" else "departs: on purpose")


def test_samples_of_crd_are_kept_and_impossible_rows_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, dict[str, int]] = {"crd": {"k": 8}, "fsp": {}}
    result = comparison.train(rows, "crd", PAIR, epochs=1, steps=1, folder=tmp_path)
    ((images, labels, index),) = result.batches["train"][0]
    (samples,) = result.negatives["crd"]
    assert samples.shape == (len(images), 9)
    assert samples[:, 0].equal(index)
    label = torch.empty_like(labels).scatter_(0, index, labels)
    assert (label[samples[:, 1:]] != labels[:, None]).all()
    monkeypatch.setattr(comparison, "train", lambda *args, **named: result)
    fsp = next(case for case in CASES if case.row == "fsp")
    (outcome,) = comparison.compare(tmp_path, [fsp], PAIR, 1, 1)
    assert outcome.verdict.startswith("skipped: FSP needs equal channels")
    assert not outcome.wrong
    result.skipped, result.failed = {}, {"fsp": "loss not finite"}
    (outcome,) = comparison.compare(tmp_path, [fsp], PAIR, 1, 1)
    assert (outcome.verdict, outcome.wrong) == ("FAILED: kdbench: loss not finite", True)


# --- the command --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--peers: a folder with checkouts of RepDistiller"),
        (["--methods", "kdd"], "--methods: kdd is none of ab, at"),
        (["--steps", "0"], "--epochs and --steps: 1 or more"),
        (["--pair", "resnet8", "resnet9"], "--pair: two different networks"),
        (["--pair", "resnet8", "resnet8"], "--pair: two different networks"),
        (["--json", "/nowhere/a.json"], "--json: /nowhere is no folder"),
    ],
)
def test_mistakes_end_with_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "RepDistiller").mkdir()
    given = ["--peers", str(tmp_path), *arguments] if arguments else []
    assert main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fake_authors_train_as_kdbench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a main of the authors' form in a separate process; then one with a planted mistake."""
    short = ["--pair", *PAIR, "--epochs", "2", "--steps", "2"]
    write_repository(tmp_path / "right" / "RepDistiller")
    file = tmp_path / "lines.jsonl"
    arguments = ["--peers", str(tmp_path / "right"), *short, "--json", str(file)]
    assert main([*arguments, "--methods", "cc", "nst"]) == 1  # it has no nst
    lines = {line["method"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert lines["cc"]["verdict"] == "equal"
    assert max(lines["cc"]["differences"].values()) < 1e-11
    assert lines["nst"]["verdict"] == "FAILED: KeyError: 'nst'"
    write_repository(tmp_path / "wrong" / "RepDistiller", decay=4e-4)
    assert main(["--peers", str(tmp_path / "wrong"), *short, "--methods", "cc"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("DIFFERS")


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get(PEERS), reason=f"{PEERS} names no folder of the repositories"
)
@pytest.mark.timeout(3600)
def test_authors_train_as_kdbench(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--peers", os.environ[PEERS]])
    assert code == 0, capsys.readouterr().out


def test_every_case_names_its_row_once() -> None:
    names = [(case.repository.name, case.row) for case in CASES]
    assert len(names) == len(set(names))
