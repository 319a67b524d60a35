"""A learner: one student with its methods, optimiser and schedule while it trains.

A learner does not depend on the other learners of its cohort, and shares no random generator with
them, so its results are the same alone and in a cohort.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from kdbench.grid.run import Run
from kdbench.method import Batch, Features, Method, Setup
from kdbench.models.network import Network
from kdbench.registry.process_state import kept
from kdbench.rng import key
from kdbench.training import build, objective, traces
from kdbench.training.clock import Clock
from kdbench.training.compiled import compiled
from kdbench.training.device import noting_varying_operations, seed
from kdbench.training.epoch_sums import EpochSums
from kdbench.training.evaluation import Evaluation, columns, evaluate_all
from kdbench.training.global_batch_norm import convert
from kdbench.training.meta_training import MetaTraining
from kdbench.training.phases import Phase, Phases
from kdbench.training.predictions import Predictions
from kdbench.training.ranks import ALONE, World
from kdbench.training.schedule import Rate, learning_rate
from kdbench.training.step_guard import StepGuard


class Learner:
    """One run in training.

    Attributes:
        methods: one per term of the run.
        phase: the current phase, or "end".
        epoch: the current epoch of the phase, from 1.
        step: steps of this epoch that are done.
        history: one row per finished epoch.
        status: "running", "lost" if another process has taken over, or the record's status.
        reason: why the run failed or diverged.
        graphed: "yes" if steps are replayed as CUDA graphs, "no", or why they cannot be.
        varying: operations of the methods that may vary in the last bits on this device.
    """

    def __init__(
        self,
        run: Run,
        *,
        num_classes: int,
        in_channels: int,
        size: int,
        train_labels: Tensor,
        teacher: Features | None,
        teacher_head: nn.Module | None,
        teacher_network: Network | None = None,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        """Build student, methods and optimiser.

        Args:
            num_classes: K.
            in_channels: channels of the images, [B, in_channels, size, size].
            size: height and width of the images.
            train_labels: [N].
            teacher: the teacher's ``Features`` of a dry run on the CPU.
            teacher_head: the teacher's classifier, frozen.
            teacher_network: the teacher with its batch norms, for methods that run parts of it.
            world: the ranks that train the run together.

        Raises:
            Incompatible: a method cannot work on this pair.
            ValueError: the training images do not fill a batch.
        """
        self.run, self.device, self.world = run, device, world
        n, b = len(train_labels), run.training.batch_size
        self.rows, self.steps = world.rows(b), n // b
        if not self.steps:
            raise ValueError(f"{n} training images do not fill a batch of {b}")
        self.student = build.build_student(run, num_classes=num_classes, in_channels=in_channels)
        convert(self.student, world)
        setup = build.build_setup(
            run,
            self.student,
            build.dry_run(self.student, in_channels, size),
            teacher,
            teacher_head=teacher_head,
            teacher_network=teacher_network,
            train_labels=train_labels,
            num_classes=num_classes,
        )
        self.methods = nn.ModuleList(build.build_methods(run, setup))
        self.phases = Phases(self.student, self.methods)
        self.predictions = Predictions(self.student, self.terms, setup.student)
        for module in (self.student, self.methods):
            build.on_device(module, device)
        trained = [*self.phases.learnable, *self.student.parameters()]
        self.guard = StepGuard(self.terms, trained, partial(self._rebuild, setup))
        self.forward: Callable[[Tensor], Features] = self.student
        if run.training.compile:
            self.forward = compiled(self.student, two_backwards=run.training.optimizer is not None)
        has_phase = self.phases.first and run.pretrain and run.pretrain[0] > 0
        self.phase: Phase = "pretrain" if has_phase else "train"
        self.epoch, self.step, self.steps_done = 1, 0, 0
        self.history: list[dict[str, float]] = []
        self.traced: dict[str, float] = {}
        self.status, self.reason, self.trace = "running", "", ""
        self.last_finite_loss: float | None = None
        self.attempts: list[str] = []
        self.clock = Clock(device)
        self.seconds_before = self.teacher_seconds = 0.0
        self.sums = EpochSums(device)
        self.rate = Rate(device)
        self.graphed, self.varying = "no", set[str]()
        self.steps_here = 0  # of this phase in this process
        self.optimizer = self.phases.optimizer(self.phase, run.training)
        self.meta_training = MetaTraining(self.student, self.phases, run.training, world)

    def _rebuild(self, setup: Setup) -> list[Method]:
        """Build the methods again, as a resumed run does, without effects on the student."""
        methods = build.built(self.run, setup, [type(method) for method in self.terms])
        Phases(copy.deepcopy(self.student), nn.ModuleList(methods))
        return [build.on_device(method, self.device) for method in methods]

    @property
    def terms(self) -> list[Method]:
        """The methods, typed."""
        return [method for method in self.methods if isinstance(method, Method)]

    @property
    def needs_teacher(self) -> bool:
        """Whether training needs the teacher's features of each batch."""
        return self.run.teacher is not None

    @property
    def views(self) -> int:
        """Number of views of each image that training needs."""
        return max((method.views for method in self.terms), default=1)

    # -- training ---------------------------------------------------------------------------

    def train_step(
        self, images: Tensor, labels: Tensor, index: Tensor, t: Features | None, *views: Tensor
    ) -> None:
        """Take an optimiser step on a global batch; ``t`` are the teacher's features of it."""
        self.before_step()
        with self.clock:
            s = self.compute(self.batch(images, labels, index, *views), t)
        self.after_step(s, t)

    def before_step(self) -> None:
        """Do what a step needs from the host: modes, seeds and the learning rate."""
        if self.step == 0:
            self.phases.set_modes(self.phase)
        # A method may use torch's global generator; its state depends only on run and step.
        step_key = key(self.run.seed, "step", self.phase, self.epoch, self.step)
        seed(self.device, step_key)
        if self.phase == "pretrain":
            assert self.run.pretrain is not None
            rate = self.run.pretrain[1]
        else:
            rate = learning_rate(self.run.training, self.epoch, self.step, self.steps)
        self.rate.set(self.optimizer, rate)

    def batch(self, images: Tensor, labels: Tensor, index: Tensor, *views: Tensor) -> Batch:
        """Return a global batch with its place in the training."""
        done, epochs = (self.epoch - 1) * self.steps + self.step, self.epochs()  # of the phase
        share = done / (epochs * self.steps)
        return Batch(images, labels, index, self.epoch, share, done, epochs, views)

    def compute(self, batch: Batch, t: Features | None) -> Features:
        """Do what a step needs from the device, and return the student's features.

        Everything from forward pass to optimiser step. It changes tensors only in place and no
        Python state, so that it can be captured as a CUDA graph.
        """
        first = self.device.type == "cuda" and self.steps_here < 2
        noted = noting_varying_operations(self.varying) if first else nullcontext()
        bf16 = self.run.training.precision == "bf16"
        with noted, self.guard.step(batch, t, self.steps_here):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                # In this order, because each view updates the batch norms.
                s, *others = (self.forward(x[self.rows]) for x in (batch.images, *batch.views))
                s = self.world.gather(replace(s, views=tuple(others)))
                t = t or s.detached()
                loss = self.world.run_or_fail_together(partial(self._loss, s, t, batch))
            if loss.total.requires_grad:
                self.optimizer.update(loss, self.world, self.phases.learnable)
                if self.phase == "train":
                    self.meta_training.adapt(self.optimizer, t, batch, self.sums)
            with torch.no_grad():
                correct = (self._train_logits(s).argmax(1) == batch.labels).sum()
                self.sums.add(loss.total.detach(), correct)
        return s

    def after_step(self, s: Features | None, t: Features | None) -> None:
        """Count the step; at the end of an epoch, trace values of its features, if given."""
        self.step += 1
        self.steps_done += 1
        self.steps_here += 1
        if self.step == self.steps and s is not None:
            with self.guard.tracing(t):
                self.traced = traces.traced_values(self.run.terms, self.terms, s, t or s.detached())

    def _loss(self, s: Features, t: Features, batch: Batch) -> objective.Loss:
        run = self.run
        again = partial(self.batch, batch.images, batch.labels, batch.index, *batch.views)
        losses = partial(self.guard.losses, s=s, t=t, batch=batch, again=again)
        if self.phase == "pretrain":
            total = torch.stack(losses("pretrain_loss", self.phases.pretrained)).sum()
            return objective.Loss(total, None, (total,))
        used = [(x.beta, m) for x, m in zip(run.terms, self.terms, strict=True) if x.beta != 0]
        values = losses("loss", [method for _, method in used])
        terms = [(beta, value) for (beta, _), value in zip(used, values, strict=True)]
        t_logits = t.logits if run.teacher else None
        weights = run.gamma, run.alpha, run.temperature
        return objective.loss(s.logits, batch.labels, t_logits, terms, *weights)

    def epochs(self) -> int:
        """Return the number of epochs of the current phase."""
        if self.phase == "pretrain" and self.run.pretrain:
            return self.run.pretrain[0]
        return self.run.training.epochs

    # -- evaluation and the end of an epoch ---------------------------------------------------

    def _train_logits(self, s: Features) -> Tensor:
        """Return the prediction during training; the method's batch norms are not updated again."""
        if self.predictions.predictor is None:
            return s.logits
        self.predictions.predictor.eval()
        logits = self.predictions.deployed(s)
        self.phases.set_modes(self.phase)
        return logits

    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Return loss and accuracies; ``batches`` are this rank's part."""
        self.student.eval()
        self.methods.eval()

        def predict(images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            bf16 = self.run.training.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                return self.predictions(images)

        # A prediction that draws random numbers must not depend on the learner before.
        seed(self.device, key(self.run.seed, "evaluate", self.phase, self.epoch))
        answers = self.predictions.answers
        with self.clock, kept(self.guard.who):
            return evaluate_all(predict, answers, batches, self.device, self.world)

    def diverged(self) -> bool:
        """Check whether a loss of this epoch was not finite; waits for the device."""
        if not self.world.any_rank(bool(self.sums.broken))[0]:
            self.last_finite_loss = float(self.sums.last_finite)
            return False
        self.status = "diverged"
        self.reason = f"loss not finite in epoch {self.epoch} of the {self.phase} phase"
        self.last_finite_loss = float(self.sums.last_finite) or self.last_finite_loss
        return True

    def end_epoch(self, test: Evaluation, val: Evaluation | None) -> None:
        """Add a row with the results of ``evaluate`` to the history, and advance the epoch."""
        row = {
            "epoch": self.epoch,
            "train_loss": float(self.sums.loss) / self.steps,
            "train_acc": 100 * int(self.sums.correct) / (self.steps * self.run.training.batch_size),
        }
        if self.run.dataset.transfer:  # its images have no labels
            del row["train_acc"]
        row |= columns(test, val) | self.traced
        row["seconds"] = round(self.seconds_before + self.clock.settle(), 3)
        self.history.append(row)
        if not math.isfinite(test.loss):
            self.status = "diverged"
            self.reason = f"test loss not finite after epoch {self.epoch}"
        self.next_epoch()

    def next_epoch(self) -> None:
        """Advance to the next epoch, to the next phase, or to the end."""
        self.clock.settle()
        self.sums.zero()
        self.step = 0
        self.epoch += 1
        if self.epoch > self.epochs():
            self.epoch = 1
            self.phase = "train" if self.phase == "pretrain" else "end"
            self.steps_here = 0
            if self.phase == "train":
                self.optimizer = self.phases.optimizer(self.phase, self.run.training)
