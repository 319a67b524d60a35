"""Resources that clusters on a machine share: ports and ``/etc/hosts``."""

import contextlib
import fcntl
import socket
from pathlib import Path

HOSTS = Path("/etc/hosts")
LOOPBACK = "127.0.0.1"
BLOCK = 200


def reserve(count: int) -> tuple[socket.socket, int]:
    """Reserve the ports P+1 .. P+count, below the range of ephemeral ports.

    Returns:
        A socket bound to P, and P. While the socket is open, no other cluster takes the block.

    Raises:
        RuntimeError: no block is free.
    """
    for base in range(26800, 32600, BLOCK):
        holder = socket.socket()
        try:
            holder.bind((LOOPBACK, base))
            holder.listen(1)
            for port in range(base + 1, base + 1 + count):
                with socket.socket() as probe:
                    # Ignores the remains of closed connections, but not a listener.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((LOOPBACK, port))
        except OSError:
            holder.close()
            continue
        return holder, base
    raise RuntimeError("no free block of ports between 26800 and 32600")


def name_hosts(names: list[str], owner: Path) -> None:
    """Add host names for this machine; ``forget_hosts`` removes them."""
    _rewrite(owner, f"{LOOPBACK} {' '.join(names)} # {owner}\n")


def forget_hosts(owner: Path) -> None:
    """Remove the line that ``name_hosts`` wrote for an owner."""
    _rewrite(owner, "")


def _rewrite(owner: Path, line: str) -> None:
    # In place, under a lock: the file may be a mount, and several clusters write to it.
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(HOSTS.open("r+", encoding="utf-8"))
        fcntl.flock(file, fcntl.LOCK_EX)
        before = file.read()
        kept = [old for old in before.splitlines(True) if not old.rstrip().endswith(f"# {owner}")]
        if kept and line and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        after = "".join(kept) + line
        if after != before:
            file.seek(0)
            file.write(after)
            file.truncate()
