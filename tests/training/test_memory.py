"""Free memory, and learners that run out of memory."""

import gc
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import CPU, alone, numbers, taught, train

from kdbench.runs import records
from kdbench.training import cohort, memory
from kdbench.training.learner import Learner
from kdbench.training.objective import Loss
from tests.whole.test_invariants import plugin

TEACHER = alone(student="r8w4")

# --- what is free --------------------------------------------------------------------------------


def system(folder: Path, available: int, cgroup: str = "") -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 999 kB\nMemAvailable:   {available} kB\n")
    (folder / "self" / "cgroup").write_text(cgroup)
    return folder


def group(folder: Path, names: Sequence[str], values: Sequence[object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, values, strict=True):
        (folder / name).write_text(f"{value}\n")


def test_free_memory_is_minimum_of_system_and_cgroups(tmp_path: Path) -> None:
    proc = system(tmp_path / "proc", 1000, "1:cpu,memory:/job/step\n0::/job/step\n")
    groups = tmp_path / "cgroup"
    assert memory.free_memory(proc, groups) == 1024_000
    new = ("memory.max", "memory.current", "memory.stat")
    group(groups / "job" / "step", new, ("max", 5, "anon 1\ninactive_file 1"))
    assert memory.free_memory(proc, groups) == 1024_000
    group(groups / "job", new, (9000, 5000, "anon 1\ninactive_file 700"))
    assert memory.free_memory(proc, groups) == 4700
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    group(groups / "memory", old, (4000, 1000, "total_inactive_file 50"))
    assert memory.free_memory(proc, groups) == 3050


def test_without_system_files_free_memory_is_all_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.free_memory(tmp_path, tmp_path) == pytest.approx(memory_of_this_machine())

    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(memory.os, "sysconf", unknown)
    assert memory.free_memory(tmp_path, tmp_path) is None


def memory_of_this_machine() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# --- running out ---------------------------------------------------------------------------------

GREEDY = '''
"""A method that runs out of memory in its fifth step (2020)."""
import torch
from kdbench.method import Method


class Exhausts(Method):
    def loss(self, s, t, batch):
        if batch.step == 5:
            raise {error}
        return s.logits.square().mean()
'''


@pytest.mark.parametrize(
    "error", ['torch.OutOfMemoryError("CUDA out of memory.")', 'MemoryError("no more")']
)
def test_learner_out_of_memory_fails_alone(tmp_path: Path, error: str) -> None:
    train([TEACHER], tmp_path / "runs")
    name = error.partition("(")[0].rpartition(".")[2]
    path = plugin(tmp_path, f"exhausts_{name.lower()}", GREEDY.format(error=error))
    good, bad = taught(TEACHER, "kd"), taught(TEACHER, path)
    written = train([bad, good], tmp_path / "runs")
    assert written[good.id].status == "done"
    assert written[bad.id].status == "failed"
    assert written[bad.id].reason.startswith(f"{name}: ")
    assert written[bad.id].reason.endswith("a smaller executor.cohort or batch_size needs less)")
    without_bad = tmp_path / "alone"
    train([TEACHER], without_bad)
    train([good], without_bad)
    assert numbers(without_bad, good) == numbers(tmp_path / "runs", good)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("a bug"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_exhausted_memory_are_recognised(error: Exception, expected: bool) -> None:
    assert memory.is_out_of_memory(error) is expected


def test_memory_of_a_failed_step_is_freed_before_it_is_returned_to_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    maps: list[weakref.ref[torch.UntypedStorage]] = []
    loss = Learner._loss

    def note_maps(self: Learner, s: Any, t: Any, batch: Any) -> Loss:
        maps[:] = [weakref.ref(x.untyped_storage()) for x in s.stages]
        return loss(self, s, t, batch)

    released: list[tuple[torch.device, int]] = []

    def release(device: torch.device) -> None:
        gc.collect()  # as the function itself does on a GPU
        released.append((device, sum(ref() is not None for ref in maps)))

    monkeypatch.setattr(Learner, "_loss", note_maps)
    monkeypatch.setattr(cohort, "release_gpu_memory", release)
    full = plugin(tmp_path, "exhausts", GREEDY.format(error='torch.OutOfMemoryError("CUDA")'))
    bug = plugin(tmp_path, "fails", GREEDY.format(error='RuntimeError("a bug")'))
    train([taught(TEACHER, full)], tmp_path)
    assert released == [(CPU, 0)]
    train([taught(TEACHER, bug)], tmp_path)
    assert len(released) == 1


def test_cached_memory_is_returned_to_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    memory.release_gpu_memory(CPU)
    assert calls == []
    memory.release_gpu_memory(torch.device("cuda", 0))
    assert calls == ["emptied"]


# --- one learner's activations at a time ---------------------------------------------------------


def test_activations_are_freed_before_the_next_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([TEACHER], tmp_path)
    maps: list[weakref.ref[torch.UntypedStorage]] = []
    alive: list[int] = []
    loss, step = Learner._loss, Learner.train_step

    def note_maps(self: Learner, s: Any, t: Any, batch: Any) -> Loss:
        own = [weakref.ref(x.untyped_storage()) for x in (s.stem, *s.stages, s.logits)]
        assert all(ref() is not None for ref in own)
        maps.extend(own)
        return loss(self, s, t, batch)

    def count_alive(self: Learner, *args: Any) -> None:
        alive.append(sum(ref() is not None for ref in maps))
        maps.clear()
        step(self, *args)

    monkeypatch.setattr(Learner, "_loss", note_maps)
    monkeypatch.setattr(Learner, "train_step", count_alive)
    gc.disable()  # activations must be freed without it
    try:
        train([taught(TEACHER, name) for name in ("kd", "semckd", "fitnets", "crd")], tmp_path)
    finally:
        gc.enable()
    assert len(alive) > 40
    assert not any(alive)
    assert all(record.status == "done" for record in records.load(tmp_path, [TEACHER.id]).values())
