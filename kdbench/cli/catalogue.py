"""What there is: methods, models, data sets, and this machine; for the commands that list them."""

from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kdbench.errors import UserError
from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.yaml_tree import preset, presets
from kdbench.models import zoo
from kdbench.registry import lookup


def methods(pair: str | None) -> Group:
    """Every method: paper, hyper-parameters, default weight; its own cost on a pair if given."""
    extra = _costs_on_pair(pair) if pair else {}
    own = Column("parameters", justify="right"), Column("MMAC an image", justify="right")
    table = new_table(
        Column("method", no_wrap=True),
        Column("beta", justify="right"),
        *(own if pair else ()),
        "paper; hyper-parameters",
    )
    for name in lookup.names():
        about = lookup.describe(name)
        hyper = ", ".join(f"{key}={value!r}" for key, value in about.hyper.items())
        needs = [
            *([] if about.needs_teacher else ["no teacher"]),
            *(["a phase before training"] if about.has_pretrain else []),
            *(f"{key} {value:g}" for key, value in about.objective.items()),
        ]
        text = Text(about.doc)
        *own_cost, reason = extra.get(name, [""])
        kind = f"{about.family}; reads {', '.join(about.uses)}"
        for line in (kind, hyper, "; ".join(needs), _preset_betas(name, about.beta), reason):
            text.append(f"\n{line}" if line else "", style="dim")
        row = [name, f"{about.beta:g}", *own_cost]
        table.add_row(*map(Text, row), text)
    told = [f"protocol {name}: {preset(name).get('source', '')}" for name in presets()]
    told = ["where the protocols' weights are from:", *told]
    told += ["the term's own parameters and MACs: at 32x32 and 100 classes"] if pair else []
    return Group(table, *(Text(line) for line in told))


def _preset_betas(name: str, default: float) -> str:
    """The term's weight under the protocols that say another than the default."""
    told = []
    for protocol in presets():
        beta = preset(protocol)["methods"].get(name, {}).get("beta", default)
        told += [f"{protocol} {beta:g}"] if beta != default else []
    return f"beta under {', '.join(told)}" if told else ""


def _costs_on_pair(pair: str) -> dict[str, list[str]]:
    """Method -> parameters and MACs it adds on a pair, and the reason where it cannot work."""
    from kdbench.cost.counting import Shape
    from kdbench.cost.estimate import Estimator
    from kdbench.grid.run import Term

    teacher, arrow, student = (part.strip() for part in pair.partition("->"))
    for name in (teacher, student):
        if not arrow or not zoo.known(name):
            raise UserError(f"--pair {pair}: expected 'TEACHER -> STUDENT', two known models")
    of = Shape(3, 32, 100, 50000, 10000)
    estimator = Estimator()
    found = {}
    for name in lookup.names():
        terms = (Term(name, 1.0, lookup.describe(name).hyper),)
        extra, _ = estimator.terms(student, teacher, of, 64, terms)
        if extra.incompatible:
            found[name] = ["-", "-", extra.incompatible]
        else:
            found[name] = [f"{extra.parameters:,}", f"{extra.macs / 1e6:,.1f}", ""]
    return found


def models() -> Group:
    """Every architecture, with parameters and MACs at 32x32 and 100 classes."""
    import torch

    from kdbench.models import size as cost

    table = new_table(
        Column("model", no_wrap=True),
        Column("family", no_wrap=True),
        Column("parameters", justify="right"),
        Column("MMAC", justify="right"),
    )
    for name in zoo.names():
        with torch.device("meta"):
            network, image = zoo.create(name), torch.empty(1, 3, 32, 32)
        size, macs = cost.params(network), cost.module_macs(network, image)
        table.add_row(name, zoo.family(name), f"{size:,}", f"{macs / 1e6:,.1f}")
    scaled = "and by the same code any rDwW (r8w16), vDwW (v5w4), resnetD, resnetDxK, wrn_D_K"
    return Group(table, Text(scaled))


def datasets(root: Path) -> Group:
    """Every data set: there, or where to put which file."""
    from kdbench.data.readers.by_name import available

    table = new_table(Column("data set", no_wrap=True), "channels, pixels, classes", "state")
    for name, facts in DATASETS.items():
        there, about = available(name, root)
        size = ", ".join(map(str, facts.shape)) if facts.shape else "as the folder says"
        table.add_row(name, size, Text(f"{'there' if there else 'missing'}: {about}"))
    return Group(table)


def new_table(*columns: str | Column) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
