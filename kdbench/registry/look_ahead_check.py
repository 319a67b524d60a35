"""The check of methods that look ahead: ``adapt`` runs, and trains what ``meta`` returns."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.look_ahead import LookAhead, Whole, make_optimizer
from kdbench.method import Method
from kdbench.registry.toy_networks import Failed, MethodUnderTest, ToySetup, scalar

STEPS = 3
"""Steps in one of which a gradient must reach each meta-parameter: some factors begin at 0."""


def meta_parameters(method: Method) -> dict[str, nn.Parameter]:
    """Return what ``adapt`` trains, by name."""
    ids = {id(p) for module in method.meta() for p in module.parameters()}
    return {n: p for n, p in method.named_parameters() if p.requires_grad and id(p) in ids}


def look_ahead(subject: MethodUnderTest) -> None:
    """Check that ``adapt`` trains every meta-parameter, and nothing that the optimiser trains."""
    toy = subject.toy_setup()
    modules = toy.method.meta()
    if any(module not in {*toy.method.modules()} for module in modules):
        raise Failed("meta returned what is not one of the method's own modules")
    if subject.cls.adapt is Method.adapt:
        if modules:
            raise Failed("meta returned modules, but no adapt trains them")
        return
    meta = meta_parameters(toy.method)
    if modules and not meta:
        raise Failed("meta returned modules without anything to train")
    idle = {*meta} - _reached(toy, meta)
    if idle:
        raise Failed(
            f"in {STEPS} steps of adapt no gradient reaches {', '.join(sorted(idle))}: let the "
            "loss given to inner.learn depend on them, freeze them or leave them out of meta"
        )


def _reached(toy: ToySetup, meta: dict[str, nn.Parameter]) -> set[str]:
    """Take steps of SGD, each with a look ahead; return the meta-parameters that get gradients."""
    whole = Whole(toy.student, nn.ModuleList([toy.method])).train()
    own = {id(p) for p in meta.values()}
    trained = [p for p in whole.parameters() if p.requires_grad and id(p) not in own]
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=5e-4)
    meta_optimizer = None
    reached: set[str] = set()
    if meta:
        meta_optimizer = make_optimizer([*meta.values()], toy.method.meta_optimizer)

        def note(*_: object) -> None:
            reached.update(n for n, p in meta.items() if p.grad is not None and p.grad.any())

        meta_optimizer.register_step_pre_hook(note)
    for _ in range(STEPS):
        s = toy.student(toy.batch.images)
        loss = F.cross_entropy(s.logits, toy.batch.labels)
        (loss + scalar("loss", toy.method.loss(s, toy.t, toy.batch))).backward()
        optimizer.step()
        whole.zero_grad(set_to_none=True)
        before = _trained_state(toy.student, optimizer)
        toy.method.adapt(
            LookAhead(
                type(toy.method).__name__,
                whole,
                optimizer,
                [*meta.values()],
                meta_optimizer,
                t=toy.t,
                batch=toy.batch,
                watch=lambda value: scalar("the loss given to inner.learn", value),
            )
        )
        after = _trained_state(toy.student, optimizer)
        if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise Failed("adapt changes the student or its momenta: work on inner's copies")
        if any(p.grad is not None for p in whole.parameters()):
            raise Failed("adapt leaves gradients: use inner.step and inner.learn, not backward")
    return reached


def _trained_state(student: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return copies of a student's parameters and buffers, and of the momenta."""
    momenta = [x for state in optimizer.state.values() for x in state.values() if x is not None]
    return [x.detach().clone() for x in (*student.state_dict().values(), *momenta)]
