import pytest
import torch
from random_features import batch, build, features, gradient_is_right

from kdbench.method import Features, Incompatible
from kdbench.registry.toy_networks import Toy


def flow(f: Features, which: int, sample: int, c: int, d: int) -> float:
    """Return an entry of the flow matrix of two maps of equal size, by loops."""
    maps = (f.stem, *f.stages)
    early, late = maps[which][sample, d], maps[which + 1][sample, c]
    height, width = early.shape
    total = sum(float(early[i, j] * late[i, j]) for i in range(height) for j in range(width))
    return total / (height * width)


def test_value() -> None:
    s, t = (features(2, (2, 3), (4, 4), seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for which, (c_early, c_late) in enumerate(((2, 2), (2, 3))):
        gaps = [
            (flow(s, which, b, c, d) - flow(t, which, b, c, d)) ** 2
            for b in range(2)
            for c in range(c_late)
            for d in range(c_early)
        ]
        expected += sum(gaps) / len(gaps)
    method = build("fsp", s, t)
    assert method.pretrain_loss(s, t, batch(2)).item() == pytest.approx(expected, rel=1e-12)
    assert method.loss(s, t, batch(2)).item() == 0


def test_gradient() -> None:
    s, t = (features(2, (2, 2), (4, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    s = s.map(lambda x: x + 0.01)
    assert gradient_is_right(build("fsp", s, t, main=True), s, t)


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("fsp", s, s, main=True).loss(s, s, batch()).item() == 0


def test_first_phase_trains_the_trunk() -> None:
    s, student = features(), Toy()
    assert list(build("fsp", s, s).pretrain(student)) == student.trunk()


@pytest.mark.parametrize("channels", [(4, 6, 9), (4, 6)])
def test_unequal_channels_are_refused(channels: tuple[int, ...]) -> None:
    s, t = features(), features(channels=channels)
    teacher = [4, *channels]
    with pytest.raises(Incompatible) as error:
        build("fsp", s, t)
    assert str(error.value) == f"FSP needs equal channels: student [4, 4, 6, 8], teacher {teacher}"
