"""The check of a GPU, with every section's code run on a CPU."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import models, sections
from benchmarks.gpu_check.ceilings import Shape, convolutions
from benchmarks.gpu_check.check import Check
from benchmarks.gpu_check.goldens import Worst
from benchmarks.gpu_check.profiling import busy, kind_of
from benchmarks.gpu_check.sizes import Sizes, small
from benchmarks.gpu_check.table import write_table
from benchmarks.plain.losses import LOSSES
from kdbench.training import graphs

ROOT = Path(__file__).parents[2]
QUICK = "environment,batches,syncs"

pytestmark = pytest.mark.timeout(1200)  # every section's code, perhaps on a busy machine


def run(out: Path, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run a small check in a process, and return its code, its lines and its output."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--small"]
    done = subprocess.run(
        [*command, "--out", str(out), "--unlimited", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in (out / "check.jsonl").read_text().splitlines()]
    return done.returncode, lines, done.stdout + done.stderr


# --- all sections ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, Any]], Path]:
    out = tmp_path_factory.mktemp("check")
    code, lines, output = run(out, "--packed", str(out))
    assert "Traceback" not in output
    return code, lines, out


@pytest.mark.slow
def test_every_section_ends_without_error(
    everything: tuple[int, list[dict[str, Any]], Path],
) -> None:
    code, lines, _ = everything
    assert not [line for line in lines if "error" in line]
    assert not [line["what"] for line in lines if line.get("ok") is False]
    states = {line["section"]: line["state"] for line in lines if "state" in line}
    assert list(states) == sections.NAMES
    assert set(states.values()) == {"ok"}
    assert code == 0


@pytest.mark.slow
def test_every_line_names_card_and_section(
    everything: tuple[int, list[dict[str, Any]], Path],
) -> None:
    _, lines, out = everything
    assert {line["card"] for line in lines} == {"cpu"}
    assert {line["section"] for line in lines} == set(sections.NAMES)
    table = (out / "table.txt").read_text().splitlines()
    assert [line.split("  ")[0] for line in table[2:]] == sections.NAMES


@pytest.mark.slow
def test_figures_are_there(everything: tuple[int, list[dict[str, Any]], Path]) -> None:
    """Look for a line of each kind that a reader of the results needs."""
    _, lines, _ = everything
    found = {(line["section"], line.get("what")) for line in lines}
    for place in (
        ("environment", "settings"), ("ceilings", "copy"), ("ceilings", "convolution"),
        ("ceilings", "convolutions of a step"), ("goldens", "golden cases of at"),
        ("precision", "crd in bf16"), ("without determinism", "varying without determinism"),
        ("steps", "cohort of 4"), ("steps", "part of a step"), ("plain", "plain step"),
        ("plain", "plain loop / cohort"), ("where it goes", "profile"),
        ("where it goes", "kernel"), ("memory", "predicted memory"), ("engine", "engine"),
        ("engine", "checkpoint of one learner"),
    ):  # fmt: skip
        assert place in found, place
    ways = [line["ways"] for line in lines if line.get("precision") == "fp32" and "ways" in line]
    assert len(ways[0]) == 7


@pytest.mark.slow
def test_steps_really_were_graphs(everything: tuple[int, list[dict[str, Any]], Path]) -> None:
    _, lines, _ = everything
    first = [line for line in lines if line.get("what") == "first steps"]
    assert {line["way"] for line in first} == {"eager", "graph"}
    assert all(line["not_graphs"] == {} for line in first)


# --- a section that fails -------------------------------------------------------------------------


def test_error_in_a_section_leaves_the_others_alive(tmp_path: Path) -> None:
    code, lines, output = run(tmp_path, "--sections", QUICK, "--plant", "batches")
    states = {line["section"]: line["state"] for line in lines if "state" in line}
    assert states == {"environment": "ok", "batches": "ERROR", "syncs": "ok"}
    (error,) = [line for line in lines if "error" in line]
    assert error["error"] == f"RuntimeError: {sections.PLANTED}"
    assert "run_one" in error["trace"]
    assert code == 1
    assert (tmp_path / "table.txt").read_text() in output


def check(tmp_path: Path, **changes: Any) -> Check:
    """Return a check of the CPU whose lines go nowhere."""
    values: dict[str, Any] = {"device": torch.device("cpu"), "card": "cpu", "sizes": small()}
    return Check(**(values | {"folder": tmp_path, "packed": tmp_path, "small": True} | changes))


def test_failed_comparison_is_not_an_error(tmp_path: Path) -> None:
    one = check(tmp_path)
    with one.section("batches", math.inf) as outcome:
        one.expect(True, "this")
        assert outcome.state == "ok"
        one.expect(False, "that")
    assert (outcome.state, outcome.failed, outcome.lines) == ("FAILED", ["that"], 2)


def test_section_leaves_out_what_it_has_no_time_for(tmp_path: Path) -> None:
    one = check(tmp_path)
    with one.section("batches", 0.0) as outcome:
        assert not one.has_time("the rest")
    assert (outcome.state, outcome.cut) == ("cut", ["the rest"])


def test_section_that_goes_on_is_interrupted() -> None:
    with pytest.raises(sections.OutOfTime), sections.interrupted_at(0.0):
        while True:
            pass


def test_interruption_is_no_failure_of_a_run() -> None:
    """Check that the engine, which records exceptions of methods, does not catch it."""
    assert not issubclass(sections.OutOfTime, Exception)


def test_sections_share_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, deadlines = check(tmp_path), {}

    def note(check: Check, section: sections.Section, deadline: float, planted: str) -> object:
        deadlines[section.name] = deadline - check.began
        return object()

    monkeypatch.setattr(sections, "run_one", note)
    sections.run_all(one, sections.NAMES, 330.0, "")
    assert list(deadlines.values()) == pytest.approx(
        [5, 17, 57, 67, 71, 77, 122, 147, 155, 230, 300, 315, 320, 330], abs=1
    )
    sections.run_all(one, ["plain", "memory"], 150.0, "")
    assert deadlines["plain"] == pytest.approx(140, abs=1)
    assert deadlines["memory"] == pytest.approx(150, abs=1)


def test_check_goes_on_in_a_new_process_if_the_device_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(sections, "lost", lambda check: True)
    monkeypatch.setattr(command.os, "execv", lambda path, words: commands.append(words))
    monkeypatch.setattr(command.faulthandler, "dump_traceback_later", lambda *a, **k: None)
    monkeypatch.setattr(command.faulthandler, "enable", lambda: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(command, "BEGAN", time.monotonic())  # not when pytest imported it
    command.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--sections", QUICK])
    (words,) = commands
    assert words[words.index("--sections") + 1] == "batches,syncs"
    assert {"--append", "--small"} <= set(words)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --out"),
        (["--seconds", "481"], "argument --seconds: 481: expected 1 to 480 seconds"),
        (["--seconds", "soon"], "argument --seconds: soon: expected 1 to 480 seconds"),
        (["--device", "cpu"], "--device cpu: needs --small"),
        (["--device", "gpu"], "--device gpu: unknown; accepted: cuda, cuda:N, cpu"),
        (["--device", "mps"], "--device mps: unknown; accepted: cuda, cuda:N, cpu"),
        (["--device", "cuda"], "--device cuda: torch finds no GPU"),
        (["--device", "cpu", "--small", "--sections", "speed"], "--sections: speed: unknown"),
        (["--device", "cpu", "--small", "--out", "FILE"], "--out FILE: File exists"),
    ],
)
def test_bad_argument_gives_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("FILE").touch()
    given = words if not words or "--out" in words else ["--out", "results", *words]
    with pytest.raises(SystemExit) as ended:
        command.options(given)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gpu_check: {message}")
    assert error.count("\n") == 1


def test_gpu_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert command.device_problem("cuda:1", False) == (
        "--device cuda:1: torch finds no such GPU; accepted here: cuda, cuda:0"
    )
    assert command.device_problem("cuda:0", False) == command.device_problem("cuda", False) == ""


# --- figures --------------------------------------------------------------------------------------


def test_table_is_made_of_complete_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, row = tmp_path / "check.jsonl", {"section": "steps", "card": "H100", "state": "ok"}
    file.write_text(json.dumps(row | {"seconds": 2, "result": "12 ms"}) + '\n{"section": "pla')
    assert not write_table(file, tmp_path / "table.txt")
    assert "steps    ok     2.0  12 ms" in capsys.readouterr().out
    file.write_text(json.dumps(row | {"state": "ERROR", "seconds": 2, "result": "lost"}))
    assert write_table(file, tmp_path / "table.txt")


def test_busy_time_counts_overlapping_kernels_once() -> None:
    assert busy([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    assert busy([]) == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sm90_xmma_wgrad_implicit_gemm_indexed_tf32f32_tilesize128x64x32", "convolution"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, int, 512>", "batch norm"),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", "elementwise"),
        ("nvjet_tst_128x64_64x8_1x2_h_bz_coopA_NNT", "product"),
        ("void at::native::reduce_kernel<512, 1, ...>", "reduction"),
        ("multi_tensor_apply_kernel<..., FusedSgdMathFunctor<float, 3>>", "optimiser"),
        ("Memcpy DtoD (Device -> Device)", "copy"),
        ("something_new", "other"),
    ],
)
def test_kernels_are_recognised(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_convolutions_of_a_network_are_counted() -> None:
    """Compare with the operations of resnet8x4's convolutions, counted by hand."""
    shapes = convolutions("resnet8x4", 100)
    assert shapes[Shape(32, 64, 3, 1, 1, 1, 32)] == 1
    assert sum(shapes.values()) == 10
    first = Shape(3, 32, 3, 1, 1, 1, 32)
    assert first.flops(2) == 2 * 2 * 32 * 32 * 32 * 3 * 9
    assert Shape(64, 128, 3, 2, 1, 1, 32).flops(1) == 2 * 16 * 16 * 128 * 64 * 9


def test_nan_is_the_worst_difference() -> None:
    worst = Worst(1, 1e-3, "a") + Worst(1, math.nan, "b") + Worst(1, 1e-9, "c")
    assert (worst.tensors, worst.relative, worst.where) == (3, math.inf, "b")


def test_every_method_of_the_column_has_a_prediction() -> None:
    assert set(models.STEP_MS) == {*LOSSES, "batch", "teacher"}
    assert models.predicted("kd", "bf16") == 0.67
    assert models.predicted("kd", "fp32") is None
    assert models.off(3.0, 2.0) == 0.5


def test_warm_up_fits_into_an_epoch_of_the_small_trainings() -> None:
    """Otherwise the comparisons of bits would never see a graph."""
    for sizes in (Sizes(), small()):
        assert min(sizes.small_steps, sizes.engine_steps, sizes.real_steps) > graphs.WARM
