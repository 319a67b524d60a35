"""A learner's methods, each step of which leaves everything that other learners use as it was.

In the first two steps of a phase, losses, layers and state are looked at as well. A method that
breaks the contract ends its own run, with one line.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from kdbench.method import Batch, ContractBroken, Features, Method
from kdbench.registry import conduct
from kdbench.registry.process_state import QUICK, SETTINGS, kept
from kdbench.registry.shared_tensors import of_batch


class StepGuard:
    """Watches the methods of a learner.

    Args:
        methods: the learner's methods.
        trained: every parameter that may be trained, and the student's.
        rebuild: builds the methods again, as a resumed run would, and puts them on the device.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        trained: Sequence[Tensor],
        rebuild: Callable[[], Sequence[Method]],
    ) -> None:
        self.methods, self.trained, self.rebuild = methods, trained, rebuild
        self.who = " or ".join(dict.fromkeys(type(m).__name__ for m in methods)) or "the student"
        self._layouts = [conduct.layout(method) for method in methods]
        self._suspects: list[int] = []  # methods whose Python state the first step has changed
        self._number = 0  # of the present step

    @contextmanager
    def step(self, batch: Batch, t: Features | None, number: int) -> Iterator[None]:
        """Return a context for the whole of a step, or for what follows it.

        Args:
            batch: what all learners share.
            t: the teacher's features, which they share, too.
            number: of the step in its phase and this process, from 0; the first takes longer.

        Raises:
            ContractBroken: the code in the context changed what others use.
        """
        self._number, first = number, number == 0
        shared = of_batch(batch, t, contents=first)
        before = [conduct.contents(method) for method in self.methods] if first else []
        with kept(self.who, SETTINGS if first else QUICK):
            try:
                yield
            except Exception:
                # Explains autograd's error about a tensor that was changed in place.
                shared.check(self.who, contents=False)
                raise
            shared.check(self.who)
        if first:
            self._look(before)

    @contextmanager
    def tracing(self, t: Features | None) -> Iterator[None]:
        """Return a context for tracing, once an epoch; as ``step``."""
        traces = any(type(method).trace is not Method.trace for method in self.methods)
        shared = of_batch(None, t, contents=traces)
        with kept(self.who):
            yield
            shared.check(self.who)

    def losses(
        self,
        name: str,
        of: Sequence[Method],
        *,
        s: Features,
        t: Features,
        batch: Batch,
        again: Callable[[], Batch],
    ) -> list[Tensor]:
        """Return the losses of some of the methods, within ``step``.

        Args:
            name: of the function: "loss" or "pretrain_loss".
            of: the methods.
            s: the student's features.
            t: the teacher's, or the student's.
            batch: the batch.
            again: returns the batch again, for code that runs in addition.

        Raises:
            ContractBroken: a loss is none, or the method's state cannot be saved.
        """
        first = self._number == 0
        twins = self._twins() if self._number == 1 and self._suspects else {}
        values = []
        for method in of:
            what = f"{type(method).__name__}.{name}"
            twin = twins.get(method)
            state = _random_state(batch) if twin else {}
            with conduct.without_other_generators(what) if first else nullcontext():
                value = getattr(method, name)(s, t, batch)
            fault = conduct.loss_fault(what, value, gradient=first)
            if fault:
                raise ContractBroken(fault)
            if twin:
                leaves = s.map(lambda x: x.detach().requires_grad_(x.requires_grad))
                with torch.random.fork_rng(list(state)[1:]):
                    _set_random_state(state)
                    other = getattr(twin, name)(leaves, t, again())
                self._compare(method, twin, value, other)
            values.append(value)
        return values

    def _look(self, before: list[conduct.Contents]) -> None:
        """After the first step: check layers, and note whose Python state has changed."""
        self._suspects = []
        for i, method in enumerate(self.methods):
            who = type(method).__name__
            fault = conduct.late_layers(who, method, self._layouts[i])
            fault = fault or conduct.untrained_layers(who, method, self.trained)
            if fault:
                raise ContractBroken(fault)
            if conduct.differing(before[i], conduct.contents(method)):
                self._suspects.append(i)

    # -- methods whose state changes in Python ----------------------------------------------

    def _twins(self) -> dict[Method, Method]:
        """Return copies of the suspected methods, as a resumed run would have them."""
        copies = self.rebuild()
        twins = {self.methods[i]: copies[i] for i in self._suspects}
        for method, twin in twins.items():
            state = method.state_dict()
            for x in state.values():
                if isinstance(x, Tensor) and x.is_floating_point():
                    twin.to(x.dtype)  # as some tests train in double precision
                    break
            twin.load_state_dict(state)
            for own, other in zip(method.modules(), twin.modules(), strict=True):
                other.training = own.training
            for p, q in zip(method.parameters(), twin.parameters(), strict=True):
                q.requires_grad_(p.requires_grad)
        return twins

    def _compare(self, method: Method, twin: Method, value: Tensor, other: Tensor) -> None:
        """Compare a method with its twin after the same step: its state and its loss."""
        names = conduct.differing(conduct.contents(method), conduct.contents(twin))
        # On a GPU, some sums are taken in another order.
        rtol = 1e-3 if value.is_cuda else 0.0
        if not torch.allclose(value, other, rtol=rtol, atol=0, equal_nan=True):
            names = names or ["its state"]
        if names:
            raise ContractBroken(conduct.unsaved(type(method).__name__, names))


def _random_state(batch: Batch) -> dict[torch.device, Tensor]:
    """Return the states of torch's global generators of the CPU and of the batch's device."""
    device = batch.labels.device
    state = {torch.device("cpu"): torch.get_rng_state()}
    return state | ({device: torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: dict[torch.device, Tensor]) -> None:
    for device, value in state.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(value, device)
        else:
            torch.set_rng_state(value)
