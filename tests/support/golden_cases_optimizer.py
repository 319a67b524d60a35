"""Mapping of the golden cases of kind ``optimizer``; ``golden_files.py`` explains the terms."""

from collections.abc import Iterator

from golden_files import Builder, Built, Case
from torch import Tensor, nn

from kdbench.training.dot import Dot


def dot(case: Case) -> Built:
    """Take the file's steps with its gradients."""
    hyper = case.hyper
    params = nn.ParameterDict({name: nn.Parameter(x.clone()) for name, x in case.params.items()})

    def compare(case: Case) -> Iterator[tuple[str, Tensor]]:
        optimizer = Dot(
            params.parameters(),
            lr=hyper["lr"],
            momentum=hyper["momentum"],
            delta=hyper["delta"],
            weight_decay=hyper["wd"],
        )
        for i in range(hyper["steps"]):
            task, rest = (
                {params[name]: gradient for name, gradient in case.starting(f"{part}{i}").items()}
                for part in ("task", "kd")
            )
            optimizer.apply(task, rest)
            yield from ((f"after{i}/{name}", x) for name, x in params.items())

    names = {name: name for name in case.params}
    why = "the optimiser gets gradients, not a loss"
    return Built(None, names, module=params, compare=compare, ignore={"loss": why})


BUILDERS: dict[str, Builder] = {"dot": dot}
