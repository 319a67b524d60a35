"""What there is: methods, models, data sets, and this machine; for the commands that list them."""

import os
import shutil
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from kdbench import environment, machine, registry
from kdbench import models as zoo
from kdbench.errors import UserError
from kdbench.grid import presets
from kdbench.gridtree import preset
from kdbench.slurm import doctor as slurm
from kdbench.spec import DATASETS


def methods(pair: str | None) -> Group:
    """Every method: paper, hyper-parameters, default weight; its own cost on a pair if given."""
    extra = _extra(pair) if pair else {}
    own = Column("parameters", justify="right"), Column("MMAC an image", justify="right")
    table = _table(
        Column("method", no_wrap=True),
        Column("beta", justify="right"),
        *(own if pair else ()),
        "paper; hyper-parameters",
    )
    for name in registry.names():
        about = registry.describe(name)
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


def _extra(pair: str) -> dict[str, list[str]]:
    """Method -> parameters and MACs it adds on a pair, and the reason where it cannot work."""
    from kdbench.counting import Shape
    from kdbench.estimate import Estimator
    from kdbench.run import Term

    teacher, arrow, student = (part.strip() for part in pair.partition("->"))
    for name in (teacher, student):
        if not arrow or not zoo.known(name):
            raise UserError(f"--pair {pair}: expected 'TEACHER -> STUDENT', two known models")
    of = Shape(3, 32, 100, 50000, 10000)
    estimator = Estimator()
    found = {}
    for name in registry.names():
        terms = (Term(name, 1.0, registry.describe(name).hyper),)
        extra, _ = estimator.terms(student, teacher, of, 64, terms)
        if extra.incompatible:
            found[name] = ["-", "-", extra.incompatible]
        else:
            found[name] = [f"{extra.parameters:,}", f"{extra.macs / 1e6:,.1f}", ""]
    return found


def models() -> Group:
    """Every architecture, with parameters and MACs at 32x32 and 100 classes."""
    import torch

    from kdbench.models import cost

    table = _table(
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
    from kdbench.datasets import available

    table = _table(Column("data set", no_wrap=True), "channels, pixels, classes", "state")
    for name, shape in DATASETS.items():
        there, about = available(name, root)
        size = ", ".join(map(str, shape)) if shape else "as the folder says"
        table.add_row(name, size, Text(f"{'there' if there else 'missing'}: {about}"))
    return Group(table)


def doctor(runs: Path, data: Path) -> Group:
    """Machine, devices, versions, data, disk."""
    import torch

    from kdbench.tune import amx, precision

    about = environment.describe(
        "", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    )
    table = _table(Column("what", no_wrap=True), "found")
    table.show_header = False
    for name, version in environment.versions().items():
        table.add_row(name, version)
    code = about.get("commit")
    table.add_row("code", f"{code}{' (changed)' if about.get('dirty') else ''}" if code else "-")
    table.add_row("processor", f"{about['processor']}, {machine.cores()} cores usable")
    limit = about["onednn_limit"]
    onednn = f"limit set to {limit}" if limit else "no limit"
    capability = about["cpu_capability"]
    table.add_row("vector instructions", f"{capability}; convolutions (oneDNN): {onednn}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(gpus) or "none: runs are trained on the CPU, one worker a core")
    tuning = machine.load()
    if tuning:
        table.add_row("cores, measured", f"executor: {tuning.best()}, for {tuning.subject}")
        table.add_row("bf16, measured", precision(tuning.bf16, "this processor", amx()))
    else:
        fast = "may pay" if amx() else "seldom pays without AMX: leave precision at fp32"
        table.add_row("bf16 on this CPU", f"{fast}; kdbench doctor --tune measures it")
    for what, found in slurm.lines():
        table.add_row(what, found)
    table.add_row("runs", _folder(runs))
    table.add_row("protocols", ", ".join(presets()))
    return Group(table, datasets(data))


def _folder(runs: Path) -> str:
    """Where runs go, whether they can, and for how long."""
    place = next(path for path in (runs.resolve(), *runs.resolve().parents) if path.exists())
    if not place.is_dir():
        return f"{runs.resolve()}: NO FOLDER: {place} is a file"
    free = shutil.disk_usage(place).free / 2**30
    writable = "writable" if os.access(place, os.W_OK) else "NOT WRITABLE"
    return f"{runs.resolve()}: {writable}, {free:,.0f} GiB free"


def _table(*columns: str | Column) -> Table:
    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
