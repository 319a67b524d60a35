"""Runs with ``compile: true``: different rounding, but the same invariants."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rank_processes import DIGITS, float64
from small_grids import mistakes, write
from tiny_runs import TRAINING, alone, numbers, stop_after, taught, train

from kdbench.grid.settings import Training
from kdbench.runs import records
from kdbench.training import checkpoint, compiled
from kdbench.training.cohort import Stopped

# The inductor of torch 2.11 uses this function of torch itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")

COMPILED = TRAINING.model_copy(update={"compile": True})


def test_compile_true_is_part_of_the_protocol_and_false_is_not() -> None:
    assert "compile" not in TRAINING.canonical
    off = Training.model_validate(TRAINING.model_dump() | {"compile": False})
    assert off == TRAINING
    assert "compile" not in alone().to_json()["training"]
    assert COMPILED.canonical == TRAINING.canonical | {"compile": True}
    assert alone(training=COMPILED).id != alone().id


def test_missing_compiler_is_reported_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    grid = write(tmp_path, protocol={"preset": "demo", "epochs": 1, "compile": True})
    [message] = mistakes("run", "--grid", grid, "--runs", tmp_path / "runs")
    assert message.startswith("protocol.compile: true: on CPUs this needs a C++ compiler")
    assert "CXX=no-such-compiler" in message
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_compiling_on_gpus_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    assert "triton" in compiled.why_unavailable(torch.device("cuda", 0))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_no_kernel_is_chosen_by_its_time(kind: str) -> None:
    options = compiled._options(torch.device(kind))
    assert options.keys() <= set(torch._inductor.list_options())
    tuning = ("max_autotune", "max_autotune_gemm", "coordinate_descent_tuning", "shape_padding")
    assert not any(options[name] for name in (*tuning, "triton.multi_kernel"))
    assert options.get("deterministic", False) == (kind == "cuda")


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, compiled.COMPILERS)), reason="no C++ compiler"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_compiled_learners_keep_every_invariant(tmp_path: Path) -> None:
    """Runs alone, in a cohort, and stopped and resumed give the same bits."""
    folder = tmp_path / "whole"
    teacher = alone(student="r8w4", training=COMPILED)
    assert train([teacher], folder)[teacher.id].status == "done"
    runs = [taught(teacher, name, training=COMPILED) for name in ("kd", "semckd+at", "fitnets")]
    runs.append(taught(teacher, "kd", student="v5w4", training=COMPILED))
    results = train(runs, folder)
    assert {results[run.id].status for run in runs} == {"done"}

    for run in runs:
        compiled.discard_compiled()
        apart = tmp_path / run.id
        shutil.copytree(records.folder(folder, teacher.id), apart / teacher.id)
        with pytest.raises(Stopped):
            train([run], apart, stop=stop_after(6))
        train([run], apart)
        assert numbers(apart, run) == numbers(folder, run), run.method


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_compiled_runs_equal_plain_runs_but_for_rounding(tmp_path: Path) -> None:
    """Compare in float64, where rounding stays small over the steps."""
    teacher = alone(student="r8w4")
    train([teacher], tmp_path / "school")
    weights = []
    for training in (TRAINING, COMPILED):
        folder = tmp_path / str(training.compile)
        shutil.copytree(tmp_path / "school", folder)
        runs = [taught(teacher, name, training=training) for name in ("kd", "semckd+at", "fitnets")]
        with float64():
            results = train(runs, folder)
        assert {record.status for record in results.values()} == {"done"}
        weights.append(
            [checkpoint.read(folder / run.id / "checkpoint.pt")["model"] for run in runs]
        )
    for plain, other in zip(*weights, strict=True):
        assert any(not torch.equal(plain[name], other[name]) for name in plain)
        for name, value in plain.items():
            assert value.dtype in (torch.float64, torch.int64)
            atol = DIGITS * float(value.abs().max())
            torch.testing.assert_close(other[name], value, rtol=0, atol=atol, msg=name)


@pytest.mark.slow
@needs_compiler
def test_too_many_variants_fail_instead_of_running_uncompiled() -> None:
    compiled.discard_compiled()
    call = compiled.compiled(torch.nn.Linear(2, 2))
    with torch._dynamo.config.patch(recompile_limit=1):
        call(torch.zeros(3, 2))
        with pytest.raises(Exception, match="recompile"):
            call(torch.zeros(4, 2))


OBSERVE = """
import json, torch
from torch._inductor import config
from torch._inductor.graph import GraphLowering
from kdbench.training.compiled import NO_TIMING, compiled

seen, run = [], GraphLowering.run
known = [name for name in NO_TIMING if name in torch._inductor.list_options()]

def observed(self, *args):
    now = config.get_config_copy()
    seen.append({name: now[name] for name in known})
    return run(self, *args)

GraphLowering.run = observed
outside = config.max_autotune
compiled(torch.nn.Linear(2, 2))(torch.ones(3, 2)).sum().backward()
print(json.dumps([outside, seen, {name: NO_TIMING[name] for name in known}]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_environment_variables_of_inductor_choose_no_kernel(tmp_path: Path) -> None:
    """Forward and backward are compiled with the options of kdbench, not of the environment."""
    variables = ("MAX_AUTOTUNE", "COORDINATE_DESCENT_TUNING", "BENCHMARK_FUSION", "MULTI_KERNEL")
    env = os.environ | {f"TORCHINDUCTOR_{name}": "1" for name in variables}
    env |= {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    output = subprocess.run(
        [sys.executable, "-c", OBSERVE], env=env, capture_output=True, text=True, check=True
    ).stdout
    outside, seen, wanted = json.loads(output)
    assert outside is True
    assert seen == [wanted, wanted]
