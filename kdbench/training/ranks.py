"""Ranks: several processes that train one run together, and how they communicate.

The global batch is the run's batch, for any number of ranks. Each rank passes its rows through the
networks. Then all ranks get the features of the whole batch and compute the same loss, so methods
need no code for ranks. With one process, all of this does nothing.

No rank waits long for a dead one: a process that ends breaks its connections, which ends the other
ranks with ``RankLost``; a rank that hangs is given up after some seconds.
"""

import os
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kdbench.errors import UserError
from kdbench.method import Features

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""How long ranks wait for each other to start, read data and write checkpoints."""


class RanksError(UserError):
    """These ranks cannot share the work; the message is one line."""


class PeerFailed(RuntimeError):
    """Another rank raised an exception; holds its name and text, and its traceback as a note."""


class RankLost(BaseException):
    """Another rank died or hangs; the job ends, and can resume from its checkpoints.

    Not an ``Exception``: code that records a run's failure must not catch it.
    """


@dataclass(frozen=True)
class World:
    """The ranks of a job, from the view of one rank; by default a single rank.

    Attributes:
        rank: of this process, from 0.
        size: number of ranks.
        local_rank: number of this process on its machine, from 0.
        control: process group for messages between steps; it never waits for a GPU.
        patient: process group with a long timeout, for actions such as reading data.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and decides."""
        return self.rank == 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "World":
        """Return the same object, so that a copied student communicates with the same ranks."""
        return self

    def rows(self, batch_size: int) -> slice:
        """Return this rank's rows of a global batch.

        Raises:
            RanksError: the batch cannot be split evenly.
        """
        share, rest = divmod(batch_size, self.size)
        if rest or not share:
            raise RanksError(
                f"executor.ranks: {self.size}: cannot share a batch of {batch_size} evenly; "
                "expected a divisor of batch_size"
            )
        return slice(self.rank * share, (self.rank + 1) * share)

    # -- tensors ----------------------------------------------------------------------------

    def gather(self, features: Features) -> Features:
        """Gather the features of the global batch, [B/size, ...] -> [B, ...], from all ranks.

        The backward pass multiplies gradients by ``size``: every rank differentiates the same loss
        divided by ``size``, so that the gradients of all parameters, those of networks and of
        methods, are correct once summed over the ranks.
        """
        if self.size == 1:
            return features
        return features.map(lambda x: _Gather.apply(x, self))

    def concatenated(self, x: Tensor) -> Tensor:
        """Concatenate the ranks' tensors, [n, ...] -> [size * n, ...], without gradient."""
        channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        part = (x.permute(0, 2, 3, 1) if channels_last else x).detach().contiguous()
        gathered = part.new_empty(self.size * len(part), *part.shape[1:])
        # As bytes, because not every backend supports every type.
        pieces = list(gathered.view(torch.uint8).chunk(self.size))
        with _report_lost_rank():
            dist.all_gather(pieces, part.view(torch.uint8))
        return gathered.permute(0, 3, 1, 2) if channels_last else gathered

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over the ranks, with the same bits on each."""
        if self.size > 1:
            x = x.clone()
            with _report_lost_rank():
                dist.all_reduce(x)
        return x

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their sums over the ranks, with one message per type."""
        if self.size == 1:
            return
        groups: dict[torch.dtype, list[Tensor]] = defaultdict(list)
        for p in parameters:
            if p.grad is not None:
                groups[p.grad.dtype].append(p.grad)
        for grads in groups.values():
            total = self.sum(torch.cat([grad.reshape(-1) for grad in grads]))
            parts = total.split([grad.numel() for grad in grads])
            for grad, part in zip(grads, parts, strict=True):
                grad.copy_(part.view_as(grad))

    # -- decisions --------------------------------------------------------------------------

    def any_rank(self, *flags: bool, patient: bool = False) -> tuple[bool, ...]:
        """Return, for each flag, whether it is set on any rank."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        with _report_lost_rank():
            dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self._group(patient))
        return tuple(raised.bool().tolist())

    def _group(self, patient: bool) -> Any:
        return self.patient if patient else self.control

    def run_or_fail_together(self, action: Callable[[], T], *, patient: bool = False) -> T:
        """Run ``action`` on every rank and return its result, or raise on all ranks.

        Args:
            action: if it communicates with other ranks, it must do so on all of them alike.
            patient: allow one rank to take much longer than another.

        Raises:
            Exception: as raised by ``action`` on this rank.
            PeerFailed: ``action`` raised on other ranks only.
        """
        if self.size == 1:
            return action()
        error, message = None, ""
        try:
            result = action()
        except (Exception, SystemExit) as caught:
            error, message = caught, f"{type(caught).__name__}: {caught}"
        if not self.any_rank(error is not None, patient=patient)[0]:
            return result
        errors: list[tuple[str, str]] = [("", "")] * self.size
        trace = "".join(traceback.format_exception(error)) if error else ""
        with _report_lost_rank():
            dist.all_gather_object(errors, (message, trace), group=self._group(patient))
        if error:
            raise error
        rank = next(i for i, (text, _) in enumerate(errors) if text)
        failed = PeerFailed(f"rank {rank}: {errors[rank][0]}")
        failed.add_note(errors[rank][1])
        raise failed

    def first_rank_runs(self, action: Callable[[], T]) -> T:
        """Run ``action`` on the first rank only, and return its result, or raise, on all ranks."""
        if self.size == 1:
            return action()
        results = [
            self.run_or_fail_together(lambda: action() if self.first else None, patient=True)
        ]
        with _report_lost_rank():
            dist.broadcast_object_list(results, src=0, group=self.patient)
        return results[0]  # type: ignore[return-value]


ALONE = World()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.concatenated(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[ctx.world.rows(len(grad))] * ctx.world.size, None


@contextmanager
def _report_lost_rank() -> Iterator[None]:
    """Turn an error in communication into ``RankLost``: another rank no longer answers."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(" ".join(str(error).split())) from error


@contextmanager
def join_ranks(device: str = "auto", seconds: float = 120.0) -> Iterator[World]:
    """Join the ranks given by the environment variables that torchrun and submitit set.

    They are MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE and LOCAL_RANK. Without WORLD_SIZE, or with
    one rank, nothing is started.

    Args:
        device: as ``executor.device``; selects nccl or gloo.
        seconds: time after which a rank that does not answer during a step is given up.

    Raises:
        RankLost: not all ranks joined, or one was lost in this context. The process must end; on a
            GPU preferably by ``os._exit``, since nccl may still wait for the lost rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local % max(1, torch.cuda.device_count()))
    with _report_lost_rank():
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=seconds),
        )
        control = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    world = World(rank, size, local, control, patient)
    hangs = False
    try:
        yield world
        world.any_rank(False, patient=True)  # no rank leaves while others still communicate
    except RankLost:
        hangs = cuda  # nccl would wait for the lost rank; ending the process does not
        raise
    finally:
        if not hangs:
            dist.destroy_process_group()  # breaks the connections, which tells the other ranks
