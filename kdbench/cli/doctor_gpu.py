"""What ``kdbench doctor`` says about GPUs: cards, software, and how kdbench uses them."""

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from kdbench.cost import saved_tuning
from kdbench.execution.devices import TF32_SINCE
from kdbench.execution.work import DRIVER
from kdbench.training.device import WORKSPACE, prepare
from kdbench.training.gpu_facts import gpu_facts

ON_CPU = "runs train on the CPU, one worker per core"


def lines() -> Iterator[tuple[str, str]]:
    """Yield items and their state."""
    try:
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except RuntimeError as error:
        yield "GPUs", f"cannot be used: {_first_line(error)}"
        return
    if not names:
        yield "GPUs", _why_none()
        return
    yield "GPUs", f"{', '.join(names)}: one worker each"
    for i in range(len(names)):
        try:
            yield f"GPU {i}", _card(torch.device("cuda", i))
        except RuntimeError as error:
            yield f"GPU {i}", f"cannot be used: {_first_line(error)}"
            return
    first = torch.device("cuda:0")
    facts = gpu_facts(first)
    yield (
        "GPU software",
        f"driver {facts['driver'] or '?'}, CUDA {facts['cuda'] or '?'}, "
        f"cuDNN {facts['cudnn'] or '?'}, {_triton()}",
    )
    hindrance = graphs_hindrance(first)
    yield (
        "CUDA graphs",
        f"not possible, so steps run slower: {hindrance}"
        if hindrance
        else "possible: steps are replayed as graphs unless executor.graphs is never",
    )
    yield "GPU determinism", determinism()
    yield "precision on GPUs", _precision(torch.cuda.get_device_capability(first))
    tuning = saved_tuning.load_gpu(names[0])
    if tuning is None:
        yield "GPU, measured", "not yet; kdbench doctor --tune measures precision, graphs, streams"
    else:
        yield "GPU, measured", f"executor: {tuning.best()}, for {tuning.subject}"


def determinism() -> str:
    """Describe the settings that ``prepare`` made, as torch reports them."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    name, _ = WORKSPACE
    return (
        f"{'only' if algorithms and cudnn.deterministic else 'NOT only'} deterministic algorithms, "
        f"{'chosen by timing' if cudnn.benchmark else 'not chosen by timing'}; "
        f"{name}={os.environ.get(name, 'NOT SET')}"
    )


def graphs_hindrance(device: torch.device) -> str:
    """Return why a CUDA graph cannot be recorded and replayed here; "" if it can."""
    try:
        x = torch.zeros(8, device=device)
        stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph, stream=stream):
            x += 1
        graph.replay()
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return _first_line(error)
    return "" if bool((x == 1).all()) else "a replayed graph gave a wrong result"


def _card(device: torch.device) -> str:
    """Prepare a GPU as for a training, and describe it."""
    prepare(device)
    facts = gpu_facts(device)
    free, total = torch.cuda.mem_get_info(device)
    return (
        f"capability {facts['capability']}, {facts['multiprocessors']} multiprocessors, "
        f"{total / 2**30:.1f} GB of memory, {free / 2**30:.1f} GB free"
    )


def _precision(capability: tuple[int, int]) -> str:
    tf32 = (
        "convolutions round inputs to 10 bits"
        if capability >= TF32_SINCE
        else "not on this card, which is too old"
    )
    return (
        f"fp32: IEEE single precision; tf32: {tf32}; bf16: mixed precision with bfloat16; products "
        "of matrices in losses are IEEE in all three"
    )


def _triton() -> str:
    try:
        return f"triton {version('triton')}"
    except PackageNotFoundError:
        return "no triton, which protocol.compile needs"


def _why_none() -> str:
    """Say why torch sees no GPU, if NVIDIA's driver is installed."""
    if not any(path.exists() for path in DRIVER):
        return f"none: {ON_CPU}"
    if torch.version.cuda is None:
        return f"none: this torch is built without CUDA, so {ON_CPU}"
    return f"none: torch sees no GPU, although NVIDIA's driver is installed; {ON_CPU}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
