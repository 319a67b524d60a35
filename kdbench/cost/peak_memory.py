"""Peak memory of operations, counted while they run, on shapes alone or with values."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Counter of the memory that operations in its context allocate, as long as it is in use.

    Memory allocated before, such as weights, and views of it are not counted, nor is memory that
    an operation needs only while it runs.

    Attributes:
        now: bytes in use.
        max_bytes: largest number of bytes in use at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.max_bytes = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count the memory of its outputs."""
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):
                self._count(x, 0)
        out = func(*args, **(kwargs or {}))
        # The schema marks views; nothing else does if a weight is seen through another mode.
        aliases = any(given.alias_info is not None for given in func._schema.returns)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x, 0 if aliases else x.untyped_storage().nbytes())
        return out

    def _count(self, x: Tensor, size: int) -> None:
        """Count a tensor's storage once, until it is freed."""
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._counted:
            return
        self._counted.add(key)
        weakref.finalize(storage, self._release, key, size).atexit = False
        self.now += size
        self.max_bytes = max(self.max_bytes, self.now)

    def _release(self, key: int, size: int) -> None:
        self._counted.discard(key)
        self.now -= size
