"""What a learner predicts: the deployed prediction, and others whose accuracies are reported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdbench.method import ContractBroken, Features, Method
from kdbench.models.peers import networks
from kdbench.registry.process_state import kept

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Predictions:
    """The predictions of a student and its methods at test time.

    Attributes:
        predictor: the method that replaces the student's prediction, or None.
        answers: names of the other predictions, with the number of predictions that each averages.
    """

    def __init__(self, student: nn.Module, methods: Sequence[Method], example: Features) -> None:
        """Find out what the methods predict; ``example`` are the student's features.

        Raises:
            ContractBroken: an answer has an unusable name or shape.
        """
        replacing = [m for m in methods if type(m).predict is not Method.predict]
        self.predictor = replacing[0] if replacing else None
        self._answering = [m for m in methods if type(m).answers is not Method.answers]
        # Without other predictions, the deployed network is enough.
        self._network = student if self._answering else networks(student)[0]
        self.answers = self._counts(example)

    def __call__(self, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the deployed prediction of images, [B, K], and the others; all in fp32 or wider.

        The deployed prediction may depend on the deployed network only.
        """
        s: Features = self._network(images)
        others = {name: x.float() for m in self._answering for name, x in m.answers(s).items()}
        return self.deployed(replace(s, peers=())).float(), others

    def deployed(self, s: Features) -> Tensor:
        """Return the deployed prediction, [B, K]."""
        return self.predictor.predict(s) if self.predictor else s.logits

    def _counts(self, example: Features) -> dict[str, int]:
        """Call ``answers`` once, and return the number of predictions of each name."""
        counts: dict[str, int] = {}
        for method in self._answering:
            what, training = f"{type(method).__name__}.answers", method.training
            method.eval()
            with kept(what), torch.no_grad():
                found = method.answers(example)
            method.train(training)
            for name, x in found.items():
                if not _NAME.fullmatch(name) or name in counts:
                    again = "twice" if name in counts else "expected lower-case letters, digits, _"
                    raise ContractBroken(f"{what}: the name {name!r}: {again}")
                if x.shape[-2:] != example.logits.shape or x.dim() not in (2, 3) or not len(x):
                    raise ContractBroken(
                        f"{what}: {name} has shape {list(x.shape)}, expected [B, K] or [P, B, K] "
                        f"with [B, K] = {list(example.logits.shape)}"
                    )
                counts[name] = len(x) if x.dim() == 3 else 1
        return counts
