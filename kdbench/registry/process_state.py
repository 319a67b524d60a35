"""State of the whole process, which code of methods must leave as it was.

A method that changes it would change the numbers of the methods that are trained after it in the
same process. ``kept`` puts everything back and names what was changed.
"""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import torch

from kdbench.method import ContractBroken
from kdbench.registry.torch_functions import TorchFunctions

log = logging.getLogger(__name__)

HALF_OF_SMALLEST = 2.0**-1022, 0.5
"""Factors of a denormal number, which is 0 if torch.set_flush_denormal is on."""


class Setting(NamedTuple):
    """A part of the process's state.

    Attributes:
        name: how a user knows it.
        get: returns its value.
        set: puts it back.
        allowed: whether a change is put back without an error, because libraries that a plugin
            imports make such changes.
        slow: whether reading it takes too long to do so around every step.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    allowed: bool = False
    slow: bool = False


def _settings() -> Iterator[Setting]:
    """Yield what can change numbers, errors or files of other runs, as this torch has it."""
    c = torch._C
    yield Setting("torch.set_grad_enabled", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting("torch.inference_mode", torch.is_inference_mode_enabled, _leave_inference)
    yield Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype)
    yield Setting("torch.set_default_device", _default_device, _set_default_device)
    yield Setting("torch.set_num_threads", torch.get_num_threads, torch.set_num_threads)
    yield Setting("torch.autocast", _autocast_nesting, _leave_autocast)
    yield Setting(
        "torch.use_deterministic_algorithms",
        lambda: (c._get_deterministic_algorithms(), c._get_deterministic_algorithms_warn_only()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    )
    yield Setting(
        "torch.utils.deterministic.fill_uninitialized_memory",
        c._get_deterministic_fill_uninitialized_memory,
        c._set_deterministic_fill_uninitialized_memory,
    )
    yield Setting(
        "torch.autograd.set_detect_anomaly", torch.is_anomaly_enabled, torch.set_anomaly_enabled
    )
    yield Setting("torch.set_flush_denormal", _flushes, torch.set_flush_denormal)
    yield Setting(
        "torch.set_float32_matmul_precision",
        _or_error(c._get_float32_matmul_precision),
        c._set_float32_matmul_precision,
    )
    flags = {
        "torch.backends.cudnn.enabled": "cudnn_enabled",
        "torch.backends.cudnn.benchmark": "cudnn_benchmark",
        "torch.backends.cudnn.deterministic": "cudnn_deterministic",
        "torch.backends.cudnn.allow_tf32": "cudnn_allow_tf32",
        "torch.backends.cuda.matmul.allow_tf32": "cublas_allow_tf32",
        "torch.backends.mkldnn.enabled": "mkldnn_enabled",
        "torch.backends.nnpack.enabled": "nnpack_enabled",
    }
    for name, flag in flags.items():
        get, put = getattr(c, f"_get_{flag}", None), getattr(c, f"_set_{flag}", None)
        if get and put:
            yield Setting(name, _or_error(get), put)
    # After the older names of the same settings, because those write into these.
    if hasattr(c, "_get_fp32_precision_getter"):
        for backend, operation in (("generic", "all"), ("cuda", "matmul"), ("cuda", "conv")):
            yield _fp32_precision(backend, operation)
    yield Setting("os.chdir", os.getcwd, os.chdir, slow=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        yield Setting("signal.signal", _handler(number), _set_handler(number), slow=True)
    yield Setting("functions of torch", TorchFunctions, TorchFunctions.put_back, slow=True)
    environment = os.environ._data  # type: ignore[attr-defined]
    yield Setting(
        "os.environ", lambda: dict(environment), _set_environment, allowed=True, slow=True
    )
    yield Setting("warnings.filters", lambda: tuple(warnings.filters), _set_filters, allowed=True)


_NEVER_LEFT: list[torch.inference_mode] = []


def _leave_inference(before: bool) -> None:
    # torch has no function that sets the mode: enter a context, and keep it so that it never exits.
    context = torch.inference_mode(before)
    context.__enter__()
    _NEVER_LEFT.append(context)


def _default_device() -> object:
    return vars(torch._GLOBAL_DEVICE_CONTEXT).get("device_context")


def _set_default_device(context: Any) -> None:
    torch.set_default_device(context.device if context is not None else None)


def _autocast_nesting() -> int:
    """Return how many autocast contexts are open: as long as one is, casts are kept."""
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def _leave_autocast(before: int) -> None:
    while _autocast_nesting() > before:
        torch.autocast_decrement_nesting()
    while _autocast_nesting() < before:
        torch.autocast_increment_nesting()
    if not before:
        torch.clear_autocast_cache()


def _flushes() -> bool:
    smallest, half = HALF_OF_SMALLEST
    return smallest * half == 0


def _fp32_precision(backend: str, operation: str) -> Setting:
    get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    return Setting(
        f"torch.backends: fp32_precision of {backend} {operation}",
        lambda: get(backend, operation),
        lambda value: put(backend, operation, value),
    )


def _or_error(get: Callable[[], Any]) -> Callable[[], Any]:
    """Return a getter that gives the error's type if torch's getter refuses to answer."""

    def answer() -> Any:
        try:
            return get()
        except RuntimeError as error:
            return type(error)

    return answer


def _handler(number: signal.Signals) -> Callable[[], Any]:
    return lambda: signal.getsignal(number)


def _set_handler(number: signal.Signals) -> Callable[[Any], None]:
    def put(handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)

    return put


def _set_environment(before: dict[Any, Any]) -> None:
    decoded = {os.fsdecode(name): os.fsdecode(value) for name, value in before.items()}
    for name in set(os.environ) - set(decoded):
        del os.environ[name]
    os.environ.update(decoded)


def _set_filters(before: tuple[Any, ...]) -> None:
    warnings.filters[:] = before  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


SETTINGS = tuple(_settings())
"""Everything that ``kept`` keeps. Not kept, because it cannot be read or put back, or changes no
number: threads between operations, functions that a plugin replaces in other modules than torch's,
the global generators of Python and numpy, with which kdbench draws nothing."""
QUICK = tuple(setting for setting in SETTINGS if not setting.slow)
"""Those that are read around every step, in some microseconds."""


class kept:
    """A context that puts the process's state back; ``with kept("KD"): ...``.

    If something was changed, leaving the context raises, unless an error is raised already.

    Args:
        who: whose code runs, for the message.
        settings: what to keep.
        silent: put back what was changed without raising.

    Raises:
        ContractBroken: the code in the context changed something.
    """

    __slots__ = ("before", "settings", "silent", "who")

    def __init__(
        self, who: str, settings: tuple[Setting, ...] = SETTINGS, *, silent: bool = False
    ) -> None:
        self.who, self.settings, self.silent = who, settings, silent

    def __enter__(self) -> None:
        """Note the present state."""
        self.before = [setting.get() for setting in self.settings]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Put the state back."""
        after = [setting.get() for setting in self.settings]
        if after == self.before:
            return
        names = self._put_back(after)
        if self.silent or not names:
            return
        # Such a change explains what another check of the contract has found.
        if kind is None or issubclass(kind, ContractBroken):
            raise ContractBroken(
                f"{self.who} changes {' and '.join(names)} for the whole process, hence for other "
                "methods: undo the change before returning, or do without it"
            )

    def _put_back(self, after: list[Any]) -> list[str]:
        """Restore the settings that differ; return the names of those that must not change."""
        names = []
        for setting, old, new in zip(self.settings, self.before, after, strict=True):
            if old != new:
                # torch may refuse to read or set a value, e.g. after old and new names were mixed.
                with suppress(RuntimeError, OSError, TypeError):
                    setting.set(old)
                if setting.get() != old and not setting.allowed:
                    log.warning("%s cannot be put back: later runs use %s", setting.name, new)
                if not setting.allowed:
                    names.append(setting.name)
        return list(dict.fromkeys(names))
