"""Label noise: its share, the labels it affects, and the same noise for every method."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_grids import expanded

from kdbench.data import dataset as data_module
from kdbench.data.dataset import load
from kdbench.grid.settings import Dataset

few = settings(max_examples=30, deadline=None)
shares = st.floats(0.01, 0.99)


def noisy(labels: torch.Tensor, share: float, by: str = "image", seed: int = 0) -> torch.Tensor:
    dataset = Dataset(name="synthetic", label_noise=share, noise_by=by, subset_seed=seed)  # type: ignore[arg-type]
    return data_module._noisy(labels, dataset, [str(k) for k in range(10)])


@few
@given(share=shares, sizes=st.lists(st.integers(1, 40), min_size=10, max_size=10),
       seed=st.integers(0, 99))  # fmt: skip
def test_share_is_exact_in_every_class(share: float, sizes: list[int], seed: int) -> None:
    labels = torch.repeat_interleave(torch.arange(10), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    # Labels that cannot be right show which were drawn anew: all others stay.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda high, size, generator: torch.full(size, 77))
        marked = noisy(labels, share, seed=seed)
    drawn = marked == 77
    assert torch.equal(marked[~drawn], labels[~drawn])
    for k, size in enumerate(sizes):
        assert int(drawn[labels == k].sum()) == round(share * size)
    noisy_labels = noisy(labels, share, seed=seed)
    assert torch.equal(noisy_labels[~drawn], labels[~drawn])
    assert int(noisy_labels.min()) >= 0 and int(noisy_labels.max()) < 10
    assert torch.equal(noisy_labels, noisy(labels, share, seed=seed))


def test_labels_are_drawn_uniformly_from_all_classes() -> None:
    labels = torch.arange(10).repeat(2000)
    noisy_labels = noisy(labels, 0.5)
    kept = (noisy_labels == labels).double().mean()
    assert abs(float(kept) - (0.5 + 0.5 / 10)) < 0.01
    wrong = torch.bincount(noisy_labels[noisy_labels != labels], minlength=10).double()
    assert (wrong / wrong.sum() - 0.1).abs().max() < 0.01
    assert not torch.equal(noisy_labels, noisy(labels, 0.5, seed=1))


@few
@given(share=shares, seed=st.integers(0, 99))
def test_noise_by_class_relabels_complete_classes(share: float, seed: int) -> None:
    """Follow the authors' code: class c gets the label drawn for image number c."""
    labels = torch.arange(10).repeat(20).flip(0)
    noisy_labels = noisy(labels, share, "class", seed)
    by_image = noisy(labels, share, "image", seed)
    for c in range(10):
        (became,) = noisy_labels[labels == c].unique().tolist()
        drawn_label = int(by_image[c])  # the label that image number c ends with, noise or not
        own = int(labels[c])
        assert became in ((drawn_label,) if drawn_label != own else (c, drawn_label))


def test_only_training_labels_are_noisy(tmp_path: Path) -> None:
    clean = load(Dataset(name="synthetic", validation=0.2), tmp_path)
    dirty = load(Dataset(name="synthetic", validation=0.2, label_noise=0.3), tmp_path)
    for name in ("train_images", "test_images", "test_labels", "val_images", "val_labels"):
        assert torch.equal(getattr(clean, name), getattr(dirty, name)), name
    assert not torch.equal(clean.train_labels, dirty.train_labels)
    assert clean.digest != dirty.digest
    assert dirty.title == "synthetic, 20% held out, 30% label noise"
    assert (clean.mean, clean.std) == (dirty.mean, dirty.std)


def test_noise_is_part_of_the_run_id_and_equal_for_every_method() -> None:
    clean = expanded(methods=["kd", "at"])
    dirty = expanded(
        methods=["kd", "at"],
        dataset={"name": "synthetic", "label_noise": 0.3},
        teacher={"dataset": "synthetic"},
    )
    assert clean.cells[0].runs == dirty.cells[0].runs  # the teacher learns from clean labels
    assert {run.dataset for cell in dirty.cells[1:] for run in cell.runs} == {
        Dataset(name="synthetic", label_noise=0.3)
    }
    assert not {run.id for run in clean.runs[1:]} & {run.id for run in dirty.runs}


def test_canonical_form_of_noise() -> None:
    plain = Dataset(name="cifar100").canonical
    assert plain == {"name": "cifar100", "version": 2}
    noise = plain | {"label_noise": 0.3}
    assert Dataset(name="cifar100", label_noise=0.3).canonical == noise
    assert Dataset(name="cifar100", label_noise=0.3, noise_by="image").canonical == noise
    assert Dataset(name="cifar100", label_noise=0.3, noise_by="class").canonical == noise | {
        "noise_by": "class"
    }
    assert Dataset(name="cifar100", label_noise=0.3, subset_seed=1).canonical == noise | {
        "subset_seed": 1
    }
    by_class = Dataset(name="cifar10", label_noise=0.125, noise_by="class")
    assert by_class.title == "cifar10, 12.5% label noise by class"


@pytest.mark.parametrize(
    "values", [{"label_noise": 0}, {"label_noise": 1}, {"label_noise": "much"},
               {"noise_by": "class"}, {"label_noise": 0.1, "noise_by": "pixel"}],
)  # fmt: skip
def test_wrong_noise_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Dataset(name="digits", **values)  # type: ignore[arg-type]
