import pytest
import torch
from random_features import batch, build, features
from torch import Tensor

from kdbench.method import Incompatible
from kdbench.registry.toy_networks import Toy


def energies(f: Tensor) -> list[list[float]]:
    """Return unit-length attention over positions, by loops."""
    rows = []
    for sample in f:
        row = [
            float((sample[:, i, j] ** 2).sum()) / len(sample) for i in range(2) for j in range(2)
        ]
        rows.append([x / sum(y * y for y in row) ** 0.5 for x in row])
    return rows


@pytest.mark.parametrize("p2", [1, 2])
def test_value(p2: int) -> None:
    s, t = (features(3, (4, c), (4, 2), seed=c, dtype=torch.float64) for c in (3, 5))
    method = build("ft", s, t, p2=p2)
    with torch.no_grad():
        a, b = method.translator(s.stages[-1]), method.encoder(t.stages[-1])  # type: ignore[operator]
    assert a.shape == b.shape == (3, 2, 2, 2)
    pairs = zip(energies(a), energies(b), strict=True)
    gaps = [abs(x - y) ** p2 for p, q in pairs for x, y in zip(p, q, strict=True)]
    assert method.loss(s, t, batch(3)).item() == pytest.approx(sum(gaps) / 12, rel=1e-10)


def test_value_paper() -> None:
    s, t = (features(3, (4, c), (4, 2), seed=c, dtype=torch.float64) for c in (3, 5))
    method = build("ft", s, t, variant="paper")
    with torch.no_grad():
        a, b = method.translator(s.stages[-1]), method.encoder(t.stages[-1])  # type: ignore[operator]
    gaps = []
    for p, q in zip(a, b, strict=True):
        x, y = p.flatten().tolist(), q.flatten().tolist()
        n, m = (sum(v * v for v in row) ** 0.5 for row in (x, y))
        gaps += [abs(u / n - v / m) for u, v in zip(x, y, strict=True)]
    assert method.loss(s, t, batch(3)).item() == pytest.approx(sum(gaps) / len(gaps), rel=1e-10)


def test_first_phase_is_an_auto_encoder_of_the_teacher() -> None:
    s, t = features(seed=0), features(channels=(4, 6, 10), seed=1)
    method = build("ft", s, t)
    modules = list(method.pretrain(Toy()))
    assert modules == [method.encoder, method.decoder]
    t_map = t.stages[-1]
    before = method.pretrain_loss(s, t, batch())
    again = modules[1](modules[0](t_map))
    assert before.item() == pytest.approx(((again - t_map) ** 2).mean().item(), rel=1e-6)
    before.backward()
    step = torch.optim.SGD([p for m in modules for p in m.parameters()], lr=0.1)
    step.step()
    assert method.pretrain_loss(s, t, batch()) < before


def test_paraphraser_gets_no_gradient_from_term() -> None:
    s, t = features(seed=0, grad=True), features(seed=1)
    method = build("ft", s, t)
    method.loss(s, t, batch()).backward()
    assert all(p.grad is None for p in method.get_submodule("encoder").parameters())
    assert all(p.grad is not None for p in method.get_submodule("translator").parameters())


def test_unequal_map_sizes_are_accepted() -> None:
    s, t = features(seed=0), features(4, (4, 6, 8), (8, 8, 8), seed=1)
    assert build("ft", s, t).loss(s, t, batch()).isfinite()


def test_too_small_k_is_refused() -> None:
    s = features()
    with pytest.raises(Incompatible, match=r"k = 0\.1 of 8 teacher channels"):
        build("ft", s, s, k=0.1)
