import math
from pathlib import Path

import pytest
import torch
from golden_cases import semckd
from golden_files import read_case
from random_features import batch, build, features, gradient_is_right
from torch import Tensor

from kdbench.method import Features, Incompatible, Method

ABLATIONS = ["learned", "equal", "raw", "one_to_one", "hard", "straight_through", "shared"]


def pair(batch_size: int = 4, *, dtype: torch.dtype = torch.float64) -> tuple[Features, Features]:
    """Return features of a student with two stages and a teacher with three."""
    s = features(batch_size, (2, 3), (4, 2), seed=0, dtype=dtype)
    return s, features(batch_size, (3, 2, 4), (4, 4, 2), seed=1, dtype=dtype)


def weights_by_loops(
    state: dict[str, Tensor], s: Features, t: Features, soft: float
) -> list[list[list[float]]]:
    """Return the attention [B][S][T] by its definition."""

    def embed(prefix: str, maps: Tensor) -> list[list[float]]:
        flat = [x.flatten().tolist() for x in maps]
        embeddings = []
        for a in flat:
            row = [sum(p * q for p, q in zip(a, b, strict=True)) for b in flat]
            for i in (1, 2):
                weight = state[f"{prefix}.linear{i}.weight"].tolist()
                bias = state[f"{prefix}.linear{i}.bias"].tolist()
                row = [
                    sum(w * x for w, x in zip(line, row, strict=True)) + shift
                    for line, shift in zip(weight, bias, strict=True)
                ]
                row = [max(0.0, x) for x in row] if i == 1 else row
            length = math.sqrt(sum(x * x for x in row))
            embeddings.append([x / length for x in row])
        return embeddings

    queries = [embed(f"queries.{i}", x) for i, x in enumerate(s.stages)]
    keys = [embed(f"keys.{j}", x) for j, x in enumerate(t.stages)]
    attention = []
    for b in range(len(s.logits)):
        rows = []
        for query in queries:
            dots = [sum(p * q for p, q in zip(query[b], k[b], strict=True)) / soft for k in keys]
            total = sum(math.exp(x) for x in dots)
            rows.append([math.exp(x) / total for x in dots])
        attention.append(rows)
    return attention


def identity_regressors(method: Method) -> None:
    """Make every pair's regressor compare the channels' sum, so that loops can follow it."""
    with torch.no_grad():
        for parameter in method.get_submodule("regressors").parameters():
            parameter.fill_(1.0)


@pytest.mark.parametrize("soft", [1.0, 0.5])
def test_value(soft: float) -> None:
    s, t = pair()
    method = build("semckd", s, t, soft=soft, factor=2, projection="linear")
    identity_regressors(method)
    attention = weights_by_loops(method.state_dict(), s, t, soft)
    total = 0.0
    for b in range(4):
        for i, a in enumerate(s.stages):
            for j, c in enumerate(t.stages):
                size = min(a.shape[2], c.shape[2])
                off = 0.0
                for channel in range(c.shape[1]):
                    for y in range(size):
                        for x in range(size):
                            guess = sum(block(a[b, k], size, y, x) for k in range(a.shape[1]))
                            off += (guess - block(c[b, channel], size, y, x)) ** 2
                total += attention[b][i][j] * off / (c.shape[1] * size * size)
    loss = method.loss(s, t, batch())
    assert loss.item() == pytest.approx(total / (4 * 2), rel=1e-10)


def block(maps: Tensor, size: int, y: int, x: int) -> float:
    """Return the mean of the block that pooling [H, W] to ``size`` puts at (y, x)."""
    step = len(maps) // size
    return maps[y * step : (y + 1) * step, x * step : (x + 1) * step].mean().item()


def test_attention_sums_to_one_within_its_bounds() -> None:
    s, t = pair(8)
    attention = build("semckd", s, t, factor=1).attention(s, t)  # type: ignore[operator]
    assert attention.shape == (8, 2, 3)
    assert torch.allclose(attention.sum(2), torch.ones(8, 2, dtype=torch.float64))
    assert attention.min() >= 0.063
    assert attention.max() <= 0.787


def test_intermediate_results_match_reference() -> None:
    path = Path(__file__).parents[1] / "golden" / "semckd" / "mismatch_b8.npz"
    case = read_case(path)
    built = semckd(case)
    method = built.whole.double()
    state = method.state_dict()
    for name, target in built.param_names.items():
        state[target].copy_(case.params[name])
    with torch.no_grad():
        attention = method.attention(case.student, case.teacher)  # type: ignore[operator]
        flat_distances = method.distances(case.student, case.teacher)  # type: ignore[operator]
    distances = flat_distances.unflatten(0, attention.shape[1:]).permute(2, 0, 1)
    assert torch.allclose(attention, case.arrays["out/attention"], rtol=1e-10)
    assert torch.allclose(distances, case.arrays["out/pair_mse"], rtol=1e-10)


@pytest.mark.parametrize("attention", ABLATIONS)
@pytest.mark.parametrize("projection", ["full", "linear"])
def test_every_ablation_works(attention: str, projection: str) -> None:
    s, t = pair(dtype=torch.float32)
    s = s.map(lambda x: x.requires_grad_())
    method = build("semckd", s, t, attention=attention, projection=projection)
    loss = method.loss(s, t, batch())
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in s.stages)


@pytest.mark.parametrize("attention", ABLATIONS)
def test_attention_is_a_distribution(attention: str) -> None:
    s, t = pair()
    weights = build("semckd", s, t, attention=attention).attention(s, t)  # type: ignore[operator]
    assert weights.shape == (4, 2, 3)
    assert torch.allclose(weights.sum(2), torch.ones(4, 2, dtype=torch.float64))


def test_definition_of_each_ablation() -> None:
    s, t = pair()

    def weights(attention: str) -> Tensor:
        method = build("semckd", s, t, attention=attention, factor=1)
        result: Tensor = method.attention(s, t)  # type: ignore[operator]
        return result

    learned = weights("learned")
    best = torch.nn.functional.one_hot(learned.argmax(2), 3).double()
    assert torch.equal(weights("equal"), torch.full_like(learned, 1 / 3))
    assert torch.equal(weights("one_to_one")[2], torch.eye(2, 3, dtype=torch.float64))
    assert torch.equal(weights("hard"), best)
    assert not weights("hard").requires_grad
    assert torch.allclose(weights("straight_through"), best)
    assert weights("straight_through").requires_grad
    assert torch.equal(weights("shared")[0], weights("shared")[3])
    logits = learned.log().mean(0)
    assert torch.allclose(weights("shared")[0], logits.softmax(1))

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        """Return the cosine of the second sample's similarities to the batch."""
        rows = [(x.flatten(1) @ x.flatten(1).T)[1] for x in (a, b)]
        return torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=0)

    raw = torch.stack([cosine(s.stages[0], x) for x in t.stages]).softmax(0)
    assert torch.allclose(weights("raw")[1, 0], raw)


def test_one_to_one_creates_only_used_regressors() -> None:
    s, t = pair()
    method = build("semckd", s, t, attention="one_to_one")
    assert {name.split(".")[1] for name, _ in method.named_parameters()} == {"0", "1"}


def test_no_projection_needs_equal_channels() -> None:
    s = features(dtype=torch.float32)
    with pytest.raises(Incompatible, match=r"student \[4, 8, 8\], teacher \[6, 4, 4\]"):
        build("semckd", s, s, projection="none")
    method = build("semckd", s, s, projection="none", attention="one_to_one")
    assert method.loss(s, s, batch()).item() == 0


def test_unknown_ablations_are_refused() -> None:
    s, t = pair()
    with pytest.raises(ValueError, match="attention is 'none', expected one of learned, equal"):
        build("semckd", s, t, attention="none")
    with pytest.raises(ValueError, match="projection is 'half', expected one of full, linear"):
        build("semckd", s, t, projection="half")


@pytest.mark.parametrize("factor", [0, 5])
def test_factor_beyond_the_batch_is_refused(factor: int) -> None:
    s, t = pair(4)
    with pytest.raises(Incompatible, match=f"factor is {factor}, expected 1 to the batch size, 4"):
        build("semckd", s, t, factor=factor)


def test_smaller_batch_is_padded_with_zeros() -> None:
    """Zero samples have zero similarity to all others; the attention of the rest is unchanged."""
    s, t = pair(8)
    method = build("semckd", s, t, factor=1)
    few_s, few_t = (f.map(lambda x: x[:5]) for f in (s, t))
    padded_s, padded_t = (
        f.map(lambda x: torch.cat((x[:5], torch.zeros_like(x[5:])))) for f in (s, t)
    )
    few = method.attention(few_s, few_t)  # type: ignore[operator]
    padded = method.attention(padded_s, padded_t)  # type: ignore[operator]
    assert torch.allclose(few, padded[:5])
    assert method.loss(few_s, few_t, batch(5)).isfinite()


def test_larger_batch_is_refused() -> None:
    s, t = pair(4)
    large_s, large_t = pair(6)
    with pytest.raises(ValueError, match="built for batches of 4, this one has 6"):
        build("semckd", s, t).loss(large_s, large_t, batch(6))


def test_zero_embedding_gives_finite_loss_and_gradient() -> None:
    s, t = pair(4)
    method = build("semckd", s, t)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if "linear" in name:
                parameter.zero_()
    loss = method.loss(s, t, batch())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_regressors_of_eleven_stages_have_distinct_names() -> None:
    s = features(2, [2] * 11, [2] * 11)
    method = build("semckd", s, s, projection="linear", factor=1)
    assert sum(name.startswith("regressors") for name, _ in method.named_parameters()) == 121


@pytest.mark.parametrize("attention", ["learned", "shared", "raw"])
def test_gradient(attention: str) -> None:
    s, t = pair(4)
    s, t = (f.map(lambda x: x / 3) for f in (s, t))
    method = build("semckd", s, t, factor=1, projection="linear", attention=attention)
    assert gradient_is_right(method, s, t)
