"""What the learners of a cohort share in a step, made as one CUDA graph where that is possible."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdbench.method import Features
from kdbench.training.graphs import WARM, Recorder

ON_CPU = "strong views are made on the CPU, one image at a time"


@dataclass(frozen=True)
class Shared:
    """What the learners of a cohort share in a step.

    Attributes:
        images: [B, C, H, W].
        labels: [B].
        index: positions in the training set, [B].
        teacher: the teacher's features, with those of ``views``; None if no learner needs them.
        views: strong views of the images, each [B, C, H, W], as many as any learner wants.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    teacher: Features | None = None
    views: tuple[Tensor, ...] = ()

    def given(
        self, views: int
    ) -> tuple[Tensor, Tensor, Tensor, Features | None, *tuple[Tensor, ...]]:
        """Return what a learner gets that wants this many views, the first included."""
        extra, t = views - 1, self.teacher
        t = replace(t, views=t.views[:extra]) if t is not None else None
        return self.images, self.labels, self.index, t, *self.views[:extra]

    def cloned(self) -> "Shared":
        """Return copies."""
        images, labels, index, *views = (
            x.clone() for x in (self.images, self.labels, self.index, *self.views)
        )
        t = self.teacher.map(torch.clone) if self.teacher is not None else None
        return Shared(images, labels, index, t, tuple(views))

    def tensors(self) -> list[Tensor]:
        """Return every tensor once."""
        named = self.teacher.named() if self.teacher is not None else ()
        every = [self.images, self.labels, self.index, *self.views, *(x for _, x in named)]
        return list({id(x): x for x in every}.values())


class Feed:
    """Batch and teacher as one graph, and the copy of their results that learners read.

    Args:
        recorder: its last lane is used.
        with_teacher: whether the results include the teacher's features.
        extra: number of strong views in the results, with which there is no graph.

    Attributes:
        kind: ``with_teacher`` and ``extra``.
        reason: why the work cannot be recorded; "" if it can, as far as is known.
    """

    def __init__(self, recorder: Recorder, with_teacher: bool, extra: int = 0) -> None:
        self.recorder, self.kind = recorder, (with_teacher, extra)
        self.reason = ON_CPU if extra else ""
        self._warm = 0
        self._replay: Callable[[], None] | None = None
        self._made: Shared | None = None
        self._public: Shared | None = None

    def make(self, work: Callable[[], Shared]) -> Shared:
        """Make the next results, in memory of their own.

        Args:
            work: makes what learners share; the same in every call. It is not kept: it would keep
                the steps, and so all memory of a cohort, until Python next looks for cycles.
        """
        if self._warm < WARM or self.reason:
            self._warm += 1
            return work()
        if self._replay is None:
            try:
                self._replay, self._made = self.recorder.record(self.recorder.lanes, work, ())
            except Exception as error:
                self.recorder.join()  # raises if the device itself is lost
                self.reason = " ".join(str(error).split()) or type(error).__name__
                return work()
        self._replay()
        assert self._made is not None
        return self._made

    def publish(self, made: Shared) -> Shared:
        """Copy results to where learners read them: the same memory in every step."""
        if self._public is not None:
            torch._foreach_copy_(self._public.tensors(), made.tensors())
            return self._public
        self._public = made.cloned()
        return self._public
