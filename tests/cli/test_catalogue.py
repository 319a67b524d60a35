"""The lists of what there is."""

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
    found = result.stdout.splitlines()
    assert all(len(line) <= width for line in found)
    return found


def starts(found: list[str]) -> set[str]:
    return {line.split()[0] for line in found if line.strip()}


@pytest.mark.parametrize("width", [80, 100])
def test_methods(width: int) -> None:
    found = lines("methods", width=width)
    assert starts(found) >= set(lookup.names())
    assert "arXiv:2012.03236" in " ".join(found)


def test_methods_on_a_pair() -> None:
    found = lines("methods", "--pair", "r8w4 -> r8w3")
    assert starts(found) >= set(lookup.names())
    [row] = [line.split() for line in found if line.split()[:2] == ["semckd", "400"]]
    assert int(row[2].replace(",", "")) > 10_000 and float(row[3]) > 0
    assert "FSP needs equal channels" in " ".join(" ".join(found).split())


def test_models() -> None:
    found = lines("models")
    assert starts(found) >= set(zoo.names())
    [line] = [line for line in found if line.split()[:1] == ["resnet8x4"]]
    assert line.split() == ["resnet8x4", "resnet", "1,233,540", "177.1"]


def test_datasets(tmp_path: Path) -> None:
    found = lines("datasets", "--data", tmp_path)
    assert starts(found) >= set(DATASETS)
    text = " ".join(" ".join(found).split())
    assert "there: comes with scikit-learn" in text and "missing: put cifar-10" in text


def doctor(tmp_path: Path) -> str:
    return " ".join(" ".join(lines("doctor", "--runs", tmp_path / "a" / "b")).split())


def test_doctor(tmp_path: Path) -> None:
    found = doctor(tmp_path)
    for part in ("torch", "processor", "writable", "Slurm", "protocols crd, demo", "digits"):
        assert part in found
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
