"""Checks that any method must pass, ours or anybody's: ``kdbench check mine.py``.

A check raises ``Failed`` with a sentence that says what is wrong and what to do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.registry import lookup
from kdbench.registry.edge_cases import architectures, batch_sizes, duplicates, half, zeros
from kdbench.registry.toy_networks import Failed, MethodUnderTest, scalar, told

MOST = 1024
"""Numbers of a tensor that ``trace`` may name: they are written every epoch."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found; ``message`` says why it failed or what was left out."""

    name: str
    ok: bool
    message: str = ""


def cites(subject: MethodUnderTest) -> None:
    """The file's first line names a paper."""
    if not re.search(r"\b(19|20)\d\d\b|arXiv", subject.about.doc):
        raise Failed(
            f"the docstring's first line is {subject.about.doc!r}: name the paper, with its year "
            "or arXiv number"
        )


def finite_scalar(subject: MethodUnderTest) -> None:
    """The loss is one finite number."""
    subject.scene().losses()


def defaults(subject: MethodUnderTest) -> None:
    """Hyper-parameters given by name build the same method as the defaults."""
    given = replace(subject, hyper=subject.about.hyper | subject.hyper)
    if not same(subject.scene().loss(), given.scene().loss()):
        raise Failed("giving every hyper-parameter its default changes the loss")


def gradient(subject: MethodUnderTest) -> None:
    """The gradient reaches the student and everything that the method learns."""
    scene = subject.scene()
    reached = False
    for loss in scene.losses().values():
        if not loss.requires_grad:
            raise Failed("the loss has no gradient: is something detached, or under no_grad?")
        loss.backward()
        grads = [x.grad for _, x in scene.s.named() if x.grad is not None]
        reached = reached or any(bool(grad.any()) for grad in grads)
    if not reached:
        raise Failed("no gradient reaches any of the student's features")
    idle = [
        name for name, p in scene.method.named_parameters() if p.requires_grad and p.grad is None
    ]
    if idle:
        raise Failed(
            f"no gradient reaches {', '.join(idle)}: use them, freeze them (requires_grad_(False)) "
            "or do not make them"
        )


def untouched(subject: MethodUnderTest) -> None:
    """Features and teacher are as they were."""
    scene = subject.scene()
    watched = {f"the student's {name}": x for name, x in scene.s.named()}
    watched |= {f"the teacher's {name}": x for name, x in scene.t.named()}
    head = scene.setup.teacher_head
    assert head is not None
    watched |= {f"the teacher head's {name}": x for name, x in head.named_parameters()}
    before = {name: x.detach().clone() for name, x in watched.items()}
    for loss in scene.losses().values():
        if loss.requires_grad:
            loss.backward()
    for name, x in watched.items():
        if not torch.equal(before[name], x):
            raise Failed(f"{name} changed: work on a copy, not in place")
        if "teacher" in name and (x.requires_grad or x.grad is not None):
            raise Failed(f"{name} got a gradient: the teacher is a constant")


def restores(subject: MethodUnderTest) -> None:
    """What ``state_dict`` holds is all there is to remember."""
    first = subject.scene()
    first.losses()
    other = subject.scene(seed=2)
    other.method.load_state_dict(first.method.state_dict())
    torch.manual_seed(3)
    expected = first.loss()
    torch.manual_seed(3)
    if not same(expected, other.loss()):
        raise Failed(
            "after load_state_dict the loss is another: keep what is remembered in buffers "
            "(register_buffer), and derive random numbers from setup.seed and batch.step"
        )


def repeats(subject: MethodUnderTest) -> None:
    """The same seed gives the same loss."""
    found = []
    for _ in range(2):
        scene = subject.scene()
        torch.manual_seed(3)
        found.append(scene.loss())
    if not same(*found):
        raise Failed(
            f"the same seed gave {found[0].item():.9g} and {found[1].item():.9g}: draw random "
            "numbers from a torch generator with a fixed seed"
        )


def first_phase(subject: MethodUnderTest) -> None:
    """The phase before training names modules and has a loss."""
    scene = subject.scene()
    modules = scene.method.pretrain(scene.student)
    if not modules:
        return
    for module in modules:
        if not isinstance(module, nn.Module):
            raise Failed(f"pretrain returned a {type(module).__name__}, expected modules")
    known = {*scene.method.modules(), *scene.student.modules()}
    if any(module not in known for module in modules):
        raise Failed("pretrain returned a module that is neither the student's nor the method's")
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise Failed("pretrain returned modules without anything to train")
    loss = scene.method.pretrain_loss(scene.student(scene.batch.images), scene.t, scene.batch)
    scalar("pretrain_loss", loss).backward()
    if all(p.grad is None for p in parameters):
        raise Failed("pretrain_loss trains none of the modules that pretrain returned")


def prediction(subject: MethodUnderTest) -> None:
    """``predict`` gives logits."""
    scene = subject.scene()
    scene.method.eval()
    with torch.no_grad():
        logits = scene.method.predict(scene.s)
    expected = list(scene.s.logits.shape)
    if list(logits.shape) != expected or not logits.isfinite().all():
        raise Failed(f"predict returned {list(logits.shape)}, expected finite {expected}")


def kept(subject: MethodUnderTest) -> None:
    """``trace`` names small finite tensors, draws nothing and changes nothing."""
    scene = subject.scene()
    scene.method.eval()
    before = {name: x.clone() for name, x in scene.method.state_dict().items()}
    drawn = torch.get_rng_state()
    with torch.no_grad():
        found = scene.method.trace(scene.s, scene.t)
    for name, x in found.items():
        if not isinstance(x, Tensor) or x.numel() > MOST or not x.isfinite().all():
            raise Failed(f"trace: {name} is no finite tensor of at most {MOST} numbers")
    if not torch.equal(drawn, torch.get_rng_state()) or any(
        not torch.equal(before[name], x) for name, x in scene.method.state_dict().items()
    ):
        raise Failed("trace draws random numbers or changes the method: it may only look")


Check = Callable[[MethodUnderTest], None]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("cites a paper", cites),
    ("finite scalar loss", finite_scalar),
    ("defaults can be given", defaults),
    ("gradient reaches what learns", gradient),
    ("features and teacher untouched", untouched),
    ("state restores", restores),
    ("same seed, same loss", repeats),
    ("phase before training", first_phase),
    ("batches of 1, 2, 3, 7", batch_sizes),
    ("all-zero features", zeros),
    ("duplicate samples", duplicates),
    ("other architectures", architectures),
    ("bfloat16 features", half),
    ("predictions", prediction),
    ("trace", kept),
)
"""Every check, by its name."""


def run(name: str, **hyper: Any) -> list[CheckResult]:
    """All checks on one method.

    Args:
        name: of a method, or the path of its file.
        hyper: hyper-parameters that are not to be the defaults.

    Returns:
        One result a check; a file that cannot be read or loaded gives one failed result.
    """
    try:
        about = lookup.describe(name)
        subject = MethodUnderTest(
            about, lookup.load(name), lookup.hyper(name, hyper) if hyper else {}
        )
    except lookup.RegistryError as error:
        return [CheckResult("can be loaded", False, str(error))]
    return [CheckResult("can be loaded", True), *(result(*check, subject) for check in CHECKS)]


def result(name: str, check: Check, subject: MethodUnderTest) -> CheckResult:
    """What one check says of a method."""
    state = torch.get_rng_state()
    try:
        check(subject)
    except Failed as error:
        return CheckResult(name, False, str(error))
    except Exception as error:
        return CheckResult(name, False, told(error, subject))
    finally:
        torch.set_rng_state(state)
    return CheckResult(name, True)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal to the last bit."""
    return torch.equal(a.detach(), b.detach())
