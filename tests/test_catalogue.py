"""The lists of what there is."""

from pathlib import Path

import pytest
from grids import kdbench

from kdbench import models, registry
from kdbench.spec import DATASETS


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
    assert starts(found) >= set(registry.names())
    assert "arXiv:2012.03236" in " ".join(found)


def test_methods_on_a_pair() -> None:
    found = lines("methods", "--pair", "r8w4 -> r8w3")
    assert starts(found) >= set(registry.names())
    [row] = [line.split() for line in found if line.split()[:2] == ["semckd", "400"]]
    assert int(row[2].replace(",", "")) > 10_000 and float(row[3]) > 0
    assert "FSP needs equal channels" in " ".join(" ".join(found).split())


def test_models() -> None:
    found = lines("models")
    assert starts(found) >= set(models.names())
    [line] = [line for line in found if line.split()[:1] == ["resnet8x4"]]
    assert line.split() == ["resnet8x4", "resnet", "1,233,540", "177.1"]


def test_datasets(tmp_path: Path) -> None:
    found = lines("datasets", "--data", tmp_path)
    assert starts(found) >= set(DATASETS)
    text = " ".join(" ".join(found).split())
    assert "there: comes with scikit-learn" in text and "missing: put cifar-10" in text


def test_doctor(tmp_path: Path) -> None:
    found = " ".join(" ".join(lines("doctor", "--runs", tmp_path / "a" / "b")).split())
    for part in ("torch", "processor", "writable", "Slurm", "protocols crd, demo", "digits"):
        assert part in found
    assert not (tmp_path / "a").exists()
