"""Tunings: saved and loaded on the same machine only, and how workers follow them."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_runs import alone

from kdbench.cost import saved_tuning
from kdbench.cost.saved_tuning import MARGIN, MeasuredSplit, Tuning
from kdbench.execution import local, work
from kdbench.grid.grid import Executor
from kdbench.runs import environment

LOCAL = Executor(kind="local", device="cpu")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the file with tunings."""
    path = tmp_path / "cache" / "machine.json"
    monkeypatch.setenv("KDBENCH_MACHINE", str(path))
    return path


def tuning(*ways: tuple[int, int, float]) -> Tuning:
    splits = [MeasuredSplit(workers=w, threads=t, steps_per_s=rate) for w, t, rate in ways]
    return Tuning(subject="a -> b", ways=tuple(splits), bf16=0.65)


MANY = tuning((8, 1, 5.0), (4, 2, 7.0), (2, 4, 6.9), (4, 1, 6.0), (1, 1, 1.5))
"""A machine whose cores share resources: half of them are faster than all."""


def test_file_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KDBENCH_MACHINE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert saved_tuning.path() == tmp_path / "kdbench" / "machine.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert saved_tuning.path() == Path.home() / ".cache" / "kdbench" / "machine.json"


def test_tuning_is_loaded_on_this_machine_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved_tuning.load() is None
    assert saved_tuning.save(MANY) == file
    assert saved_tuning.load() == MANY
    machine = saved_tuning.machine_name()
    monkeypatch.setattr(environment, "versions", lambda: {"torch": "99"})
    assert saved_tuning.load() is None
    other = tuning((1, 1, 1.0))
    saved_tuning.save(other)
    assert saved_tuning.load() == other
    assert set(json.loads(file.read_bytes())) == {machine, saved_tuning.machine_name()}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"NAME": 3}', '{"NAME": {"ways": []}}'])
def test_damaged_file_is_ignored(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text.replace("NAME", saved_tuning.machine_name()))
    assert saved_tuning.load() is None
    saved_tuning.save(MANY)
    assert saved_tuning.load() == MANY


def test_workers_follow_the_threads_of_the_grid(file: Path) -> None:
    cores = environment.cores()
    assert work.workers(LOCAL) == cores
    saved_tuning.save(MANY)
    assert work.workers(LOCAL) == 4
    assert work.workers(LOCAL.model_copy(update={"threads": 4})) == 2
    assert work.workers(LOCAL.model_copy(update={"threads": 3})) == max(1, cores // 3)
    assert work.workers(LOCAL.model_copy(update={"workers": 7})) == 7
    assert work.workers(Executor(kind="debug")) == 1


@pytest.mark.parametrize(
    ("executor", "line"),
    [
        (LOCAL, "executor: {workers: 4, threads: 1}, as measured by kdbench doctor --tune on this "
         "machine; {workers: 4, threads: 2} was 1.17 times as fast, but rounds differently: "
         "set it in the grid to use it"),
        (LOCAL.model_copy(update={"threads": 2}),
         "executor: {workers: 4, threads: 2}, as measured by kdbench doctor --tune on this "
         "machine"),
    ],
)  # fmt: skip
def test_runner_reports_the_tuning_it_uses(
    file: Path, tmp_path: Path, executor: Executor, line: str
) -> None:
    saved_tuning.save(MANY)
    runs = [alone(), alone(1)]
    events = local.run_all(runs, tmp_path / "runs", Path("data"), executor)
    first = next(events)
    assert (first.line, first.left) == (line, 2)
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("executor", [LOCAL.model_copy(update={"workers": 1}), Executor()])
def test_unused_tuning_is_not_reported(
    file: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_tuning.save(MANY)
    monkeypatch.setattr(work, "_gpus", lambda executor: 2 if executor.device == "auto" else 0)
    assert work.tuned(executor) is None
    assert work.workers(executor) == (executor.workers or 2)


ways = st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64), st.floats(0.01, 1e4)), min_size=1)


@given(ways, st.one_of(st.none(), st.integers(1, 64)))
@example([(1, 2, 10.2), (2, 1, 10.0), (1, 1, 10.1)], None)
@example([(1, 2, 10.4), (2, 1, 10.0)], None)
def test_best_split_is_close_to_the_fastest_with_the_fewest_threads(
    splits: list[tuple[int, int, float]], threads: int | None
) -> None:
    saved = tuning(*splits)
    able = [way for way in saved.ways if threads is None or way.threads == threads]
    best = saved.best(threads)
    if not able:
        assert best is None
        return
    assert best in able
    top = max(way.steps_per_s for way in able)
    assert best.steps_per_s * MARGIN >= top * (1 - 1e-12)
    for way in able:
        if (way.threads, -way.workers) < (best.threads, -best.workers):
            assert way.steps_per_s * MARGIN < top * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", "AVX2"),
        ("ONEDNN_MAX_CPU_ISA", "avx512_core", "AVX512_CORE"),
        ("DNNL_MAX_CPU_ISA", "SSE41", "SSE41"),
        ("ONEDNN_MAX_CPU_ISA", "", None),
        ("ONEDNN_MAX_CPU_ISA", "all", None),
        ("ONEDNN_MAX_CPU_ISA", "DEFAULT", None),
    ],
)
def test_onednn_limit_is_read_from_the_environment(
    name: str, value: str, limit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(known, raising=False)
    assert environment.onednn_limit() is None
    monkeypatch.setenv(name, value)
    assert environment.onednn_limit() == limit
