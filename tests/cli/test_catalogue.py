"""Lists of methods, models and data sets, and the report of doctor."""

from pathlib import Path

import pytest
import torch
from small_grids import kdbench

from kdbench.grid.dataset_facts import DATASETS
from kdbench.models import zoo
from kdbench.registry import lookup


def lines(*args: object, width: int = 100) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        result = kdbench(*args)
    assert result.exit_code == 0
    output = result.stdout.splitlines()
    # A line that says where to put files keeps its paths whole.
    assert all(len(line) <= width or line.partition(":")[0] in DATASETS for line in output)
    return output


def first_words(output: list[str]) -> set[str]:
    return {line.split()[0] for line in output if line.strip()}


@pytest.mark.parametrize("width", [80, 100])
def test_methods_are_listed(width: int) -> None:
    output = lines("methods", width=width)
    assert first_words(output) >= set(lookup.names())
    assert "arXiv:2012.03236" in " ".join(output)
    text = " ".join(" ".join(output).split())
    about = [lookup.describe(name) for name in lookup.names()]
    waiting = [x.name for x in about if not x.capturable]
    online = [x.name for x in about if x.brings_peers]
    assert text.count("no CUDA graph, so slow on a GPU") == len(waiting) > 0
    assert text.count("networks learn together") == len(online) > 0
    assert text.count("looks ahead, with SGD only; one rank") == 1


def test_methods_are_listed_for_a_pair() -> None:
    output = lines("methods", "--pair", "r8w4 -> r8w3")
    assert first_words(output) >= set(lookup.names())
    [row] = [line.split() for line in output if line.split()[:2] == ["semckd", "400"]]
    assert int(row[2].replace(",", "")) > 10_000 and float(row[3]) > 0
    assert "FSP needs equal channels" in " ".join(" ".join(output).split())


def test_models_are_listed() -> None:
    output = lines("models")
    assert first_words(output) >= set(zoo.names())
    [line] = [line for line in output if line.split()[:1] == ["resnet8x4"]]
    assert line.split() == ["resnet8x4", "resnet", "1,233,540", "177.1"]


def test_datasets_are_listed(tmp_path: Path) -> None:
    output = lines("datasets", "--data", tmp_path / ("deep/" * 20))
    assert first_words(output) >= set(DATASETS)
    assert "available: comes with scikit-learn" in " ".join(" ".join(output).split())
    [line] = [line for line in output if line.startswith("cifar10: put cifar-10")]
    assert str(tmp_path / ("deep/" * 20) / "cifar10") in line


def doctor(tmp_path: Path) -> str:
    return " ".join(" ".join(lines("doctor", "--runs", tmp_path / "a" / "b")).split())


def test_doctor_describes_the_machine_and_writes_nothing(tmp_path: Path) -> None:
    output = doctor(tmp_path)
    for part in ("torch", "processor", "writable", "Slurm", "protocols crd, demo", "digits"):
        assert part in output
    assert not (tmp_path / "a").exists()


def test_doctor_names_the_vector_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    start = (
        f"vector instructions {torch.backends.cpu.get_cpu_capability()}; convolutions (oneDNN): "
    )
    assert f"{start}no limit" in doctor(tmp_path)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert f"{start}limit set to SSE41" in doctor(tmp_path)
