"""What the authors' code needs and this machine lacks: old names, CUDA, packages, CIFAR-100.

All of it is set at run time in a separate process; no file of a repository changes.
"""

import ast
import importlib
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn


def install(losses: list[float]) -> None:
    """Make the authors' code compute in float64 on the CPU, and record the losses of its steps.

    Their calls of ``cuda`` and ``float`` then change nothing. ``view`` of a tensor in another
    memory order, which torch once allowed, copies it.
    """
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    anything: Any = torch
    anything.cuda.is_available = lambda: False
    anything.cuda.device_count = lambda: 0
    anything.Tensor.cuda = lambda self, *args, **named: self
    anything.Tensor.float = lambda self, *args, **named: self.double()
    nn.Module.cuda = lambda self, *args, **named: self  # type: ignore[method-assign]
    view, backward = torch.Tensor.view, torch.Tensor.backward

    def view_or_copy(self: Tensor, *shape: Any) -> Tensor:
        try:
            return view(self, *shape)
        except RuntimeError:
            return self.reshape(*shape)

    def recorded(self: Tensor, *args: Any, **named: Any) -> None:
        losses.append(float(self.detach()))
        backward(self, *args, **named)

    anything.Tensor.view = view_or_copy
    anything.Tensor.backward = recorded
    optimizer: Any = importlib.import_module("torch.optim.optimizer")
    if not hasattr(optimizer, "required"):
        optimizer.required = object()
    for name, kind in (("int", int), ("float", float), ("bool", bool)):
        if name not in vars(np):
            setattr(np, name, kind)
    stub("tensorboard_logger", Logger=Silent)
    stub("tensorboardX", SummaryWriter=Silent)
    stub("tqdm", tqdm=Silent)
    stub("yacs")
    stub("yacs.config", CfgNode=Configuration)


def give_signs() -> None:
    """Let ``torch.svd`` return right vectors whose entries sum to 0 or more, as in kdbench.

    The authors' loss depends on these signs, which a decomposition is free to choose.
    """
    svd, anything = torch.svd, torch

    def signed(matrix: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
        u, values, v = svd(matrix, *args, **named)
        sign = torch.where(v.detach().sum(-2, keepdim=True) < 0, -1.0, 1.0)
        return u * sign, values, v * sign

    vars(anything)["svd"] = signed


def stub(name: str, **contents: Any) -> None:
    """Replace a module, or add it, with these contents."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)  # torch asks for it
    vars(module).update(contents)
    sys.modules[name] = module


class Silent:
    """A logger or a bar that shows nothing, whatever is called."""

    def __init__(self, *args: Any, **named: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **named: None


class Configuration(dict[str, Any]):
    """The part of yacs' ``CfgNode`` that mdistiller uses."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def merge_from_file(self, path: str) -> None:
        """Replace values by those of a YAML file."""
        self._merge(yaml.safe_load(Path(path).read_text()))

    def merge_from_list(self, options: Sequence[str]) -> None:
        """Replace values: names with dots, each followed by its value."""
        for name, text in zip(options[::2], options[1::2], strict=True):
            *parents, last = name.split(".")
            node: Any = self
            for parent in parents:
                node = node[parent]
            node[last] = text if isinstance(node[last], str) else ast.literal_eval(text)

    def _merge(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(self.get(name), Configuration):
                self[name]._merge(value)
            else:
                # YAML reads 5e-4 as text; yacs reads Python's literals.
                self[name] = float(value) if isinstance(self.get(name), float) else value

    def freeze(self) -> None:
        """Do nothing."""

    def dump(self) -> str:
        """Return the values as text."""
        return repr(self)


class Loader:
    """Yields the batches of one epoch after the other, as recorded from kdbench's engine.

    Args:
        epochs: batches of images, labels and positions; a single one is repeated.
        columns: how many of these the repository's loader yields.
        more: a further column, by the step: CRD's samples.
    """

    def __init__(
        self,
        epochs: Sequence[Sequence[tuple[Tensor, ...]]],
        columns: int,
        more: Sequence[Tensor] = (),
    ) -> None:
        self.epochs, self.columns, self.more = epochs, columns, more
        self.epoch = self.step = 0

    def __len__(self) -> int:
        return len(self.epochs[0])

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        epoch = self.epochs[self.epoch % len(self.epochs)]
        self.epoch += 1
        for batch in epoch:
            row = tuple(x.clone() for x in batch[: self.columns])
            yield (*row, self.more[self.step]) if self.more else row
            self.step += 1


def stub_data(train: Loader, test: Loader, count: int, *, counted: bool) -> None:
    """Replace the package ``dataset`` of train_student.py.

    Args:
        train: the training set.
        test: the test set.
        count: number of training images.
        counted: whether ``get_cifar100_dataloaders`` returns ``count``, too.
    """

    def plain(*args: Any, **named: Any) -> tuple[Any, ...]:
        return (train, test, count) if counted else (train, test)

    def sampling(*args: Any, **named: Any) -> tuple[Any, ...]:
        return train, test, count

    stub("dataset")
    stub(
        "dataset.cifar100",
        get_cifar100_dataloaders=plain,
        get_cifar100_dataloaders_sample=sampling,
    )
    unused = dict.fromkeys(("get_imagenet_dataloader", "get_dataloader_sample", "imagenet_list"))
    stub("dataset.imagenet", **(unused | {"imagenet_list": ()}))
    stub("dataset.imagenet_dali", get_dali_data_loader=None)
