"""Checks that every method must pass, built in or not: ``kdbench check mine.py``.

A check that fails raises ``Failed``; the message says what is wrong and what to do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.method import ContractBroken, Method
from kdbench.models.peers import networks
from kdbench.registry import lookup
from kdbench.registry.conduct import late_layers, layout, loss_fault, untrained_layers
from kdbench.registry.edge_cases import architectures, batch_sizes, duplicates, half, zeros
from kdbench.registry.look_ahead_check import look_ahead, meta_parameters
from kdbench.registry.output_checks import answers, prediction, trace
from kdbench.registry.process_state import kept
from kdbench.registry.shared_tensors import of_batch
from kdbench.registry.toy_networks import Failed, MethodUnderTest, ToySetup, one_line, scalar


@dataclass(frozen=True)
class CheckResult:
    """The result of one check; ``message`` gives the reason for a failure."""

    name: str
    ok: bool
    message: str = ""


def cites(subject: MethodUnderTest) -> None:
    """Check that the file's first line names a paper."""
    if not re.search(r"\b(19|20)\d\d\b|arXiv", subject.description.doc):
        raise Failed(
            f"the docstring's first line is {subject.description.doc!r}: name the paper, with its "
            "year or arXiv number"
        )


def finite_scalar(subject: MethodUnderTest) -> None:
    """Check that every loss is one finite number."""
    subject.toy_setup().losses()


def defaults(subject: MethodUnderTest) -> None:
    """Check that giving the default hyper-parameters by name builds the same method."""
    given = replace(subject, hyper=subject.description.hyper | subject.hyper)
    if not same(subject.toy_setup().loss(), given.toy_setup().loss()):
        raise Failed("giving every hyper-parameter its default changes the loss")


EPOCHS = (1, 2, 1000)
"""Epochs in one of which a gradient must reach the student."""
STEPS = 20
"""Steps in one of which a gradient must reach each of a method's parameters."""


def _reaches(toy: ToySetup) -> bool:
    """Tell whether gradients reach the student's features."""
    for what, loss in toy.losses().items():
        fault = loss_fault(what, loss, gradient=True)
        if fault:
            raise Failed(fault)
        loss.backward()
    return any(x.grad is not None and bool(x.grad.any()) for _, x in toy.s.named())


def _idle(method: Method) -> list[str]:
    """Return the names of trained parameters that no gradient has reached."""
    meta = meta_parameters(method)  # ``look_ahead`` checks those
    return [
        name
        for name, p in method.named_parameters()
        if p.requires_grad and p.grad is None and name not in meta
    ]


def gradient(subject: MethodUnderTest) -> None:
    """Check that gradients reach the student and every trained parameter of the method."""
    toy = subject.toy_setup()
    # A weight that grows from 0 is still 0 in the first epoch, or in the first step.
    reached = any(_reaches(replace(toy, batch=replace(toy.batch, epoch=n))) for n in EPOCHS)
    if not reached:
        raise Failed("no gradient reaches any of the student's features")
    trained = [*toy.student.parameters(), *toy.method.parameters()]
    fault = untrained_layers(subject.cls.__name__, toy.method, trained)
    if fault:
        raise Failed(fault)
    idle = _idle(toy.method)
    for step in range(1, STEPS):  # a method may draw what it trains in a step
        if not idle:
            break
        _reaches(replace(toy, batch=replace(toy.batch, step=step)))
        idle = _idle(toy.method)
    if idle:
        raise Failed(
            f"no gradient reaches {', '.join(idle)}: use them, freeze them (requires_grad_(False)) "
            "or do not make them"
        )


def untouched(subject: MethodUnderTest) -> None:
    """Check that the method does not change its inputs, the teacher or the process.

    Everything that a training watches is watched here, by the same functions.
    """
    who = subject.cls.__name__
    with kept(who):
        toy = subject.toy_setup()
        toy.given.check(f"{who}.__init__")
        watched = {f"the student's {name}": x for name, x in toy.s.named()}
        watched |= {f"the teacher's {name}": x for name, x in toy.t.named()}
        head = toy.setup.teacher_head
        assert head is not None
        watched |= {f"the teacher head's {name}": x for name, x in head.named_parameters()}
        before = {name: x.detach().clone() for name, x in watched.items()}
        shared = of_batch(toy.batch, None, contents=True)
        for loss in toy.losses().values():
            if loss.requires_grad:
                loss.backward()
        shared.check(who)
    for name, x in watched.items():
        if not torch.equal(before[name], x):
            raise Failed(f"{name} changed: work on a copy, not in place")
        if "teacher" in name and (x.requires_grad or x.grad is not None):
            raise Failed(f"{name} got a gradient: the teacher is a constant")


def restores(subject: MethodUnderTest) -> None:
    """Check that ``state_dict`` holds the method's whole state."""
    first = subject.toy_setup()
    before = layout(first.method)
    first.losses()
    fault = late_layers(subject.cls.__name__, first.method, before)
    if fault:
        raise Failed(fault)
    other = subject.toy_setup(seed=2)
    other.method.load_state_dict(first.method.state_dict())
    torch.manual_seed(3)
    expected = first.loss()
    torch.manual_seed(3)
    if not same(expected, other.loss()):
        raise Failed(
            "the loss differs after load_state_dict: keep state in buffers (register_buffer), and "
            "draw random numbers in a step from batch.generator(setup.seed)"
        )


def repeats(subject: MethodUnderTest) -> None:
    """Check that the same seed gives the same loss."""
    losses = []
    for _ in range(2):
        toy = subject.toy_setup()
        torch.manual_seed(3)
        losses.append(toy.loss())
    if not same(*losses):
        raise Failed(
            f"the same seed gave {losses[0].item():.9g} and {losses[1].item():.9g}: draw random "
            "numbers in a step from batch.generator(setup.seed), others from a torch.Generator "
            "seeded with setup.seed"
        )


def pretraining_phase(subject: MethodUnderTest) -> None:
    """Check that a pretraining phase has valid modules and a loss that trains them."""
    toy = subject.toy_setup()
    modules = toy.method.pretrain(networks(toy.student)[0])
    hyper = subject.description.hyper | subject.hyper
    if bool(modules) != subject.description.pretrains_with(hyper):
        given = "modules" if modules else "no modules"
        raise Failed(
            f"pretrain returned {given}: set pretrains_when to the values of hyper-parameters with "
            "which it returns modules, so that plans and pages describe the phase"
        )
    if not modules:
        return
    for module in modules:
        if not isinstance(module, nn.Module):
            raise Failed(f"pretrain returned a {type(module).__name__}, expected modules")
    own = {*toy.method.modules(), *toy.student.modules()}
    if any(module not in own for module in modules):
        raise Failed("pretrain returned a module that is neither the student's nor the method's")
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise Failed("pretrain returned modules without anything to train")
    loss = toy.method.pretrain_loss(toy.student(toy.batch.images), toy.t, toy.batch)
    scalar("pretrain_loss", loss).backward()
    if all(p.grad is None for p in parameters):
        raise Failed("pretrain_loss trains none of the modules that pretrain returned")


Check = Callable[[MethodUnderTest], None]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("cites a paper", cites),
    ("finite scalar loss", finite_scalar),
    ("defaults can be given", defaults),
    ("gradient reaches what learns", gradient),
    ("inputs and process untouched", untouched),
    ("state restores", restores),
    ("same seed, same loss", repeats),
    ("pretraining phase", pretraining_phase),
    ("look ahead", look_ahead),
    ("batches of 1, 2, 3, 7", batch_sizes),
    ("all-zero features", zeros),
    ("duplicate samples", duplicates),
    ("other architectures", architectures),
    ("bfloat16 features", half),
    ("predictions", prediction),
    ("answers", answers),
    ("trace", trace),
)
"""Names and functions of all checks, in the order of the report."""


def run(name: str, **hyper: Any) -> list[CheckResult]:
    """Run all checks on one method.

    Args:
        name: name of a method, or path of its file.
        hyper: hyper-parameters that replace the defaults.

    Returns:
        One result per check; a single failed result if the file cannot be read or loaded.
    """
    try:
        description = lookup.describe(name)
        subject = MethodUnderTest(
            description, lookup.load(name), lookup.hyper(name, hyper) if hyper else {}
        )
    except lookup.RegistryError as error:
        return [CheckResult("can be loaded", False, str(error))]
    return [CheckResult("can be loaded", True), *(result(*check, subject) for check in CHECKS)]


def result(name: str, check: Check, subject: MethodUnderTest) -> CheckResult:
    """Run one check on a method."""
    state = torch.get_rng_state()
    try:
        with kept(name, silent=True):  # ``untouched`` reports it
            check(subject)
    except (Failed, ContractBroken) as error:
        return CheckResult(name, False, str(error))
    except Exception as error:
        return CheckResult(name, False, one_line(error, subject))
    finally:
        torch.set_rng_state(state)
    return CheckResult(name, True)


def same(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors bit by bit."""
    return torch.equal(a.detach(), b.detach())
