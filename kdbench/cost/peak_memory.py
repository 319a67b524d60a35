"""How much memory operations need at most, counted while they run, on shapes alone or for real."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """Counts what operations make in its context, as long as it lives.

    What was there before, such as weights, is not counted, nor are views of it; nor is what an
    operation needs only while it runs.

    Attributes:
        now: bytes that are held. most: bytes that were held at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count what it made."""
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):
                self._see(x, 0)
        out = func(*args, **(kwargs or {}))
        # A view's schema says so; of a weight seen through another mode nothing else does.
        aliases = any(given.alias_info is not None for given in func._schema.returns)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._see(x, 0 if aliases else x.untyped_storage().nbytes())
        return out

    def _see(self, x: Tensor, size: int) -> None:
        """Count a piece of memory the first time that it is seen, until it is gone."""
        storage = x.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        weakref.finalize(storage, self._gone, key, size).atexit = False
        self.now += size
        self.most = max(self.most, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
