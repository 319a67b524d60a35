"""Ranks: several processes that train one run together, and what they have to say to each other.

The global batch is the run's batch, whatever the number of ranks: each passes its rows of it
through the networks, then all of them see the features of the whole batch and compute the same loss
on it, so a method needs to know of nothing. With one process, all of this does nothing.

Nobody waits long for the dead: a rank whose process ends breaks its connections, which ends the
others with ``RankLost``; one that hangs is given up after some seconds.
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
"""Ranks may start, read data and write checkpoints at such different speed."""


class RanksError(UserError):
    """These ranks cannot share the work; one line."""


class PeerFailed(RuntimeError):
    """Another rank raised an exception; its name and text, its traceback as a note."""


class RankLost(BaseException):
    """Another rank died or hangs: the job is over, and goes on from its checkpoints.

    No ``Exception``: no run is to blame, so nothing that records failures may catch it.
    """


@dataclass(frozen=True)
class World:
    """The ranks of a job, seen from one of them; by default it is the only one.

    Attributes:
        rank: of this process, from 0. size: number of ranks. local_rank: on this machine.
        control: the group for what is said between steps; it never waits for a GPU.
        patient: the same for what may take one rank long, such as reading data.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    patient: Any = None

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes and decides."""
        return self.rank == 0

    def __deepcopy__(self, memo: dict[int, Any]) -> "World":
        """Itself: whoever copies a student keeps talking to the same ranks."""
        return self

    def rows(self, batch_size: int) -> slice:
        """This rank's rows of a global batch.

        Raises:
            RanksError: the ranks cannot have equal shares.
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
        """Features of the global batch, [B/size, ...] -> [B, ...], from each rank's rows.

        A gradient to them reaches this rank's rows ``size`` times as large: every rank is to
        differentiate the same loss over ``size``, so that gradients of parameters, those of the
        networks and those of a method alike, are right when summed over the ranks.
        """
        if self.size == 1:
            return features
        return features.map(lambda x: _Gather.apply(x, self))

    def concatenated(self, x: Tensor) -> Tensor:
        """The ranks' tensors after each other, [n, ...] -> [size * n, ...]; no gradient."""
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        part = (x.permute(0, 2, 3, 1) if last else x).detach().contiguous()
        gathered = part.new_empty(self.size * len(part), *part.shape[1:])
        # As bytes: not every backend knows every type.
        pieces = list(gathered.view(torch.uint8).chunk(self.size))
        with _report_lost_rank():
            dist.all_gather(pieces, part.view(torch.uint8))
        return gathered.permute(0, 3, 1, 2) if last else gathered

    def sum(self, x: Tensor) -> Tensor:
        """Sum over the ranks, the same bits on each."""
        if self.size > 1:
            x = x.clone()
            with _report_lost_rank():
                dist.all_reduce(x)
        return x

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their sums over the ranks, all of one type in one message."""
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
        """For each flag, whether any rank raises it."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        with _report_lost_rank():
            dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self._group(patient))
        return tuple(raised.bool().tolist())

    def _group(self, patient: bool) -> Any:
        return self.patient if patient else self.control

    def run_or_fail_together(self, action: Callable[[], T], *, patient: bool = False) -> T:
        """What ``action`` returns here, if it raises on no rank.

        Args:
            action: where it talks to the other ranks, it does so on all of them alike.
            patient: it may take one rank much longer than another.

        Raises:
            Exception: its own, where it raises here.
            PeerFailed: it raises on another rank only.
        """
        if self.size == 1:
            return action()
        error, told = None, ""
        try:
            result = action()
        except (Exception, SystemExit) as caught:
            error, told = caught, f"{type(caught).__name__}: {caught}"
        if not self.any_rank(error is not None, patient=patient)[0]:
            return result
        errors: list[tuple[str, str]] = [("", "")] * self.size
        trace = "".join(traceback.format_exception(error)) if error else ""
        with _report_lost_rank():
            dist.all_gather_object(errors, (told, trace), group=self._group(patient))
        if error:
            raise error
        rank = next(i for i, (text, _) in enumerate(errors) if text)
        failed = PeerFailed(f"rank {rank}: {errors[rank][0]}")
        failed.add_note(errors[rank][1])
        raise failed

    def first_rank_runs(self, action: Callable[[], T]) -> T:
        """What ``action`` returns on the first rank, which alone does it; fails on all or none."""
        if self.size == 1:
            return action()
        box = [self.run_or_fail_together(lambda: action() if self.first else None, patient=True)]
        with _report_lost_rank():
            dist.broadcast_object_list(box, src=0, group=self.patient)
        return box[0]  # type: ignore[return-value]


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
    """Whatever goes wrong in a conversation means that somebody has left it."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(" ".join(str(error).split())) from error


@contextmanager
def join_ranks(device: str = "auto", seconds: float = 120.0) -> Iterator[World]:
    """Join the ranks that the environment names, as torchrun and submitit set it.

    MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE and LOCAL_RANK are read; without WORLD_SIZE, or with
    one rank, nothing is started.

    Args:
        device: as ``executor.device``; decides between nccl and gloo.
        seconds: after which a rank that does not answer in the middle of a step is given up.

    Raises:
        RankLost: not all ranks came, or one was lost while in here. The process has to end; on a
            GPU best by ``os._exit``, since nccl may still wait for the lost one.
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
        world.any_rank(False, patient=True)  # nobody leaves while others still talk
    except RankLost:
        hangs = cuda  # nccl would wait for the dead; the end of the process does not
        raise
    finally:
        if not hangs:
            dist.destroy_process_group()  # breaks the connections, by which the others know
