"""What ``kdbench doctor`` shows."""

import os
import shutil
from pathlib import Path

from rich.console import Group
from rich.table import Column

from kdbench.cli.catalogue import _table, datasets
from kdbench.cost import saved_tuning
from kdbench.execution.slurm import doctor as slurm
from kdbench.grid.yaml_tree import presets
from kdbench.runs import environment


def doctor(runs: Path, data: Path) -> Group:
    """Machine, devices, versions, data, disk."""
    import torch

    from kdbench.cost.tune import amx, precision

    about = environment.describe(
        "", torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    )
    table = _table(Column("what", no_wrap=True), "found")
    table.show_header = False
    for name, version in environment.versions().items():
        table.add_row(name, version)
    code = about.get("commit")
    table.add_row("code", f"{code}{' (changed)' if about.get('dirty') else ''}" if code else "-")
    table.add_row("processor", f"{about['processor']}, {environment.cores()} cores usable")
    limit = about["onednn_limit"]
    onednn = f"limit set to {limit}" if limit else "no limit"
    capability = about["cpu_capability"]
    table.add_row("vector instructions", f"{capability}; convolutions (oneDNN): {onednn}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("GPUs", ", ".join(gpus) or "none: runs are trained on the CPU, one worker a core")
    tuning = saved_tuning.load()
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
