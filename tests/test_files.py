"""Files are written completely or not at all, and what killed writers leave is swept."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from kdbench import files

WRITERS = (files.write_atomically, files.write_once)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
def test_failed_write_names_the_file_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    path = tmp_path / "x"
    files.write_atomically(path, "old")

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, operation, full)
    with pytest.raises(OSError, match="No space") as error:
        files.write_atomically(path, "new")
    monkeypatch.undo()
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "old" and names(tmp_path) == ["x"]


def test_error_of_a_function_that_writes_names_the_file(tmp_path: Path) -> None:
    def full(file: BinaryIO) -> None:
        file.write(b"part")
        raise FULL

    with pytest.raises(OSError, match="No space") as error:
        files.write_atomically(tmp_path / "x", full)
    assert error.value.filename == str(tmp_path / "x") and not names(tmp_path)


def test_partial_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:3]))
    files.write_atomically(tmp_path / "x", "ten letters")
    monkeypatch.undo()
    assert (tmp_path / "x").read_text() == "ten letters"


def test_file_that_is_written_once_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    path = tmp_path / "x"
    assert files.write_once(path, "first") and not files.write_once(path, "second")
    monkeypatch.setattr(os, "link", no_links)
    assert not files.write_once(path, "third") and path.read_text() == "first"
    assert files.write_once(tmp_path / "y", b"fourth") and names(tmp_path) == ["x", "y"]


@pytest.mark.parametrize("write", WRITERS)
def test_permission_is_asked_last_and_held_while_the_file_is_put_in_place(
    tmp_path: Path, write: Any
) -> None:
    path = tmp_path / "x"
    seen: list[Any] = []

    @contextmanager
    def permission() -> Iterator[None]:
        [temporary] = tmp_path.iterdir()
        seen.append((temporary.read_text(), path.exists()))
        yield
        seen.append(path.exists())

    write(path, "new", permission=permission)
    assert seen == [("new", False), True] and names(tmp_path) == ["x"]


@pytest.mark.parametrize("write", WRITERS)
def test_nothing_is_written_without_permission(tmp_path: Path, write: Any) -> None:
    class Refused:
        def __enter__(self) -> None:
            raise KeyError("no")

        def __exit__(self, *args: object) -> None:
            pytest.fail("entered")

    with pytest.raises(KeyError):
        write(tmp_path / "x", "new", permission=Refused)
    assert not names(tmp_path)


def test_writers_of_one_process_id_do_not_tear_a_file(tmp_path: Path) -> None:
    """Threads have the process id in common, as processes of two containers may."""
    path = tmp_path / "x"
    contents = [bytes([65 + i]) * 100_000 for i in range(3)]
    files.write_atomically(path, contents[0])

    def work(content: bytes) -> None:
        for _ in range(30):
            files.write_atomically(path, content, sync=False)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    assert names(tmp_path) == ["x"]


# --- sweeping -------------------------------------------------------------------------------------

LITTER = (
    ".record.json.0123456789abcdef.tmp",
    ".checkpoint.new.pt.4711.tmp",
    ".progress.4711.tmp",
    ".accuracy.svg.12.tmp",
    "record.json.4711.new",
    ".record.json.4711.new.4711.tmp",
    "..writable.4711.tmp",
    ".train.npz.4711.part",
)
OTHERS = ("record.json", "checkpoint.new.pt", ".hidden.tmp", "x.tmp", "lock", "notes.12.new")


def test_temporary_files_of_all_versions_are_swept_and_no_others(tmp_path: Path) -> None:
    for name in (*LITTER, *OTHERS):
        (tmp_path / name).touch()
    files.sweep(tmp_path, tmp_path / "missing")
    assert names(tmp_path) == sorted(OTHERS)


@pytest.mark.parametrize("name", ["x", "record.json", "n" * 255, "ü" * 127])
def test_own_temporary_files_are_recognised(tmp_path: Path, name: str) -> None:
    temporary = files.temporary_path(tmp_path / name)
    temporary.touch()
    assert files.is_temporary(temporary) and temporary != files.temporary_path(tmp_path / name)
    files.write_atomically(tmp_path / name, "content")
    files.sweep(tmp_path)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("write", WRITERS)
def test_living_writer_whose_file_is_swept_writes_it_again(tmp_path: Path, write: Any) -> None:
    left = [3]

    @contextmanager
    def swept() -> Iterator[None]:
        if left[0]:
            left[0] -= 1
            files.sweep(tmp_path)
        yield

    write(tmp_path / "x", "content", permission=swept)
    assert (tmp_path / "x").read_text() == "content" and names(tmp_path) == ["x"]


def test_folder_that_vanishes_ends_a_write(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    @contextmanager
    def vanish() -> Iterator[None]:
        files.sweep(tmp_path / "folder")
        (tmp_path / "folder").rmdir()
        yield

    with pytest.raises(FileNotFoundError) as error:
        files.write_atomically(tmp_path / "folder" / "x", "", permission=vanish)
    assert error.value.filename == str(tmp_path / "folder" / "x")


# --- the rest -------------------------------------------------------------------------------------


def test_lines_are_appended(tmp_path: Path) -> None:
    for line in ("one", "two ü"):
        files.append_line(tmp_path / "x", line)
    assert (tmp_path / "x").read_text() == "one\ntwo ü\n"
    with pytest.raises(IsADirectoryError) as error:
        files.append_line(tmp_path, "three")
    assert error.value.filename == str(tmp_path)


def test_kept_file_has_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for content in ("one", "two"):
        new.write_text(content)
        files.keep_as(new, old)
        assert old.samefile(new) and new.read_text() == content
        new.unlink()

    def no_links(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    new.write_text("three")
    monkeypatch.setattr(os, "link", no_links)
    files.keep_as(new, old)
    assert names(tmp_path) == ["old"] and old.read_text() == "three"


def test_writable_folder_is_created_and_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert names(tmp_path / "a" / "b") == []
    with pytest.raises(FileExistsError):
        (tmp_path / "file").touch()
        files.check_writable(tmp_path / "file")
