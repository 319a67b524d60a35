"""Writing of files: completely or not at all, by any number of writers on any number of machines.

Content is written to a temporary file with a random name, synced, and renamed. A killed process
leaves its temporary file behind, which ``sweep`` deletes. All of kdbench's files are written here,
so that a test can stop or fail every operation.
"""

import os
import re
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

Content = str | bytes | Callable[[BinaryIO], object]
"""What to write: text, bytes, or a function that writes into a file open for writing."""
Permission = Callable[[], AbstractContextManager[object]]
"""Returns a context in which a file is put in place; entering it raises if that is not allowed."""

TRIES = 5
"""How often to write again after another process has swept the temporary file."""
TEMPORARY = re.compile(
    r"\..+\.[0-9a-f]{16}\.tmp"
    # Names that earlier versions used; the number is a process id.
    r"|\..+\.\d+\.(tmp|part)|record\.json\.\d+\.new"
)
"""Names of temporary files."""


def write_atomically(
    path: Path, content: Content, *, permission: Permission = nullcontext, sync: bool = True
) -> None:
    """Replace a file completely or not at all, even if the machine crashes meanwhile.

    Args:
        path: the file.
        content: what to write.
        permission: entered once the content is on the disk, held while the file is renamed.
        sync: wait until the content is on the disk; without, a power cut may leave an empty file.

    Raises:
        OSError: for instance a full disk or a folder that is not writable; ``path`` is unchanged,
            and the error names it.
        Exception: what ``permission`` raises; ``path`` is unchanged.
    """
    _write(path, content, Path.replace, permission, sync=sync)


def write_once(path: Path, content: Content, *, permission: Permission = nullcontext) -> bool:
    """Write a file as ``write_atomically`` does, unless it exists.

    Returns:
        False if the file exists, which then stays.
    """

    def put(temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)  # unlike a rename, fails if the file exists
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError from None
            temporary.replace(path)
        else:
            temporary.unlink(missing_ok=True)

    try:
        _write(path, content, put, permission, sync=True)
    except FileExistsError:
        return False
    sync_folder(path.parent)
    return True


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. Short appends of several writers do not interleave.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _naming(path, error) from error


def check_writable(folder: Path) -> None:
    """Create a folder if it does not exist, and check that files can be created in it.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(folder / "writable")
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    finally:
        temporary.unlink(missing_ok=True)


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name, from which an older file is removed.

    On a file system without hard links the file is moved.
    """
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except FileNotFoundError:
        raise
    except OSError:
        path.replace(other)


def temporary_path(path: Path) -> Path:
    """Return the path of a temporary file for ``path``, which no other process uses."""
    # A part of the name is enough for people; the whole may be as long as file systems allow.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def is_temporary(path: Path) -> bool:
    """Check whether a file is a temporary file of a writer, by its name."""
    return TEMPORARY.fullmatch(path.name) is not None


def sweep(*folders: Path) -> None:
    """Delete the temporary files that killed writers have left in folders.

    A writer that still lives writes its file again, so any process may sweep a folder at any time.
    """
    for folder in folders:
        with suppress(OSError):
            for path in filter(is_temporary, list(folder.iterdir())):
                with suppress(OSError):
                    path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until renames in a folder are on the disk, so that they survive a power cut.

    Raises:
        OSError: the disk cannot be written; the error names the folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _naming(folder, error) from error


def _write(
    path: Path,
    content: Content,
    put: Callable[[Path, Path], object],
    permission: Permission,
    *,
    sync: bool,
) -> None:
    """Write a temporary file, and put it in place; again if another process has swept it."""
    for last in (*[False] * (TRIES - 1), True):
        temporary = temporary_path(path)
        try:
            _create(temporary, path, content, sync=sync)
            with permission():
                try:
                    put(temporary, path)
                except FileExistsError:
                    raise
                except FileNotFoundError as error:
                    if last or temporary.exists() or not path.parent.is_dir():
                        raise _naming(path, error) from error
                    continue
                except OSError as error:
                    raise _naming(path, error) from error
            return
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def _create(temporary: Path, path: Path, content: Content, *, sync: bool) -> None:
    """Write the temporary file of ``path``, and sync it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o666)
        try:
            if callable(content):
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    content(file)
            else:
                rest = memoryview(content.encode() if isinstance(content, str) else content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _naming(path, error) from error


def _naming(path: Path, error: OSError) -> OSError:
    """Return the error with the name of the file that was to be written."""
    if error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))
