"""Tests of how golden files of every kind are read, and that no expected value is skipped."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_check
import numpy as np
import pytest
import torch
from golden_files import Built, Case, read_case
from torch import Tensor, nn
from torch.nn import functional as F

SHIPPED = Path(__file__).parent
META = {"method": "new", "variant": "default", "phase": "distill", "hyper": {}, "num_classes": 5}


def written(path: Path, arrays: dict[str, Any], **meta: Any) -> Path:
    """Write a golden file and return its path."""
    path.parent.mkdir(exist_ok=True)
    arrays = {key: np.asarray(value) for key, value in arrays.items()}
    np.savez(path, meta=json.dumps(META | {"batch_size": 2} | meta), **arrays)
    return path


def peers_file(folder: Path, **more: Any) -> Path:
    draw = np.random.default_rng(1).normal
    arrays: dict[str, Any] = {
        f"p{i}_{name}": draw(size=(2, 5)) for i in range(3) for name in ("embedding", "logits")
    }
    arrays.update(labels=np.array([1, 4]), shared_map=draw(size=(2, 3, 4, 4)), loss=0.0)
    path = folder / "new" / "case.npz"
    return written(path, arrays | more, kind="peers", n_peers=3, leader=2)


def test_leader_comes_first(tmp_path: Path) -> None:
    case = read_case(peers_file(tmp_path))
    order = [peer.logits for peer in case.student.peers]
    assert [id(x) for x in order] == [id(case.inputs[f"p{i}_logits"]) for i in (2, 0, 1)]
    assert case.student.logits is case.inputs["p2_logits"]
    assert all(peer.stages[-2] is case.inputs["shared_map"] for peer in case.student.peers)
    assert not case.teacher.peers[1].logits.requires_grad


def test_loss_of_peers_contains_the_leaders_cross_entropy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sum(nn.Module):
        def loss(self, s: Any, t: Any, batch: Any) -> Tensor:
            return s.peers[1].logits.sum()

    monkeypatch.setitem(golden_check.BUILDERS, "new", lambda case: Built(Sum()))  # type: ignore[arg-type]
    case = read_case(peers_file(tmp_path))
    leader, other = (case.inputs[f"p{i}_logits"].detach() for i in (2, 0))
    leader = leader.clone().requires_grad_()
    own = F.cross_entropy(leader, case.batch.labels)
    own.backward()
    assert leader.grad is not None
    case.arrays["loss"] = own.detach() + other.sum()
    case.arrays["grad/p2_logits"] = leader.grad
    case.arrays["grad/p0_logits"] = torch.ones_like(other)
    assert golden_check.check(case) == 1 + 7  # the loss and every leaf's gradient

    del case.arrays["grad/p0_logits"]
    with pytest.raises(AssertionError, match=r"grad/p0_logits: off by 1, largest value 0\b"):
        golden_check.check(replace(read_case(peers_file(tmp_path)), arrays=case.arrays))


def test_second_view_is_a_view(tmp_path: Path) -> None:
    with np.load(SHIPPED / "kd" / "t4_b4.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
    arrays |= {"s2_logits": arrays["s_logits"] + 1, "t2_logits": arrays["t_logits"] + 1}
    case = read_case(written(tmp_path / "new" / "case.npz", arrays))
    assert case.student.views[0].logits is case.inputs["s2_logits"]
    assert torch.equal(case.teacher.views[0].logits, case.teacher.logits + 1)
    assert len(case.batch.views) == 1
    assert case.inputs["s2_logits"].requires_grad
    assert not case.teacher.views[0].logits.requires_grad


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "case.npz", {"labels": [0]}, kind="film")
    with pytest.raises(AssertionError, match="the kind is film, expected one of term, peers, step"):
        read_case(path)


STEPS = {
    "x0": np.full((2, 3), 2.0),
    "x1": np.full((2, 3), 3.0),
    "labels0": [0, 1],
    "labels1": [1, 1],
    "labels": [0, 1],
    "param/w": np.zeros(3),
    "after0/w": np.full(3, 2.0),
    "after1/w": np.full(3, 5.0),
    "out/loss0": 7.0,
    "out/loss1": 8.0,
    "loss": 7.0,
}
"""Two steps of a parameter to which each step adds its images."""


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def steps_case(folder: Path, **more: Any) -> Case:
    return read_case(written(folder / "new" / "case.npz", STEPS | more, kind="step"))


def toy_builder(leave: str = "", add: str = "") -> Any:
    """Return a builder whose run leaves a key out, or yields one more."""

    def build(case: Case) -> Built:
        toy = Toy()

        def compare(case: Case) -> Iterator[tuple[str, Tensor]]:
            values = {"loss": torch.tensor(7.0), "out/loss0": torch.tensor(7.0)}
            yield from ((key, value) for key, value in values.items() if key != leave)
            for i, batch in enumerate(case.batches):
                with torch.no_grad():
                    toy.weight.add_(batch.images.mean(0))  # in place: compared before the next
                if leave != f"after{i}/w":
                    yield f"after{i}/w", toy.weight
            if add:
                yield add, toy.weight

        ignore = {"out/loss1": "not computed by the toy"}
        return Built(None, {"w": "weight"}, module=toy, compare=compare, ignore=ignore)

    return build


def test_steps_are_compared_when_they_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(golden_check.BUILDERS, "new", toy_builder())
    case = steps_case(tmp_path)
    assert [batch.labels.tolist() for batch in case.batches] == [[0, 1], [1, 1]]
    assert golden_check.check(case) == 4
    wrong = steps_case(tmp_path, **{"after0/w": np.array([2.0, 2.0, 2.0 + 1e-6])})
    with pytest.raises(AssertionError, match="after0/w: off by 1e-06"):
        golden_check.check(wrong)


@pytest.mark.parametrize("key", ["loss", "out/loss0", "after0/w", "after1/w"])
def test_value_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setitem(golden_check.BUILDERS, "new", toy_builder(leave=key))
    with pytest.raises(AssertionError, match=f"new/case: not compared: {key}$"):
        golden_check.check(steps_case(tmp_path))


@pytest.mark.parametrize("key", ["after2/w", "meta_grad0/w", "out/losses", "buffer_after/mean"])
def test_new_value_in_the_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setitem(golden_check.BUILDERS, "new", toy_builder())
    with pytest.raises(AssertionError, match=f"not compared: {key}$"):
        golden_check.check(steps_case(tmp_path, **{key: np.zeros(3)}))


@pytest.mark.parametrize(
    ("key", "message"),
    [("after0/w", "after0/w is compared twice"), ("after9/w", "after9/w is no expected value")],
)
def test_wrong_key_of_a_builder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, message: str
) -> None:
    monkeypatch.setitem(golden_check.BUILDERS, "new", toy_builder(add=key))
    with pytest.raises(AssertionError, match=message):
        golden_check.check(steps_case(tmp_path))


def test_steps_need_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        golden_check.BUILDERS, "new", lambda case: Built(None, {"w": "weight"}, module=Toy())
    )
    with pytest.raises(AssertionError, match=r"new/case: kind step needs Built\.compare"):
        golden_check.check(steps_case(tmp_path))


@pytest.mark.parametrize("summed", [False, True])
def test_two_steps_of_crd_are_read(tmp_path: Path, summed: bool) -> None:
    path = crd_file(tmp_path, summed)
    assert golden_check.check(read_case(path)) == 14
    case = read_case(path)
    case.arrays["buffer_after/contrast.memory_v2"][3, 1] += 1e-6
    with pytest.raises(AssertionError, match=r"memory_v2: off by 1e-06"):
        golden_check.check(case)
    case = read_case(path)
    case.arrays["contrast_idx2"][0, 0] = 11
    with pytest.raises(AssertionError, match=r"  loss: off by"):
        golden_check.check(case)


def crd_file(folder: Path, summed: bool) -> Path:
    """Write a two-step file, made from the visible first step by the formulas of the paper."""
    with np.load(SHIPPED / "crd" / "first_step_b4.npz") as file:
        meta = json.loads(str(file["meta"]))
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
    draw = torch.Generator().manual_seed(1)
    arrays["index2"] = torch.tensor([7, 2, 11, 4])
    negatives = torch.randint(20, (4, 9), generator=draw)
    arrays["contrast_idx2"] = torch.cat([arrays["index2"][:, None], negatives], 1)

    weights = {
        key.removeprefix("param/"): value.clone().requires_grad_("embed" in key)
        for key, value in arrays.items()
        if key.startswith("param/")
    }
    embedding = arrays["s_embedding"].clone().requires_grad_()
    k, tau, *_, momentum = weights["contrast.params"].tolist()
    banks = [weights["contrast.memory_v1"].clone(), weights["contrast.memory_v2"].clone()]
    normalisers: list[Tensor] = []
    losses: list[Tensor] = []
    for number in ("", "2"):
        index, chosen = arrays[f"index{number}"], arrays[f"contrast_idx{number}"]
        anchors = [
            F.normalize(F.linear(x, weights[f"{n}.linear.weight"], weights[f"{n}.linear.bias"]))
            for n, x in (("embed_s", embedding), ("embed_t", arrays["t_embedding"]))
        ]
        scores = [
            torch.einsum("bd,bkd->bk", v, bank[chosen]).div(tau).exp()
            for v, bank in zip(anchors, reversed(banks), strict=True)
        ]
        normalisers = normalisers or [20 * score.detach().mean() for score in scores]
        loss = torch.zeros(())
        for score, z in zip(scores, normalisers, strict=True):
            p, r = score / z, k / 20
            parts = [p[:, :1] / (p[:, :1] + r + 1e-7), r / (p[:, 1:] + r + 1e-7)]
            loss = loss - torch.cat(parts, 1).log().sum(1).mean()
        losses.append(loss)
        for bank, v in zip(banks, anchors, strict=True):
            moved = momentum * bank[index] + (1 - momentum) * v.detach()
            bank[index] = F.normalize(moved)
    loss = losses[0] + losses[1] if summed else losses[1]
    loss.backward()

    params = weights["contrast.params"].clone()
    params[2:4] = torch.stack(normalisers)
    arrays |= {"loss": loss.detach(), "buffer_after/contrast.params": params}
    arrays |= {f"buffer_after/contrast.memory_v{i + 1}": bank for i, bank in enumerate(banks)}
    leaves = {"grad/s_embedding": embedding}
    leaves |= {f"grad_param/{n}": w for n, w in weights.items() if w.requires_grad}
    arrays |= {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
    path = folder / "crd" / "two_steps.npz"
    path.parent.mkdir()
    numbers: dict[str, Any] = {key: value.numpy() for key, value in arrays.items()}
    np.savez(path, meta=json.dumps(meta), **numbers)
    return path
