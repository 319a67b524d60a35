import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from random_features import batch, build, features, gradient_is_right, setup
from torch import Tensor

from kdbench.method import Batch, Incompatible, Method
from kdbench.registry import lookup

EPS = 1e-7


def pair(**changes: Any) -> Any:
    return (features(seed=i, width=w, dtype=torch.float64, **changes) for i, w in ((0, 3), (1, 5)))


def unit(row: list[float]) -> list[float]:
    size = math.sqrt(sum(x * x for x in row))
    return [x / size for x in row]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def embed(method: Method, name: str, x: Tensor) -> list[list[float]]:
    weight, bias = (p.tolist() for p in method.get_submodule(name).parameters())
    return [
        unit([dot(w, row) + b for w, b in zip(weight, bias, strict=True)]) for row in x.tolist()
    ]


def side(
    v: list[list[float]], bank: list[list[float]], z: float, drawn: Any, k: int
) -> tuple[float, float]:
    """Return one side's loss by loops, and its normaliser (a new one if ``z`` is negative)."""
    positive, negatives = (x.tolist() for x in drawn)
    chosen = [
        [p, *(i for i, times in enumerate(row) for _ in range(times))]
        for p, row in zip(positive, negatives, strict=True)
    ]
    scores = [[math.exp(dot(a, bank[i]) / 0.07) for i in ids] for a, ids in zip(v, chosen)]  # noqa: B905
    if z < 0:
        z = len(bank) * sum(map(sum, scores)) / sum(map(len, scores))
    r, total = k / len(bank), 0.0
    for row in scores:
        own, *others = (x / z for x in row)
        total -= math.log(own / (own + r + EPS))
        total -= sum(math.log(r / (p + r + EPS)) for p in others)
    return total / len(v), z


@pytest.mark.parametrize("k", [10, 100])
def test_value_of_two_steps(k: int) -> None:
    """The second step reuses the first step's normalisers; banks change after the scores.

    A hundred negatives are more than there are: some count several times.
    """
    s, t = pair()
    method = build("crd", s, t, k=k, width=4)
    banks = [method.get_buffer(name).tolist() for name in ("memory_v1", "memory_v2")]
    z1 = z2 = -1.0
    for step in range(2):
        given = replace(batch(seed=step), step=step)
        drawn = method.draw(given)  # type: ignore[operator]
        assert (drawn[1].max() > 1) == (k == 100)
        v1, v2 = embed(method, "embed_s", s.embedding), embed(method, "embed_t", t.embedding)
        loss_v1, z1 = side(v1, banks[1], z1, drawn, k)
        loss_v2, z2 = side(v2, banks[0], z2, drawn, k)
        assert method.loss(s, t, given).item() == pytest.approx(loss_v1 + loss_v2, rel=1e-9)
        assert method.get_buffer("z").tolist() == pytest.approx([z1, z2], rel=1e-9)
        for bank, v in zip(banks, (v1, v2), strict=True):
            for row, i in zip(v, given.index.tolist(), strict=True):
                bank[i] = unit([0.5 * x + 0.5 * y for x, y in zip(bank[i], row, strict=True)])
        for name, bank in zip(("memory_v1", "memory_v2"), banks, strict=True):
            expected = torch.tensor(bank, dtype=torch.float64)
            torch.testing.assert_close(method.get_buffer(name), expected)


def test_gradient() -> None:
    s, t = pair()
    method = build("crd", s, t, k=10, width=4)
    method.loss(s, t, batch())  # fixes the normalisers
    vars(method)["renew"] = lambda *_: None
    assert gradient_is_right(method, s, t)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for size in (8192, chunk):
        s, t = pair(grad=True)
        method = build("crd", s, t, k=10, width=4)
        monkeypatch.setattr(f"{type(method).__module__}.CHUNK", size)
        loss = method.loss(s, t, batch())
        loss.backward()
        losses.append((loss.detach(), s.embedding.grad))
    torch.testing.assert_close(losses[0], losses[1])


def crd(labels: Tensor, k: int, **hyper: Any) -> Method:
    s = features()
    cls: Any = lookup.load("crd")
    method: Method = cls(setup(s, s, train_labels=labels), k=k, **hyper)
    return method


def negatives(method: Method, label: Tensor, seed: int = 0) -> Tensor:
    drawn: Tensor = method.draw_negatives(label, torch.Generator().manual_seed(seed))  # type: ignore[operator]
    return drawn


@pytest.mark.parametrize(
    ("counts", "k"),
    [
        ((500, 500), 1),
        ((500, 500), 250),
        ((500, 500), 499),
        ((500, 500), 500),
        ((900, 60, 40), 99),
        ((900, 60, 40), 100),
        ((3000, 5000, 12000), 2700),
        ((1, 1, 0, 1), 2),
    ],
)
def test_negatives_are_k_distinct_samples_of_other_labels(counts: tuple[int, ...], k: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    method = crd(labels, k)
    assert method.k == k
    anchor_labels = torch.tensor([c for c, number in enumerate(counts) if number]).repeat(20)
    drawn = negatives(method, anchor_labels)
    assert drawn.max() == 1
    assert (drawn.sum(1) == method.k).all()
    assert not (drawn.bool() & (labels == anchor_labels[:, None])).any()


@pytest.mark.parametrize("counts", [(5, 5), (30, 4, 6), (1, 1, 0, 1)])
def test_more_negatives_than_there_are_repeat(counts: tuple[int, ...]) -> None:
    """A label with fewer than k samples of others repeats them, another label does not."""
    k = 12
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    method = crd(labels, k)
    assert method.k == k
    anchor_labels = torch.tensor([c for c, number in enumerate(counts) if number]).repeat(20)
    drawn = negatives(method, anchor_labels)
    assert (drawn.sum(1) == k).all()
    assert not (drawn.bool() & (labels == anchor_labels[:, None])).any()
    for label, row in zip(anchor_labels.tolist(), drawn, strict=True):
        assert (row.max() > 1) == (len(labels) - counts[label] < k)


def test_draws_with_replacement_are_uniform() -> None:
    """Each of m samples of other labels is drawn binomially, k times with probability 1/m."""
    labels = torch.tensor([1, 0, 2, 0, 2, 2, 1])
    k, rows = 50, 2000
    drawn = negatives(crd(labels, k), torch.full((rows,), 2)).double()
    others = drawn[:, labels != 2]
    share = 1 / others.shape[1]
    mean, variance = k * share, k * share * (1 - share)
    assert (others.mean(0) - mean).abs().max() < 5 * math.sqrt(variance / rows)
    assert (others.var(0) / variance - 1).abs().max() < 5 * math.sqrt(2 / rows)


def test_every_set_of_negatives_is_equally_likely() -> None:
    """Two of the other class's four samples make six sets, even if probabilities round badly."""
    rows = 6000
    drawn = negatives(crd(torch.tensor([0, 1, 1, 0, 1, 1]), 2), torch.zeros(rows, dtype=torch.long))
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in drawn)
    assert len(counts) == 6
    spread = math.sqrt(rows * (1 / 6) * (5 / 6))
    assert all(abs(number - rows / 6) < 5 * spread for number in counts.values())


def test_large_sets_are_uniform_too() -> None:
    """Every sample of the other class is a negative in k of its m rows, over many steps."""
    labels = (torch.arange(1500) >= 300).long()
    method, steps = crd(labels, 290), 150
    total = sum(negatives(method, torch.ones(8, dtype=torch.long), i).int() for i in range(steps))
    assert isinstance(total, Tensor)
    share, rows = 290 / 300, 8 * steps
    spread = math.sqrt(rows * share * (1 - share))
    assert (total[:, labels == 0].sum(0) - rows * share).abs().max() < 5 * spread
    assert not total[:, labels == 1].any()


def test_rows_and_steps_differ_but_repeat() -> None:
    method = crd(torch.arange(400) % 4, 100)
    given = Batch(torch.zeros(0), torch.tensor([0, 0]), torch.tensor([4, 8]), step=5)
    draw: Any = method.draw
    (positive, drawn), (_, again), (_, later) = (
        draw(given),
        draw(given),
        draw(replace(given, step=6)),
    )
    assert torch.equal(positive, given.index)
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, later)
    assert not torch.equal(drawn[0], drawn[1])


def test_relaxed_positives_are_of_the_same_class() -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 0, 1])
    method: Any = crd(labels, 3, mode="relax")
    positives = set()
    for step in range(60):
        given = Batch(torch.zeros(0), labels[[1, 2]], torch.tensor([1, 2]), step=step)
        positive, _ = method.draw(given)
        assert labels[positive].tolist() == [0, 1]
        positives |= set(positive.tolist())
    assert positives == {1, 3, 5, 2, 6}


def test_state_without_normalisers_can_be_restored() -> None:
    s, t = pair()
    method = build("crd", s, t, k=10)
    start = {name: x.clone() for name, x in method.state_dict().items()}
    first = method.loss(s, t, batch()).item()
    method.loss(s, t, batch(seed=1))
    method.load_state_dict(start)
    assert method.loss(s, t, batch()).item() == first


def test_zero_embeddings_give_finite_loss_and_gradient() -> None:
    s, t = features(seed=0), features(seed=1)
    s = s.map(lambda x: torch.zeros_like(x).requires_grad_())
    method = build("crd", s, t, k=10)
    torch.nn.init.zeros_(method.get_submodule("embed_s").get_parameter("bias"))
    loss = method.loss(s, t, batch())
    loss.backward()
    assert loss.isfinite()
    assert s.embedding.grad is not None
    assert s.embedding.grad.isfinite().all()


def test_float32_is_precise() -> None:
    losses = []
    for dtype in (torch.float32, torch.float64):
        s, t = (features(seed=i, dtype=dtype) for i in (0, 1))
        method = build("crd", s, t, k=20)
        method.loss(s, t, batch())
        losses.append(method.loss(s, t, batch(seed=1)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_incompatible_setups_are_refused() -> None:
    with pytest.raises(Incompatible, match="12 samples in one class"):
        crd(torch.zeros(12, dtype=torch.long), 4)
    with pytest.raises(ValueError, match="k is 0, expected 1 or more"):
        crd(torch.arange(8), 0)
    with pytest.raises(ValueError, match=r"tau is 0\.001"):
        crd(torch.arange(8), 4, tau=0.001)
    with pytest.raises(ValueError, match="'exact' or 'relax'"):
        crd(torch.arange(8), 4, mode="exat")


def test_default_negatives_on_cifar_100() -> None:
    n = 50000
    s, t = (features(64, seed=i, num_classes=100) for i in (0, 1))
    method: Any = lookup.load("crd")(setup(s, t, train_labels=torch.arange(n) % 100))
    assert method.k == 16384
    assert method.tries < n / 5
    _, drawn = method.draw(batch(64, num_classes=100, n=n))
    assert (drawn.sum(1) == 16384).all()
