"""A method whose networks learn together, as a plugin for tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_runs import alone, taught

from kdbench.grid.run import Run

TEXT = '''
"""Networks that learn together and from their mean (2020)."""
import torch
import torch.nn.functional as F
from kdbench.method import Group, Method, Objective
from kdbench.tensors import upcast


class Mutual(Method):
    family = "online"
    needs_teacher = False
    brings_peers = True
    objective = Objective(gamma=1.0, alpha=0.0)

    def __init__(
        self, setup, *, peers: int = 3, share: bool = True, shared: int = -1, rescale: bool = False
    ):
        super().__init__(setup)
        self.peers = len(setup.student.peers)
        self.mix = torch.nn.Linear(setup.student.embedding.shape[1], 4)

    @classmethod
    def group(cls, *, peers=3, share=True, shared=-1, rescale=False):
        return Group(peers, shared if share else None, rescale)

    def loss(self, s, t, batch):
        assert len(s.peers) == self.peers
        others = s.peers[1:]
        own = sum(F.cross_entropy(upcast(p.logits), batch.labels) for p in others)
        mean = torch.stack([upcast(p.logits) for p in s.peers]).mean(0)
        mixed = self.mix(torch.stack([p.embedding for p in s.peers])).square().mean()
        return own + mixed + F.kl_div(
            upcast(s.logits).log_softmax(1), mean.softmax(1), reduction="batchmean"
        )

    def answers(self, s):
        logits = torch.stack([p.logits for p in s.peers])
        return {"mean": logits, "ensemble": upcast(logits).mean(0)}
'''


def plugin(folder: Path) -> Path:
    """Write the method's file."""
    folder.mkdir(exist_ok=True)
    path = folder / "mutual.py"
    path.write_text(TEXT.lstrip())
    return path


def mutual(path: Path, *, seed: int = 0, **hyper: Any) -> Run:
    """Return a run of the method without a teacher."""
    run = taught(alone(), str(path), hyper=hyper, seed=seed)
    return replace(run, teacher=None, alpha=0.0)
