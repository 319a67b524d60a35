"""Checkpoints: atomic, verified, and replaced by the previous one if damaged."""

import copy
import errno
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_runs import alone, numbers, stop_after, train

from kdbench.runs import records
from kdbench.training import checkpoint
from kdbench.training.cohort import Stopped


def state(value: float) -> dict[str, object]:
    weights = torch.full((200, 50), value)
    return {"model": {"w": weights}, "epoch": int(value), "history": [{"a": 1}]}


def test_newest_checkpoint_is_loaded_and_the_previous_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        checkpoint.save(tmp_path, state(value))
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["epoch"] == 3
    assert checkpoint.read(tmp_path / checkpoint.PREVIOUS)["epoch"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint.PREVIOUS, checkpoint.NAME]


class OnGpu(torch.Tensor):
    """A tensor that pretends to be on a GPU, and notes how it is copied."""

    is_cuda = True
    copies: ClassVar[list[tuple[Any, ...]]] = []

    def to(self, *args: Any, **options: Any) -> torch.Tensor:
        self.copies.append((*args, options))
        return self.as_subclass(torch.Tensor)


def test_state_on_a_gpu_is_copied_without_waiting_for_each_tensor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(len(OnGpu.copies)))
    weights = torch.nn.Linear(2, 2).state_dict()
    on_gpu = copy.copy(weights)
    for name in weights:
        on_gpu[name] = weights[name].as_subclass(OnGpu)
    moments = [torch.ones(3).as_subclass(OnGpu), torch.zeros(2)]
    checkpoint.save(tmp_path, {"model": on_gpu, "optimizer": {"state": {0: moments}}, "epoch": 3})
    assert OnGpu.copies == [("cpu", {"non_blocking": True})] * 3
    assert waits == [3]
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert vars(loaded["model"]) == vars(weights)  # what state_dict attaches
    assert checkpoint.digest(loaded["model"]) == checkpoint.digest(weights)
    assert [x.tolist() for x in loaded["optimizer"]["state"][0]] == [[1.0] * 3, [0.0] * 2]


def test_state_on_the_cpu_is_not_copied() -> None:
    before = state(1.0)
    assert checkpoint.to_host(before) is before


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_truncated_checkpoint_is_detected_and_the_previous_is_used(
    tmp_path: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint.save(tmp_path, state(1.0))
    checkpoint.save(tmp_path, state(2.0))
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:keep])
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert "damaged checkpoint" in caplog.text


def test_every_flipped_bit_of_the_weights_is_detected(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1.0))
    path = tmp_path / checkpoint.NAME
    content = path.read_bytes()
    for position in range(5000, 40000, 3500):
        broken = bytearray(content)
        broken[position] ^= 4
        path.write_bytes(broken)
        with pytest.raises(checkpoint.CheckpointDamaged, match="checksum"):
            checkpoint.read(path)


def test_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1.0))
    checkpoint.save(tmp_path, state(2.0))
    (tmp_path / checkpoint.NAME).rename(tmp_path / "checkpoint.new.pt")
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["epoch"] == 2


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"model": Evil()}, tmp_path / checkpoint.NAME)
    with pytest.raises(checkpoint.CheckpointDamaged):
        checkpoint.read(tmp_path / checkpoint.NAME)
    assert not (tmp_path / "ran").exists()


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None


def test_full_disk_leaves_the_last_checkpoint_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, state(1.0))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, state(2.0))
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]


def test_training_resumes_from_before_a_damaged_checkpoint(tmp_path: Path) -> None:
    run = alone()
    train([run], tmp_path / "whole")
    with pytest.raises(Stopped):
        train([run], tmp_path / "broken", checkpoint_seconds=0.0, stop=stop_after(7))
    path = tmp_path / "broken" / run.id / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:-100])
    train([run], tmp_path / "broken")
    assert numbers(tmp_path / "whole", run) == numbers(tmp_path / "broken", run)


def test_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    stopped, other = alone(0), alone(1)
    with pytest.raises(Stopped):
        train([stopped], tmp_path, stop=stop_after(3))
    (tmp_path / other.id).mkdir()
    source = tmp_path / stopped.id / checkpoint.NAME
    (tmp_path / other.id / checkpoint.NAME).write_bytes(source.read_bytes())
    record = train([other], tmp_path)[other.id]
    assert (record.status, record.reason) == (
        "failed",
        "ValueError: the checkpoint belongs to another run",
    )


def test_digest_depends_on_names_types_shapes_and_bits() -> None:
    w = torch.arange(6.0)
    digests = {
        checkpoint.digest({"w": w}),
        checkpoint.digest({"v": w}),
        checkpoint.digest({"w": w.double()}),
        checkpoint.digest({"w": w.reshape(2, 3)}),
        checkpoint.digest({"w": w + torch.tensor([0, 0, 0, 0, 0, 1e-6])}),
    }
    assert len(digests) == 5
    channels_last = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    assert checkpoint.digest({"w": channels_last}) == checkpoint.digest(
        {"w": channels_last.contiguous()}
    )


def test_final_checkpoint_must_match_the_record(tmp_path: Path) -> None:
    run = alone()
    record = train([run], tmp_path)[run.id]
    path = tmp_path / run.id / checkpoint.NAME
    state = checkpoint.trained(path, record)
    assert record.result and checkpoint.digest(state["model"]) == record.result.weights
    checkpoint.save(path.parent, {"epoch": 1}, final=True)
    with pytest.raises(checkpoint.CheckpointDamaged, match="holds no network"):
        checkpoint.trained(path, record)
    state["model"]["fc.bias"][0] += 1
    checkpoint.save(path.parent, state, final=True)
    with pytest.raises(checkpoint.OtherWeights, match=f"the weights that {run.id}'s record names"):
        checkpoint.trained(path, record)
