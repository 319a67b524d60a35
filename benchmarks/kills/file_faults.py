"""Faults of file operations: this process is killed, or the disk is full, at a chosen operation."""

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Fault = Literal["kill", "full"]
"""What happens: the process is killed, or nothing more fits on the disk."""
FREEING = ("unlink", "rmdir")
"""Operations that work on a full disk."""
NAMES = ("open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "utime")
"""Functions of ``os`` that change or sync files."""
BY_DESCRIPTOR = ("write", "fsync")


class FileFaults:
    """Counts the operations of this thread that change files in a folder, and fails at one.

    Attributes:
        folder: in which operations count.
        at: number of the operation that fails, from 0; None: none fails.
        fault: what happens there.
        done: the operations so far, such as ``replace checkpoint.pt``.
    """

    def __init__(self, folder: Path, at: int | None = None, fault: Fault = "kill") -> None:
        self.folder, self.at, self.fault = str(folder.resolve()), at, fault
        self.done: list[str] = []
        self.thread = threading.get_ident()

    def install(self) -> None:
        """Replace the functions of ``os``, and ``open`` for writing, in this process."""
        for name in NAMES:
            setattr(os, name, self._counting(name, getattr(os, name)))
        original = io.open

        def open_counted(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if set(mode) & set("wax+") and self._inside(file):
                self._count("open", file, lambda: None)
            return original(file, mode, *args, **options)

        io.open = builtins.open = open_counted

    def _counting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            target = _path(args[0]) if name in BY_DESCRIPTOR else args[0]
            changes = name != "open" or args[1] & (os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            if not changes or options.get("dir_fd") is not None or not self._inside(target):
                return original(*args, **options)

            def half() -> None:
                if name == "write":  # a part of the content is on the disk
                    descriptor, content = args
                    original(descriptor, memoryview(content)[: len(content) // 2])

            shown = args[1] if name in ("replace", "rename", "link") else target
            self._count(name, shown, half)
            return original(*args, **options)

        return counted

    def _inside(self, path: Any) -> bool:
        if threading.get_ident() != self.thread or not isinstance(path, str | os.PathLike):
            return False
        return Path(path).absolute().is_relative_to(self.folder)

    def _count(self, name: str, path: Any, half: Callable[[], object]) -> None:
        """Count an operation on a path; kill the process or raise if it is its turn."""
        now = len(self.done)
        self.done.append(f"{name} {Path(path).name}")
        if self.at is None or now < self.at:
            return
        if self.fault == "kill":
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        if name not in FREEING:
            if now == self.at:
                half()
            error = errno.ENOSPC, os.strerror(errno.ENOSPC)
            # As the system's: an operation on a descriptor does not know the file's name.
            raise OSError(*error) if name in BY_DESCRIPTOR else OSError(*error, str(path))


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())
