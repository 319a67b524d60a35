"""``kdbench doctor --tune``: real measurements, their summary, and when they are saved."""

import io
import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from kdbench.cli import main
from kdbench.cost import saved_tuning, throughput, tune
from kdbench.cost.saved_tuning import MeasuredSplit, Tuning
from kdbench.cost.throughput import CoreSplit, Workload
from kdbench.errors import UserError

HALF = CoreSplit(precision="bf16")
SMALL = Workload("r8w4", "r8w3", batch_size=4, channels=1, size=8, classes=10)
GRID = """
name: small
title: Small
dataset: {name: digits, per_class: 7}
protocol: {preset: demo, batch_size: 4}
seeds: [0]
pairs: [r8w4 -> r8w3, r8w4 -> v5w4]
methods: [kd]
"""
RATES = {
    CoreSplit(2): [3.0, 9.0, 4.0],
    CoreSplit(1, 2): [1.0, 2.5, 3.0],
    CoreSplit(): [2.0] * 3,
    HALF: [1.3] * 3,
}


def text(renderable: RenderableType) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(renderable, highlight=False, markup=False)
    return captured.get()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, no GPU, and no other load."""
    monkeypatch.setattr(saved_tuning, "cores", lambda: 2)
    monkeypatch.setattr("kdbench.runs.environment.cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.0, 0.0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@given(st.integers(1, 200))
def test_splits_never_exceed_the_cores(cores: int) -> None:
    splits = throughput.core_splits(cores)
    assert splits[0] == CoreSplit(cores, 1)
    assert {CoreSplit(1, cores), CoreSplit()} <= set(splits)
    assert len(set(splits)) == len(splits)
    assert all(1 <= split.workers * split.threads <= cores for split in splits)


def test_only_steps_finished_in_time_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])

    def step() -> None:
        clock[0] += 2.0 if clock[0] < 6 else 0.5  # the last steps run alone, so they are faster

    assert throughput._rate(step, 6.2) == pytest.approx(3 / 6)
    clock[0] = 0.0
    assert throughput._rate(step, 0.1) == pytest.approx(2 / 4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_step_trains_the_student(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = throughput.Learner

    def learner(*args: object, **named: object) -> object:
        made.append(original(*args, **named))  # type: ignore[arg-type]
        return made[0]

    monkeypatch.setattr(throughput, "Learner", learner)
    step = throughput.make_step(SMALL, precision, torch.device("cpu"))  # type: ignore[arg-type]
    before = [p.detach().clone() for p in made[0].student.parameters()]
    for _ in range(6):  # more than its epoch has
        step()
    assert made[0].steps_done == 6
    assert not bool(made[0].sums.broken)
    after = list(made[0].student.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_tuning_for_a_grid_is_saved(
    tmp_path: Path, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From end to end, with real processes."""
    monkeypatch.setattr(throughput, "SECONDS", 0.6)
    monkeypatch.setenv("KDBENCH_MACHINE", str(tmp_path / "machine.json"))
    grid = tmp_path / "small.yaml"
    grid.write_text(GRID)
    done = CliRunner().invoke(main, ["doctor", "--tune", "--grid", str(grid)])
    assert done.exit_code == 0, done.output
    assert str(SMALL) in done.output
    kept = saved_tuning.load()
    assert kept is not None
    assert [(way.workers, way.threads) for way in kept.ways] == [(2, 1), (1, 2), (1, 1)]
    assert f"executor: {kept.best()}" in done.output
    assert json.loads((tmp_path / "machine.json").read_bytes()).keys() == {
        saved_tuning.machine_name()
    }
    output = " ".join(CliRunner().invoke(main, ["doctor"]).output.split())
    assert f"executor: {kept.best()}" in output


def test_dead_process_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="one of 2 processes died"):
        throughput.measure(Workload(teacher="nonsense"), [CoreSplit(2)], rounds=1, seconds=0.1)
    assert "nonsense" in capfd.readouterr().err


def test_rates_are_medians_of_rounds(quiet: None) -> None:
    tuning = tune.summary(SMALL, RATES)
    assert [split.steps_per_s for split in tuning.ways] == [4.0, 2.5, 2.0]
    assert tuning.bf16 == 0.65
    rows = [line.split() for line in text(tune.table(SMALL, RATES)).splitlines()]
    assert ["2", "1", "fp32", "4.00", "3.00", "to", "9.00", "16", "2.00"] in rows
    assert ["1", "1", "bf16", "1.30", "1.30", "to", "1.30", "5", "0.65"] in rows


def test_measurement_on_a_busy_machine_is_not_saved(
    quiet: None, monkeypatch: pytest.MonkeyPatch, machine_file: Path
) -> None:
    monkeypatch.setattr(tune, "measure", lambda subject, slots: RATES)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    assert "not saved: the load was already 0.5" in text(tune.tune(SMALL))
    assert not machine_file.exists()


def test_more_threads_are_only_recommended() -> None:
    ways = (
        MeasuredSplit(workers=4, threads=1, steps_per_s=3.0),
        MeasuredSplit(workers=2, threads=2, steps_per_s=4.0),
    )
    line, _ = tune.advice(Tuning(subject="", ways=ways, bf16=0.5))
    assert line == (
        "executor: {workers: 2, threads: 2}   # set this in a grid before its first run, since "
        "threads change the rounding of sums"
    )
    line, _ = tune.advice(Tuning(subject="", ways=ways[:1], bf16=0.5))
    assert line.startswith(
        "executor: {workers: 4, threads: 1}   # kdbench run does this by default"
    )


@pytest.mark.parametrize(
    ("bf16", "fast", "expected"),
    [
        (0.65, False, "0.65 times the speed of fp32 on X, which has no AMX: leave precision at"),
        (1.01, True, "1.01 times the speed of fp32 on X: leave precision at fp32"),
        (
            2.5,
            True,
            "2.50 times the speed of fp32 on X: protocol.precision: bf16 pays, but changes",
        ),
    ],
)
def test_precision_follows_the_measurement(bf16: float, fast: bool, expected: str) -> None:
    assert expected in saved_tuning.precision_advice(bf16, "X", fast)


def test_processes_prepare_their_device_for_each_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepared: list[tuple[object, ...]] = []
    sent: list[object] = []

    class Ends:
        """Stands for the barrier and the pipe of one process."""

        def wait(self, patience: float) -> None:
            pass

        def send(self, rates: object) -> None:
            sent.append(rates)

    def prepare(*arguments: object) -> None:
        prepared.append(arguments)

    monkeypatch.setattr(throughput, "prepare", prepare)

    def built(*arguments: object) -> object:
        prepared.append(("built",))
        return lambda: None

    monkeypatch.setattr(throughput, "make_step", built)
    monkeypatch.setattr(throughput, "keep_memory", lambda: None)
    monkeypatch.setattr(throughput.signal, "signal", lambda *_: None)
    monkeypatch.setattr(throughput, "_rate", lambda step, seconds: 1.0)
    order, ends = [CoreSplit(), HALF, CoreSplit(2)], Ends()
    throughput._process(SMALL, order, 0.1, "cpu", 0, ends, ends)  # type: ignore[arg-type]
    cpu = torch.device("cpu")
    each = [(cpu, "fp32"), (cpu, "bf16"), (cpu, "fp32")]
    assert prepared == [(cpu,), ("built",), ("built",), *each]
    assert sent == [[1.0] * 3]


def test_grid_option_needs_tune(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", "--grid", str(tmp_path / "g.yaml")])
    assert done.exit_code == 2
    assert "--grid and --set need --tune" in done.output
