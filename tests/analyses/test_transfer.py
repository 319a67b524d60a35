"""Transfer: only the classifier trains, results are reproducible and stored."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from data_files import fashion, stl10
from small_grids import expanded, kdbench, mistakes, write
from tiny_runs import CPU, alone, train
from torch import nn

from kdbench.analyses import loading, transfer
from kdbench.analyses.loading import Library
from kdbench.analyses.trained_run import AnalysisError
from kdbench.analyses.transfer import Transfer
from kdbench.data.batches import Normalise, train_batches
from kdbench.errors import UserError
from kdbench.grid.run import Run
from kdbench.grid.settings import Dataset, Training
from kdbench.rng import key
from kdbench.runs import checksums
from kdbench.training import checkpoint

SHORT = Training(epochs=3, batch_size=16, lr=0.1, crop_pad=0, flip=False)
OTHER = Transfer(Dataset(name="digits", per_class=9, subset_seed=1, size=8), SHORT)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    folder = tmp_path_factory.mktemp("school")
    run = alone()
    train([run], folder)
    return folder, run


@pytest.fixture
def library(school: tuple[Path, Run], tmp_path: Path) -> Library:
    """A library over a copy of the runs."""
    shutil.copytree(school[0], tmp_path / "runs")
    return Library(tmp_path / "runs", tmp_path / "data", CPU)


def test_classifier_saves_no_generator_of_a_gpu(
    library: Library, school: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[Any] = []
    fork_rng = torch.random.fork_rng

    def fork(**options: Any) -> Any:
        devices.append(options.get("devices"))
        return fork_rng(**options)

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    run = school[1]
    transfer.learn(library.network(run), library.data(OTHER.dataset), OTHER, run.seed)
    assert devices == [()]


def test_library_prepares_its_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[torch.device] = []
    monkeypatch.setattr(loading, "prepare", prepared.append)
    gpu = torch.device("cuda", 1)
    Library(tmp_path, tmp_path, gpu)
    assert prepared == [gpu]


def test_classifier_is_trained_by_plain_sgd(library: Library, school: tuple[Path, Run]) -> None:
    run = school[1]
    network, data = library.network(run), library.data(OTHER.dataset)
    train_acc, curve = transfer.learn(network, data, OTHER, run.seed)
    torch.manual_seed(key(run.seed, "init", "transfer"))
    classifier = nn.Linear(12, 10)
    speed = {name: torch.zeros_like(p) for name, p in classifier.named_parameters()}
    expected = []
    for epoch in (1, 2, 3):
        for images, labels, _ in train_batches(
            data, batch_size=16, seed=run.seed, epoch=epoch, purpose="transfer"
        ):
            with torch.no_grad():
                embedding = network(images).embedding
            loss = F.cross_entropy(classifier(embedding), labels)
            grads = torch.autograd.grad(loss, list(classifier.parameters()))
            with torch.no_grad():
                for (name, p), grad in zip(classifier.named_parameters(), grads, strict=True):
                    speed[name] = 0.9 * speed[name] + grad + 5e-4 * p
                    p.sub_(0.1 * speed[name])
        with torch.no_grad():
            logits = classifier(network(Normalise(data)(data.test_images)).embedding)
        right = (logits.argmax(1) == data.test_labels).double().mean()
        expected.append(100 * float(right))
    assert curve == pytest.approx(expected, abs=0.2)  # rounding may decide a tie differently
    assert 0 < train_acc <= 100


@pytest.mark.parametrize("batch_norm", ["frozen", "adapt"])
@pytest.mark.parametrize("augmented", [False, True])
def test_network_is_not_changed(
    library: Library, school: tuple[Path, Run], batch_norm: Any, augmented: bool
) -> None:
    run = school[1]
    network, data = library.network(run), library.data(OTHER.dataset)
    before = checkpoint.digest(network.state_dict())
    training = SHORT.model_copy(update={"crop_pad": int(augmented), "flip": augmented})
    how = replace(OTHER, training=training, batch_norm=batch_norm)
    first = transfer.learn(network, data, how, 0)
    assert checkpoint.digest(network.state_dict()) == before
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    torch.rand(7)
    assert transfer.learn(network, data, how, 0) == first
    assert transfer.learn(network, data, how, 1) != first


def test_adapting_batch_norm_changes_the_result(library: Library, school: tuple[Path, Run]) -> None:
    network, data = library.network(school[1]), library.data(OTHER.dataset)
    frozen = transfer.learn(network, data, OTHER, 0)
    adapted = transfer.learn(network, data, replace(OTHER, batch_norm="adapt"), 0)
    assert frozen != adapted


def test_result_is_stored_and_reused(
    library: Library, school: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = school[1]
    result = transfer.run(library, run, OTHER)
    path = library.runs / run.id / "transfer" / f"{OTHER.key}.json"
    assert json.loads(path.read_text())["test_acc"] == result.test_acc == result.curve[-1]
    assert result.best_acc == max(result.curve) == result.curve[result.best_epoch - 1]
    assert (result.n_train, result.n_test, len(result.curve)) == (90, 1707, 3)
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "learn", None)
        assert transfer.run(library, run, OTHER) == result
    values = json.loads(path.read_text()) | {"weights": "of another network"}
    del values[checksums.KEY]
    path.write_text(checksums.add(json.dumps(values, indent=1) + "\n"))
    assert transfer.run(library, run, OTHER) == result
    path.write_text(path.read_text().replace('"n_test": 1707', '"n_test": 1708'))
    with pytest.raises(ValueError, match="not a transfer result: its content does not match"):
        transfer.run(library, run, OTHER)
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a transfer"):
        transfer.run(library, run, OTHER)


def test_key_depends_on_every_setting() -> None:
    keys = {
        OTHER.key,
        replace(OTHER, batch_norm="adapt").key,
        replace(OTHER, training=SHORT.model_copy(update={"epochs": 4})).key,
        replace(OTHER, dataset=Dataset(name="digits", size=8)).key,
    }
    assert len(keys) == 4 and all(name.startswith("digits-") for name in keys)
    here, there = (Dataset(name="imagefolder", root=f"{x}/pets", size=8) for x in ("a", "b"))
    assert replace(OTHER, dataset=here).key == replace(OTHER, dataset=there).key


def test_images_are_normalised_as_in_training(
    library: Library, school: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def learn(network: object, data: Any, to: object, seed: int) -> tuple[float, list[float]]:
        seen.append((data.mean, data.std))
        return 1.0, [2.0]

    monkeypatch.setattr(transfer, "learn", learn)
    transfer.run(library, school[1], OTHER)
    source = library.data(school[1].dataset)
    assert seen == [(source.mean, source.std)]
    assert source.mean != library.data(OTHER.dataset).mean
    with pytest.raises(AnalysisError, match="synthetic, 8x8 has 3 channels"):
        transfer.run(library, school[1], Transfer(Dataset(name="synthetic", size=8), SHORT))


# --- the command ----------------------------------------------------------------------------------


def test_transfer_of_a_grid_to_fashion_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    fashion(data / "fashion_mnist" / "FashionMNIST" / "raw", monkeypatch, packed=False)
    changes: dict[str, Any] = {
        "dataset": {"name": "digits", "per_class": 13}, "seeds": [0, 1], "methods": ["kd"],
    }  # fmt: skip
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results", "--data", data)
    grid = ("--grid", write(tmp_path, **changes), *folders)
    assert kdbench("run", *grid).exit_code == 0
    how = ("--dataset", "fashion_mnist", "--protocol", "{epochs: 2, batch_size: 10, crop_pad: 1}")
    done = kdbench("transfer", *grid, *how)
    assert done.exit_code == 0, done.output
    assert "r8w4 -> r8w3, seed 1, kd: " in done.stdout and "Chen et al." in done.stdout
    (folder,) = (tmp_path / "results" / "transfer").iterdir()
    assert sorted(x.suffix for x in folder.iterdir()) == [".csv", ".png", ".svg"]
    frame = pd.read_csv(folder / "transfer.csv")
    runs = [run for cell in expanded(**changes).cells[1:] for run in cell.runs]
    assert frame["run"].tolist() == [run.id for run in runs]
    assert frame["label"].tolist() == ["student", "student", "kd", "kd"]
    for run, row in zip(runs, frame.itertuples(), strict=True):
        (path,) = (tmp_path / "runs" / run.id / "transfer").iterdir()
        result = json.loads(path.read_text())
        assert result["test_acc"] == pytest.approx(row.test_acc)
        assert result["transfer"]["dataset"]["size"] == 8  # the digits'
    again = kdbench("transfer", *grid, *how)
    assert again.stdout == done.stdout


def test_transfer_of_a_student_to_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    stl10(data, monkeypatch)
    folders = ("--runs", tmp_path / "runs", "--results", tmp_path / "results", "--data", data)
    assert kdbench("run", "--grid", write(tmp_path, methods=[]), *folders).exit_code == 0
    student = expanded(methods=[]).runs[-1].id
    how = ("--dataset", "stl10", "--protocol", "{epochs: 1, batch_size: 10}", "--adapt")
    done = kdbench("transfer", student, *folders, *how)
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "runs" / student / "transfer").iterdir()
    result = json.loads(path.read_text())
    assert (result["n_train"], result["n_test"], result["transfer"]["batch_norm"]) == (
        20,
        10,
        "adapt",
    )


def test_mistakes(library: Library, school: tuple[Path, Run], tmp_path: Path) -> None:
    flags = ("--runs", library.runs, "--results", tmp_path, "--data", tmp_path)
    run = school[1].id

    def refused(*args: object) -> str:
        (line,) = mistakes("transfer", *args, *flags)
        return line

    assert "did you mean stl10?" in refused(run, "--dataset", "slt10")
    assert "--protocol.epoch: unknown" in refused(
        run, "--dataset", "digits", "--protocol", "{epoch: 3}"
    )
    assert "expected a mapping" in refused(run, "--dataset", "digits", "--protocol", "3")
    assert "put stl10_binary.tar.gz" in refused(run, "--dataset", "stl10")
    assert "has 3 channels" in refused(run, "--dataset", "synthetic")
    assert "give run ids or --grid" in refused("--dataset", "digits")


def test_changed_result_is_refused(tmp_path: Path) -> None:
    result = transfer.TransferResult("r", {}, 50.0, 60.0, 1, 70.0, 9, 9, "w", "d", [60.0, 50.0])
    text = checksums.add(json.dumps(asdict(result), indent=1) + "\n")
    path = tmp_path / "x.json"
    path.write_text(text)
    assert transfer._read(path) == result
    old = json.dumps(asdict(result))
    for changed in (
        text.replace("50.0", "51.0", 1),
        old.replace("50.0", "150.0", 1),
        old.replace("50.0", '"x"', 1),
        "[" * 100_000,
    ):
        path.write_text(changed)
        with pytest.raises(UserError, match=r"x\.json: not a transfer result: .*delete the file"):
            transfer._read(path)
    path.write_text(old)
    assert transfer._read(path) == result
