"""Tests that each check finds the fault it is meant for."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from kdbench.registry import checks, lookup

MINE = '''"""{doc}"""

import random

import torch
from torch import nn

from kdbench.method import Incompatible, Method


class Mine(Method):
    def __init__(self, setup, *, {hyper}):
        super().__init__(setup)
        s, t = setup.student, setup.teacher
        self.scale = scale
        self.adapter = nn.Linear(s.embedding.shape[1], t.embedding.shape[1])
        {init}

    def loss(self, s, t, batch):
        term = (self.adapter(s.embedding) - t.embedding).square().mean()
        {loss}
        return term * self.scale
{more}'''

PHASE = """
    def pretrain(self, student):
        return {}

    def pretrain_loss(self, s, t, batch):
        return {}
"""


@dataclass(frozen=True)
class Fault:
    """Code for the file above, the check that must fail, and part of its message."""

    check: str
    message: str
    doc: str = "Mine (Somebody, 2024)."
    hyper: str = "scale=1.0"
    init: str = "pass"
    loss: str = "pass"
    more: str = ""

    def write(self, folder: Path) -> str:
        """Write the file and return its path."""
        path = folder / "mine.py"
        path.write_text(
            MINE.format(
                doc=self.doc, hyper=self.hyper, init=self.init, loss=self.loss, more=self.more
            )
        )
        return str(path)


TRACE = """
    def trace(self, s, t):
        return {{"x": {}}}
"""

SCALAR, GRADIENT = "finite scalar loss", "gradient reaches what learns"
SAME, PRETRAIN = "inputs and process untouched", "pretraining phase"
OTHERS = "other architectures"

FAULTS = [
    Fault("can be loaded", "hyper-parameter scale has no default", hyper="scale"),
    Fault("can be loaded", "1.0 + 1.0", hyper="scale=1.0 + 1.0"),
    Fault("cites a paper", "name the paper", doc="Mine."),
    Fault(SCALAR, "loss has shape [6], expected a scalar", loss="return s.logits.sum(1)"),
    Fault(SCALAR, "loss is nan, expected a finite number", loss="return term * float('nan')"),
    Fault(SCALAR, "loss returned float, expected a tensor", loss="return 1.0"),
    Fault(SCALAR, "type torch.int64, expected a floating", loss="return term.long()"),
    Fault(SCALAR, "ZeroDivisionError: integer", loss="1 // 0"),
    Fault(SCALAR, "(mine.py:21)", loss="1 // 0"),
    Fault("defaults can be given", "changes the loss", init="self.scale = random.random()"),
    Fault(GRADIENT, "is something detached", loss="return term.detach()"),
    Fault(GRADIENT, "no gradient reaches any of", loss="return self.adapter.weight.mean()"),
    Fault(GRADIENT, "reaches spare.weight, spare.bias: use", init="self.spare = nn.Linear(1, 1)"),
    Fault(SAME, "the teacher's embedding changed", loss="t.embedding.mul_(2)"),
    Fault(SAME, "the student's logits changed", loss="s.logits.data.add_(1)"),
    Fault(
        SAME,
        "the teacher head's weight got a gradient",
        init="self.head = setup.teacher_head.requires_grad_()",
        loss="term = term + self.head(t.embedding).mean()",
    ),
    Fault(SAME, "Mine changes batch.labels, which", loss="batch.labels[::2] = 0"),
    Fault(SAME, "Mine changes batch.images, which", loss="batch.images.numpy()[:] = 0"),
    Fault(SAME, "Mine changes batch.index, which", loss="batch.index.zero_()"),
    Fault(SAME, "Mine.__init__ changes setup.train_labels", init="setup.train_labels[::2] = 0"),
    Fault(SAME, "Mine changes torch.set_grad_enabled", loss="torch.set_grad_enabled(False)"),
    Fault(
        SAME,
        "Mine changes torch.set_num",
        init="torch.set_num_threads(torch.get_num_threads() + 1)",
    ),
    Fault(
        "can be loaded",
        "the import changes torch.set_default_dtype",
        hyper="scale=1.0",
        doc='Mine, 2024."""; import torch; torch.set_default_dtype(torch.float64); """',
    ),
    Fault(GRADIENT, "keeps layers where the optimiser", init="self.layers = [nn.Linear(1, 1)]"),
    Fault("state restores", "makes or changes late.weight", loss="self.late = nn.Linear(1, 1)"),
    Fault(
        "state restores",
        "register_buffer",
        init="self.count = 0",
        loss="self.count += 1; term = term * self.count",
    ),
    Fault("same seed, same loss", "seeded with setup.seed", loss="term = term * random.random()"),
    Fault(
        PRETRAIN, "pretrain returned no modules: set pretrains_when", more=PHASE.format("[]", "0")
    ),
    Fault(
        PRETRAIN,
        "pretrain returned modules: set pretrains_when",
        more="    pretrains_when = {'scale': 7.0}\n" + PHASE.format("[self.adapter]", "0"),
    ),
    Fault(PRETRAIN, "pretrain returned a str", more=PHASE.format("['adapter']", "0")),
    Fault(PRETRAIN, "neither the student's nor", more=PHASE.format("[nn.Linear(1, 1)]", "0")),
    Fault(
        PRETRAIN,
        "without anything to train",
        init="self.relu = nn.ReLU()",
        more=PHASE.format("[self.relu]", "self.loss(s, t, batch)"),
    ),
    Fault(
        PRETRAIN,
        "Mine has a pretraining phase but no pretrain_loss",
        more=PHASE.partition("    def pretrain_loss")[0].format("[self.adapter]"),
    ),
    Fault(PRETRAIN, "trains none", more=PHASE.format("[self.adapter]", "s.logits.mean()")),
    Fault(
        PRETRAIN,
        "pretrain_loss is inf",
        more=PHASE.format("[self.adapter]", "1 / t.stem.new_zeros(())"),
    ),
    Fault(
        "look ahead",
        "meta returned modules, but no adapt trains them",
        more="    def meta(self):\n        return [self.adapter]\n",
    ),
    Fault(
        "batches of 1, 2, 3, 7",
        "in a batch of 1: loss is nan",
        loss="term = term / term.new_tensor(len(t.logits) - 1) * (len(t.logits) - 1)",
    ),
    Fault(
        "all-zero features",
        "stages[0] is not finite",
        loss="term = term + s.stages[0].square().sum((1, 2, 3)).sqrt().mean()",
    ),
    Fault(
        "duplicate samples",
        "the student's embedding is not finite",
        loss="term = term + (s.embedding[0] - s.embedding[-1]).square().sum().sqrt()",
    ),
    Fault(
        OTHERS,
        "with a shallower teacher: RuntimeError",
        loss="s.stages[-1].sum(1) - t.stages[-1].sum(1)",
    ),
    Fault(OTHERS, "If the pair cannot work, raise", loss="t.stages[2]"),
    Fault(
        OTHERS,
        "a deeper teacher is refused without giving the shapes: depths",
        init="if len(s.stages) < len(t.stages): raise Incompatible('depths')",
    ),
    Fault(
        "bfloat16 features",
        "loss is inf",
        loss="term = term * (float('inf') if s.logits.dtype == torch.bfloat16 else 1)",
    ),
    Fault(
        "predictions",
        "predict returned [6, 10], expected finite [6, 5]",
        more="\n    def predict(self, s):\n        return self.adapter(s.embedding)\n",
    ),
    Fault(
        "answers",
        "x is [6, 10], expected finite [6, 5]",
        more="\n    def answers(self, s):\n        return {'x': self.adapter(s.embedding)}\n",
    ),
    Fault(
        "answers",
        "it must do neither",
        more="\n    def answers(self, s):\n        return {'x': torch.rand_like(s.logits)}\n",
    ),
    Fault("trace", "x is not a finite tensor", more=TRACE.format("s.logits / 0")),
    Fault("trace", "of at most 1024 numbers", more=TRACE.format("s.logits.new_zeros(1025)")),
    Fault(
        "trace",
        "it must do neither",
        more=TRACE.format("torch.rand(())"),
    ),
    Fault("trace", "changes the method", more=TRACE.format("self.adapter.bias.add_(1)")),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.message)
def test_every_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    messages = {r.name: r.message for r in checks.run(fault.write(tmp_path)) if not r.ok}
    assert fault.check in messages, messages
    assert fault.message in messages[fault.check]
    assert "\n" not in messages[fault.check]


def test_every_check_has_a_fault() -> None:
    known = {name for name, _ in checks.CHECKS}
    assert {fault.check for fault in FAULTS} == known | {"can be loaded"}


GOOD_PHASE = PHASE.format("[*student.trunk(), self.adapter]", "self.loss(s, t, batch)")


@pytest.mark.parametrize("more", ["", GOOD_PHASE])
def test_good_method_passes(more: str, tmp_path: Path) -> None:
    results = checks.run(Fault("", "", more=more).write(tmp_path), scale=2)
    assert [r.name for r in results] == ["can be loaded", *(name for name, _ in checks.CHECKS)]
    assert all(r.ok for r in results), results


@pytest.mark.parametrize(
    ("init", "weight"),
    [
        ("pass", "min(1.0, (batch.epoch - 1) / 10)"),
        ("self.register_buffer('steps', torch.zeros(()))", "self.steps.clone()"),
    ],
)
def test_warm_up_from_zero_passes(init: str, weight: str, tmp_path: Path) -> None:
    loss = f"term = term * {weight}"
    loss += "; self.steps.add_(1)" if "steps" in init else ""
    results = checks.run(Fault("", "", init=init, loss=loss).write(tmp_path))
    assert [r for r in results if r.name == GRADIENT and not r.ok] == []


def test_pair_of_unequal_depths_may_be_refused(tmp_path: Path) -> None:
    """A method for equal depths only is checked on a pair of equal depths."""
    refuse = "if len(s.stages) != len(t.stages): raise Incompatible('3 against 4')"
    results = checks.run(Fault("", "", init=refuse).write(tmp_path))
    assert all(r.ok for r in results), results


def test_small_batches_may_be_refused(tmp_path: Path) -> None:
    refuse = "if setup.batch_size < {}: raise Incompatible('needs a batch of {}')"
    for size, ok in ((3, True), (7, True), (8, False)):
        (tmp_path / str(size)).mkdir()
        path = Fault("", "", init=refuse.format(size, size)).write(tmp_path / str(size))
        subject = checks.MethodUnderTest(lookup.describe(path), lookup.load(path), {})
        result = checks.result("", checks.batch_sizes, subject)
        assert result.ok == ok, result


def test_unknown_names_and_hyper_parameters_are_results() -> None:
    assert re.match(
        r"semkd: unknown method; .* \(did you mean semckd", checks.run("semkd")[0].message
    )
    assert checks.run("kd", heat=1)[0].message.startswith("heat: unknown; KD takes temperature")


def test_checks_draw_no_random_numbers() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    checks.run("sp")
    assert torch.equal(before, torch.get_rng_state())
