import math

import pytest
import torch
from random_features import batch, build, features, gradient_is_right
from torch import Tensor

from kdbench.method import Incompatible
from kdbench.registry import lookup


def vectors(x: Tensor, n: int) -> tuple[list[float], list[list[float]]]:
    """Return singular values and right singular vectors of one sample's map, [C, H, W]."""
    _, values, right = torch.linalg.svd(x.flatten(1).T, full_matrices=False)
    return values[:n].tolist(), right[:n].tolist()


def aligned(a: Tensor, b: Tensor, k: int) -> tuple[list[list[float]], list[list[float]]]:
    _, student = vectors(a, k + 3)
    values, teacher = vectors(b, k)
    teacher = [[math.copysign(1, sum(v)) * x for x in v] for v in teacher]
    size = math.sqrt(sum(x * x for x in values))
    chosen = []
    for v in teacher:
        cosines = [sum(p * q for p, q in zip(u, v, strict=True)) for u in student]
        best = max(range(len(student)), key=lambda i: abs(cosines[i]))
        chosen.append([math.copysign(1, cosines[best]) * x for x in student[best]])
    weights = [x / size for x in values]
    return tuple(  # type: ignore[return-value]
        [[w * x for x in row] for w, row in zip(weights, rows, strict=True)]
        for rows in (chosen, teacher)
    )


@pytest.mark.parametrize("k", [1, 2])
def test_value(k: int) -> None:
    """The first stage has more positions than channels, the last stage fewer."""
    s, t = (features(2, (4, 5, 6), (4, 3, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    expected = 0.0
    for sample in range(2):
        stages = [aligned(a[sample], b[sample], k) for a, b in zip(s.stages, t.stages, strict=True)]
        for early, late in ((0, 1), (1, 2)):
            for e_s, l_s, e_t, l_t in zip(
                stages[early][0], stages[late][0], stages[early][1], stages[late][1], strict=True
            ):
                for i in range(len(l_s)):
                    for j in range(len(e_s)):
                        r_s = math.exp(-((l_s[i] - e_s[j]) ** 2) / 8)
                        r_t = math.exp(-((l_t[i] - e_t[j]) ** 2) / 8)
                        expected += (r_s - r_t) ** 2 / 2
    loss = build("kdsvd", s, t, k=k).loss(s, t, batch(2)).item()
    assert loss == pytest.approx(expected, rel=1e-8)


def test_gradient() -> None:
    s, t = (features(2, (4, 6), (3, 2), seed=i, dtype=torch.float64) for i in (0, 1))
    s = s.map(lambda x: x + 0.1)
    assert gradient_is_right(build("kdsvd", s, t), s, t)


def test_eigenvectors_pass_the_usual_gradient_where_gaps_are_wide() -> None:
    method = lookup.load("kdsvd")
    ours = __import__(method.__module__, fromlist=["SafeEigh"]).SafeEigh
    torch.manual_seed(0)
    matrix = torch.randn(3, 5, 5, dtype=torch.float64)
    matrix = (matrix @ matrix.mT).requires_grad_()
    weight = torch.randn(3, 5, 5, dtype=torch.float64)
    grads = []
    for eigh in (ours.apply, torch.linalg.eigh):
        _, eigenvectors = eigh((matrix + matrix.mT) / 2)
        (grad,) = torch.autograd.grad((eigenvectors.square() * weight).sum(), matrix)
        grads.append(grad)
    torch.testing.assert_close(*grads)


def test_repeated_singular_values_pass_a_finite_gradient() -> None:
    """Identity matrices, constants and zeros as maps."""
    t = features(3, (4, 4), (2, 2), seed=1)
    maps = torch.stack([torch.eye(4), torch.ones(4, 4), torch.zeros(4, 4)]).view(3, 4, 2, 2)

    def change(x: Tensor) -> Tensor:
        return (maps.clone() if x.shape == maps.shape else x.detach()).requires_grad_()

    s = features(3, (4, 4), (2, 2)).map(change)
    loss = build("kdsvd", s, t).loss(s, t, batch(3))
    loss.backward()
    assert loss.isfinite()
    for stage in s.stages:
        assert stage.grad is not None
        assert stage.grad.isfinite().all()


def test_zero_if_student_equals_teacher() -> None:
    s = features()
    assert build("kdsvd", s, s).loss(s, s, batch()).item() == pytest.approx(0, abs=1e-9)


def test_unequal_channels_are_refused() -> None:
    with pytest.raises(Incompatible, match=r"student \[4, 6, 8\], teacher \[4, 7, 8\]"):
        build("kdsvd", features(), features(channels=(4, 7, 8)))
    with pytest.raises(Incompatible, match="two stages"):
        build("kdsvd", features(channels=(4,)), features(channels=(4,)))


@pytest.mark.parametrize("k", [0, 5])
def test_more_vectors_than_a_map_has_are_refused(k: int) -> None:
    """Four channels, or four positions, have four singular vectors."""
    for sizes in ((4, 4, 4), (4, 4, 2)):
        channels = (4, 6, 8) if sizes[2] == 4 else (6, 7, 8)
        s = features(channels=channels, sizes=sizes)
        with pytest.raises(Incompatible, match=rf"KDSVD: k is {k}, expected 1 to 4: the maps are"):
            build("kdsvd", s, s, k=k)
        assert build("kdsvd", s, s, k=4).loss(s, s, batch()).isfinite()
