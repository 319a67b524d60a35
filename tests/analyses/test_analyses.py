"""Analyses of trained runs: hand-computed values, invariants, and rejected runs."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_methods import mutual, plugin
from random_features import batch, build, features
from tiny_runs import CPU, alone, taught, train
from torch import Tensor, nn

from kdbench.analyses import attention, correlation, fidelity, gradcam, mismatch, tsne
from kdbench.analyses.finding import new_figure, panel_grid, truncation_note
from kdbench.analyses.loading import Library
from kdbench.analyses.trained_run import AnalysisError, labels
from kdbench.errors import UserError
from kdbench.grid.run import Run
from kdbench.method import Features
from kdbench.models import zoo
from kdbench.registry.toy_networks import Toy
from kdbench.runs import records

METHODS = ("kd", "at", "semckd", "simkd")
few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 10_000)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Run]]:
    """A folder of trained runs, and the runs by method."""
    folder = tmp_path_factory.mktemp("school")
    teacher = alone(student="r8w4", method="teacher")
    train([teacher], folder)
    runs = {name: taught(teacher, name) for name in METHODS}
    runs |= {"semckd+at": taught(teacher, "semckd+at"), "student": alone()}
    runs |= {"equal": taught(teacher, "semckd", hyper={"attention": "equal"})}
    train([run for run in runs.values() if run.teacher], folder)
    train([runs["student"]], folder)
    return folder, runs | {"teacher": teacher}


def library(folder: Path) -> Library:
    return Library(folder, Path("data"), CPU)


# --- runs -----------------------------------------------------------------------------------------


def test_deployed_network_of_a_group_can_be_analysed(tmp_path: Path) -> None:
    run = mutual(plugin(tmp_path / "plugins"))
    result = train([run], tmp_path)[run.id].result
    assert result is not None
    loaded = library(tmp_path)
    [trained] = loaded.trained_runs([run.id])
    right = (trained.test.logits.argmax(1) == loaded.data(run.dataset).test_labels).sum()
    assert 100 * int(right) / result.n_test == result.test_acc


def test_trained_run_has_the_measured_network(school: tuple[Path, dict[str, Run]]) -> None:
    folder, runs = school
    ids = [runs[name].id for name in (*METHODS, "student")]
    loaded = library(folder).trained_runs(ids)
    assert [trained.label for trained in loaded] == [*METHODS, "student"]
    for trained in loaded:
        record = records.read(folder, trained.run.id)
        assert record is not None and record.result is not None
        right = trained.test.logits.argmax(1) == trained.data.test_labels
        assert 100 * float(right.double().mean()) == pytest.approx(record.result.test_acc)
        assert not any(module.training for module in (trained.network, *trained.methods))
        assert (
            trained.teacher is not None and trained.teacher.run == runs["teacher"].id
        )  # also the student's
    assert len({id(trained.teacher) for trained in loaded}) == 1  # loaded once


def test_batches_are_shuffled_and_the_same_for_all_runs(
    school: tuple[Path, dict[str, Run]],
) -> None:
    folder, runs = school
    kd, combined = library(folder).trained_runs([runs["kd"].id, runs["semckd+at"].id])
    combined = replace(combined, run=combined.run.with_seed(3))
    first = [index for _, index in kd.batches("test")]
    assert all(len(index) == 16 for index in first)
    assert len(torch.cat(first).unique()) == len(kd.data.test_labels) // 16 * 16
    again = [index for _, index in combined.batches("test")]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[0].sort().values)
    assert len(list(kd.batches("train", 2))) == 2


def test_labels_are_unique() -> None:
    kd = taught(alone(student="r8w4"), "kd")
    assert labels([kd]) == ["kd"]
    assert labels([kd, taught(alone(student="r8w4"), "at")]) == ["kd", "at"]
    assert labels([kd, kd.with_seed(1)]) == ["kd, seed 0", "kd, seed 1"]
    assert labels([kd, taught(alone(student="v5w4"), "kd")]) == [
        "r8w4 → r8w3, kd", "v5w4 → r8w3, kd",
    ]  # fmt: skip
    warm = taught(alone(student="r8w4"), "kd", temperature=2.0)
    assert labels([kd, warm]) == [f"kd, {kd.id[:8]}", f"kd, {warm.id[:8]}"]


def test_unusable_runs_are_rejected(school: tuple[Path, dict[str, Run]], tmp_path: Path) -> None:
    folder, runs = school
    copy = tmp_path / "runs"
    shutil.copytree(folder, copy)
    kd = copy / runs["kd"].id

    def refused(*ids: str) -> str:
        with pytest.raises(UserError) as error:
            for trained in library(copy).trained_runs(ids):
                trained.require_teacher()
        assert "\n" not in str(error.value)
        return str(error.value)

    assert refused().startswith("no runs")
    assert "no such run" in refused("xyz")
    assert "has no teacher to compare it with" in refused(runs["student"].id)
    content = (kd / "checkpoint.pt").read_bytes()
    (kd / "checkpoint.pt").write_bytes(content[:1000])
    assert "checkpoint.pt" in refused(runs["kd"].id)
    (kd / "checkpoint.pt").write_bytes((copy / runs["at"].id / "checkpoint.pt").read_bytes())
    assert "not the weights" in refused(runs["kd"].id)
    (kd / "checkpoint.pt").unlink()
    assert "checkpoint.pt: no such file" in refused(runs["kd"].id)
    (kd / "record.json").unlink()
    assert "has not finished yet" in refused(runs["kd"].id)
    shutil.rmtree(copy / runs["teacher"].id)
    assert "teacher r8w4" in refused(runs["at"].id)


# --- attention ------------------------------------------------------------------------------------


def test_attention_on_test_images(school: tuple[Path, dict[str, Run]]) -> None:
    folder, runs = school
    names = ("semckd", "equal", "kd")
    semckd, equal, kd = library(folder).trained_runs([runs[name].id for name in names])
    weights = attention.mean_on_test(semckd)
    assert weights.shape == (3, 3) and np.allclose(weights.sum(1), 1)
    parts = []
    for images, _ in semckd.batches("test"):
        s, t = semckd.features(images)
        parts.append(semckd.methods[0].attention(s, t))  # type: ignore[operator]
    assert np.allclose(weights, torch.cat(parts).mean(0))
    assert np.allclose(attention.mean_on_test(equal), 1 / 3)
    assert attention.mean_on_test(kd) is None
    finding = attention.analyse([semckd, equal, kd], folder)
    assert any("Without attention weights: kd" in note for note in finding.notes)
    frame = finding.frame
    assert set(frame["on"]) == {"test", "train"}
    assert set(frame.loc[frame["on"] == "train", "epoch"]) == {1, 2, 3}
    with pytest.raises(AnalysisError, match=r"no attention weights in these runs \(kd\)"):
        attention.analyse([kd], folder)


# --- semantic mismatch ----------------------------------------------------------------------------


def by_loops(s: Tensor, t: Tensor) -> float:
    """Compute the distance of two stages from its definition."""
    square = 0.0
    rows = []
    for maps in (s, t):
        flat = [x.flatten().tolist() for x in maps]
        matrix = [[sum(p * q for p, q in zip(a, b, strict=True)) for b in flat] for a in flat]
        lengths = [math.sqrt(sum(x * x for x in row)) for row in matrix]
        rows.append([[x / n for x in row] for row, n in zip(matrix, lengths, strict=True)])
    for a, b in zip(*rows, strict=True):
        square += sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    return math.sqrt(square) / len(s)


def test_distance_equals_plain_loops() -> None:
    s, t = random(4, 2, 3, 3, seed=0).abs(), random(4, 5, 2, 2, seed=1).abs()
    assert float(mismatch.distances([s], [t])) == pytest.approx(by_loops(s, t))


@few
@given(seed=seeds, size=st.integers(2, 8), scale=st.floats(1e-3, 1e3))
def test_distance_of_equivalent_maps_is_zero(seed: int, size: int, scale: float) -> None:
    maps = random(size, 3, 2, 2, seed=seed)
    other = random(size, 4, 3, 3, seed=seed + 1)
    same = [maps * scale, maps.flip(1), maps.flip(2, 3), torch.cat([maps, maps], 1)]
    assert mismatch.distances([maps], same) == pytest.approx(torch.zeros(1, 4), abs=1e-12)
    forward, backward = mismatch.distances([maps], [other]), mismatch.distances([other], [maps])
    assert float(forward) == pytest.approx(float(backward))
    assert 0 < float(forward) <= 2 / size**0.5
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    assert float(mismatch.distances([maps[order]], [other[order]])) == pytest.approx(float(forward))


DEPTH = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
LAST = [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
TIES = {
    "kd": [[0, 0, 0]] * 3, "crd": [[0, 0, 0]] * 3, "dkd": [[0, 0, 0]] * 3,
    "at": DEPTH, "vid": DEPTH, "hkd": DEPTH, "nst": DEPTH, "sp": LAST, "ft": LAST,
    "fitnets": [[1, 0, 0], [0, 0, 0], [0, 0, 0]], "semckd": [[1, 1, 1]] * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", TIES)
def test_ties_are_found_from_the_loss(name: str) -> None:
    s, t = features(seed=1), features(seed=2)
    method = build(name, s, t).eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    assert mismatch.tied_stages(method, s, t, batch()).tolist() == TIES[name]
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


def test_ties_between_different_depths() -> None:
    s, t = features(channels=(4, 6), seed=1), features(channels=(4, 6, 8), seed=2)
    at, hint = build("at", s, t), build("fitnets", s, t, hint_layer=2)
    assert mismatch.tied_stages(at, s, t, batch()).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert mismatch.tied_stages(hint, s, t, batch()).tolist() == [[0, 0, 0], [0, 1, 0]]


def test_score_of_a_run(school: tuple[Path, dict[str, Run]]) -> None:
    folder, runs = school
    names = ("at", "semckd", "equal", "student", "semckd+at")
    ids = [runs[name].id for name in names]
    at, semckd, equal, student, both = map(mismatch.measure, library(folder).trained_runs(ids))
    assert [part.ties for part in (*at, *semckd, *equal, *student, *both)] == [
        "loss", "attention", "attention", "depth", "attention", "loss",
    ]  # fmt: skip
    assert at[0].score == pytest.approx(float(at[0].distances.diagonal().mean()))
    assert equal[0].score == pytest.approx(float(equal[0].distances.mean()))
    for part in (*at, *semckd, *equal, *student, *both):
        assert torch.allclose(part.weights.sum(1), torch.ones(3, dtype=torch.float64))
        assert part.stages == [1, 2, 3]
        low, high = float(part.distances.min()), float(part.distances.max())
        assert low <= part.score <= high
    hint = mismatch.Mismatch("m", "loss", *(torch.tensor(TIES["fitnets"]) * x for x in (1, 3, 3)))
    assert (hint.stages, hint.score) == ([1], 3.0)


# --- Grad-CAM -------------------------------------------------------------------------------------


def test_cam_of_a_linear_classifier_on_pooled_maps() -> None:
    """Its gradient is the classifier's row, divided by the number of positions."""
    torch.manual_seed(0)
    network = Toy(in_channels=1).eval()
    images = torch.randn(5, 1, 8, 8)
    classes = torch.tensor([0, 1, 2, 3, 4])
    f = network(images)
    maps = f.stages[-1].detach()  # [5, 8, 2, 2]
    expected = torch.einsum("bc,bchw->bhw", network.head.weight[classes], maps).relu() / 4
    maps = gradcam.cam(network, lambda f: f.logits, images, classes)
    assert torch.allclose(maps, expected, atol=1e-6)
    assert not maps.requires_grad and images.grad is None


def test_cam_agrees_with_the_grad_cam_package() -> None:
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")

    class Net(nn.Module):
        """Two convolutions; the last ReLU is a module, so it can be hooked."""

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(96, 20), nn.Tanh(), nn.Linear(20, 3))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.body(images))
            return logits

    class Ours(nn.Module):
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Tensor) -> Features:
            maps = self.net.body(images)
            embedding = maps.mean((2, 3))
            return Features(maps, (maps,), (maps,), embedding, self.net.head(maps))

    torch.manual_seed(0)
    net = Net().eval()
    images = torch.randn(3, 1, 8, 8)
    ours = gradcam.cam(Ours(net), lambda f: f.logits, images, torch.tensor([2, 0, 1]))
    with package.GradCAM(model=net, target_layers=[net.body[3]]) as theirs:
        chosen = [targets.ClassifierOutputTarget(k) for k in (2, 0, 1)]
        theirs(input_tensor=images, targets=chosen)
        (maps,) = theirs.activations_and_grads.activations
        (grads,) = theirs.activations_and_grads.gradients
        raw = theirs.get_cam_image(
            images, net.body[3], chosen, maps.detach().numpy(), grads.numpy(), False
        )
    assert ours.any()
    assert np.allclose(ours.numpy(), np.maximum(raw, 0), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["r8w3", "v5w4", "resnet8", "ResNet18", "wrn_16_1", "vgg8", "MobileNetV2",
             "ShuffleV1", "ShuffleV2"],
)  # fmt: skip
def test_cam_works_for_every_family_and_stage(name: str) -> None:
    torch.manual_seed(0)
    network = zoo.create(name, num_classes=10, in_channels=3).eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    for stage in range(len(network(images).stages)):
        maps = gradcam.cam(network, lambda f: f.logits, images, torch.tensor([1, 2]), stage)
        assert maps.shape[0] == 2 and maps.min() >= 0


@few
@given(seed=seeds, networks=st.integers(2, 5), count=st.integers(1, 12))
def test_disputed_images_come_first(seed: int, networks: int, count: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    guesses = torch.randint(0, 3, (networks, 12), generator=stream)
    truth = torch.randint(0, 3, (12,), generator=stream)
    chosen = gradcam.disputed(guesses, truth, count)
    assert len(chosen) == len(chosen.unique()) == count
    right = (guesses == truth)[1:].sum(0)
    spread = right * (networks - 1 - right)
    others = [i for i in range(12) if i not in chosen.tolist()]
    assert not others or spread[chosen].min() >= spread[others].max()


def test_figures_show_only_one_teacher(school: tuple[Path, dict[str, Run]], tmp_path: Path) -> None:
    folder, runs = school
    copy = tmp_path / "runs"
    shutil.copytree(folder, copy)
    teacher = alone(student="v5w4")
    train([teacher], copy)
    train([taught(teacher, "kd")], copy)
    loaded = library(copy).trained_runs([runs["kd"].id, taught(teacher, "kd").id])
    for analyse in (gradcam.analyse, tsne.analyse):
        with pytest.raises(AnalysisError, match="these runs have several: r8w4"):
            analyse(loaded)
    with pytest.raises(AnalysisError, match="--stage 7: teacher r8w4 has no such stage"):
        gradcam.analyse(loaded[:1], stage=7)


def test_images_under_a_map_are_grey() -> None:
    axis, image = new_figure(1, 1).subplots(), torch.randint(0, 256, (4, 4, 3)).to(torch.uint8)
    gradcam._image(axis, image, faint=False)
    gradcam._image(axis, image, faint=True)
    plain, grey = (np.asarray(drawn.get_array()) for drawn in axis.get_images())
    assert np.array_equal(plain, image.numpy())
    assert np.allclose(grey, image.double().mean(2).numpy(), atol=1e-4)


# --- t-SNE ----------------------------------------------------------------------------------------


@few
@given(seed=seeds, classes=st.integers(2, 5), images=st.integers(4, 60))
def test_images_are_balanced(seed: int, classes: int, images: int) -> None:
    truth = torch.randint(0, 5, (80,), generator=torch.Generator().manual_seed(seed))
    index = tsne.choose_images(truth, classes, images)
    assert torch.equal(index, index.unique())
    counts = torch.bincount(truth[index], minlength=5)
    per_class = max(2, images // classes)
    available = torch.bincount(truth, minlength=5)
    assert counts[:classes].tolist() == available[:classes].clamp(max=per_class).tolist()
    assert not counts[classes:].any()


def test_embedding_is_deterministic() -> None:
    points = random(30, 4, seed=0).numpy()
    assert np.array_equal(tsne.embed(points), tsne.embed(points))


# --- fidelity -------------------------------------------------------------------------------------


@few
@given(seed=seeds, n=st.integers(1, 20), k=st.integers(2, 6))
def test_fidelity_is_within_bounds(seed: int, n: int, k: int) -> None:
    s, t = random(n, k, seed=seed), random(n, k, seed=seed + 1)
    truth = torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))
    result = fidelity.compare(s, t, truth)
    for value in (result.accuracy, result.teacher, result.agreement):
        assert 0 <= value <= 100
    assert math.isnan(result.in_error) == (result.teacher == 100)
    assert result.kl >= 0
    same = fidelity.compare(t + 3, t, truth)
    assert same.agreement == 100 and same.kl == pytest.approx(0, abs=1e-12)
    assert same.accuracy == same.teacher
    total = 0.0
    for a, b in zip(s.softmax(1).tolist(), t.softmax(1).tolist(), strict=True):
        total += sum(q * math.log(q / p) for p, q in zip(a, b, strict=True))
    assert result.kl == pytest.approx(total / n)


def test_agreement_in_error() -> None:
    truth = torch.tensor([0, 0, 1, 1])
    teacher = torch.eye(2)[torch.tensor([0, 1, 0, 1])]  # wrong on images 2 and 3
    student = torch.eye(2)[torch.tensor([1, 1, 1, 1])]
    result = fidelity.compare(student, teacher, truth)
    assert result[:4] == (50.0, 50.0, 50.0, 50.0)


# --- correlation ----------------------------------------------------------------------------------


@few
@given(seed=seeds, n=st.integers(3, 20), k=st.integers(2, 6))
def test_correlation_equals_numpy(seed: int, n: int, k: int) -> None:
    logits = random(n, k, seed=seed)
    matrix = correlation.correlation(logits)
    assert np.allclose(matrix, np.corrcoef(logits.T.numpy()))
    assert torch.equal(matrix.diagonal(), torch.ones(k, dtype=torch.float64))
    moved = logits * (1 + torch.arange(k)) + 7
    assert torch.allclose(correlation.correlation(moved), matrix)


def test_class_with_constant_logits_has_no_correlation() -> None:
    logits = random(6, 3, seed=0)
    logits[:, 1] = 2.0
    matrix = correlation.correlation(logits)
    assert matrix[1].tolist() == [0, 1, 0] and not matrix.isnan().any()


@given(st.integers(1, 40))
def test_panel_grid_is_large_enough(panels: int) -> None:
    down, across = panel_grid(panels)
    assert across <= 4 and panels <= down * across < panels + across
    assert bool(truncation_note(12, panels)) == (panels > 12)
