"""Comparison of a golden case with our method, on any device; see tests/golden/README.md."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from golden_builders import BUILDERS
from golden_files import Built, Case
from torch import Tensor
from torch.nn import functional as F

BOUND, LOOSE = 1e-8, {"hkd": 1e-7}
"""Bound of a difference relative to the largest value, and folders with another bound."""
FLOOR = 1e-10
"""Absolute difference that is allowed besides, for values that are zero in theory."""
INTERMEDIATE = "an intermediate result, from which loss and gradients follow"


class Difference(NamedTuple):
    """The difference of a tensor from the reference.

    Attributes:
        key: name in the file.
        off: largest absolute difference.
        largest: largest absolute value of the reference.
        problem: why the tensors cannot be compared, or "".
    """

    key: str
    off: float = 0.0
    largest: float = 0.0
    problem: str = ""

    def within(self, bound: float) -> bool:
        """Return whether the difference is allowed; never if it is NaN."""
        return not self.problem and self.off <= bound * self.largest + FLOOR

    def relative(self) -> float:
        """Return the difference beyond ``FLOOR`` relative to the largest value."""
        beyond = max(0.0, self.off - FLOOR) if self.off == self.off else self.off
        return beyond / self.largest if beyond else 0.0

    def __str__(self) -> str:
        """Return the difference in one line."""
        return f"{self.key}: " + (
            self.problem or f"off by {self.off:.3g}, largest value {self.largest:.3g}"
        )


def check(case: Case) -> int:
    """Compare one case and return the number of tensors compared.

    Raises:
        AssertionError: names the tensors that differ.
    """
    bound = LOOSE.get(case.folder, BOUND)
    found = differences(case)
    wrong = [str(difference) for difference in found if not difference.within(bound)]
    assert not wrong, f"{case.folder}/{case.name}:\n  " + "\n  ".join(wrong)
    return len(found)


def differences(case: Case) -> list[Difference]:
    """Run a case's method on the device of its tensors, and return all differences."""
    if case.folder not in BUILDERS:
        known = ", ".join(sorted(BUILDERS))
        where = f"{case.folder}/{case.name}"
        raise AssertionError(f"{where}: no builder in golden_cases*.py, which have {known}")
    built = BUILDERS[case.folder](case)
    built.whole.double().to(case.batch.labels.device)
    fill(case, built)
    found: dict[str, Difference] = {}
    for key, ours, reference in every_comparison(case, built):
        assert key not in found, f"{key} is compared twice"
        # At once: a later step may change the tensor.
        found[key] = difference(key, ours, reference)
    reasons = built.ignore | {
        f"{group}/{name}": reason
        for group in ("grad_param", "buffer_after")
        for name, reason in built.ignore.items()
    }
    if built.compare is None:
        reasons |= {key: INTERMEDIATE for key in case.expected if key.startswith("out/")}
    left = sorted(case.expected - found.keys() - reasons.keys())
    assert not left, f"{case.folder}/{case.name}: not compared: {', '.join(left)}"
    return [*found.values()]


def every_comparison(case: Case, built: Built) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Run a case and yield what to compare: (key in the file, ours, the reference's)."""
    if built.compare is not None:
        for key, value in built.compare(case):
            assert key in case.expected, f"{key} is no expected value of the file"
            yield key, value, case.arrays[key]
        return
    loss = run(case, built)
    if loss.requires_grad:
        loss.backward()
    yield from comparisons(case, built, loss.detach(), built.whole.state_dict())


def fill(case: Case, built: Built) -> None:
    """Copy the reference's weights and check that nothing is left over on either side."""
    ours = built.whole.state_dict()
    for name, value in case.params.items():
        if name in built.read or name in built.ignore:
            continue
        assert name in built.param_names, f"param/{name} maps to nothing of ours"
        target = built.param_names[name]
        assert target in ours, f"param/{name} maps to {target}; we have {', '.join(ours)}"
        shapes = f"param/{name} {list(value.shape)}, {target} {list(ours[target].shape)}"
        assert value.numel() == ours[target].numel(), shapes
        with torch.no_grad():
            ours[target].copy_(value.reshape(ours[target].shape))
    unknown = built.param_names.keys() - case.params.keys()
    assert not unknown, f"mapped, but not in the file: {sorted(unknown)}"
    mapped = {*built.param_names.values(), *(x.removeprefix("ours:") for x in built.ignore)}
    left = [name for name, _ in built.whole.named_parameters() if name not in mapped]
    assert not left, f"parameters of ours to which nothing maps: {left}"


def run(case: Case, built: Built) -> Tensor:
    """Return the loss of a case."""
    where, method = f"{case.folder}/{case.name}", built.method
    assert case.kind in ("term", "peers"), f"{where}: kind {case.kind} needs Built.compare"
    assert method is not None, f"{where}: the builder gives no method"
    if built.run is not None:
        return built.run(case, method)
    if case.kind == "peers":
        s = case.student
        own = F.cross_entropy(s.logits, case.batch.labels)
        return own + method.loss(s, case.teacher, case.batch)
    term = {"distill": method.loss, "pretrain": method.pretrain_loss}[case.phase]
    return term(case.student, case.teacher, case.batch)


def comparisons(
    case: Case, built: Built, loss: Tensor, state: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the tensors to compare after a run: (key in the file, ours, the reference's)."""
    assert loss.ndim == 0, f"the loss is of shape {list(loss.shape)}, expected a scalar"
    yield "loss", loss, case.arrays["loss"]
    nothing = torch.zeros((), dtype=torch.float64)

    gradients = case.starting("grad")
    assert gradients.keys() <= case.inputs.keys(), f"grad/ of unknown inputs: {[*gradients]}"
    for name, leaf in case.inputs.items():
        ours = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        yield f"grad/{name}", ours, gradients.get(name, nothing.expand_as(leaf))

    parameters = dict(built.whole.named_parameters())
    gradients = case.starting("grad_param")
    for name in gradients.keys() - built.ignore.keys():
        assert built.param_names.get(name) in parameters, f"grad_param/{name}: no such parameter"
    for name, target in built.param_names.items():
        if target in parameters:
            leaf = parameters[target]
            ours = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            yield f"grad_param/{name}", ours, gradients.get(name, nothing.expand_as(leaf))

    for name, reference in case.starting("buffer_after").items():
        if name in built.ignore:
            continue
        if name in built.read:
            assert built.method is not None, f"buffer_after/{name}: the builder gives no method"
            yield f"buffer_after/{name}", built.read[name](built.method), reference
        else:
            assert name in built.param_names, f"buffer_after/{name} maps to nothing of ours"
            yield f"buffer_after/{name}", state[built.param_names[name]], reference

    for name, value in built.outputs.items():
        yield f"out/{name}", value(), case.arrays[f"out/{name}"]


def difference(key: str, ours: Tensor, reference: Tensor) -> Difference:
    """Return the difference of two tensors."""
    ours, reference = ours.detach().double().cpu(), reference.double().cpu()
    if ours.numel() != reference.numel():
        shapes = f"shape {list(ours.shape)}, expected {list(reference.shape)}"
        return Difference(key, problem=shapes)
    if not reference.numel():
        return Difference(key, problem="empty")
    off = (ours.reshape(reference.shape) - reference).abs().max().item()
    return Difference(key, off, reference.abs().max().item())
