"""Odd files in image folders: bombs, FIFOs, other formats, loops of links, odd names."""

import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import folders
from PIL import EpsImagePlugin, Image
from torchvision.datasets import ImageFolder

from kdbench.data.readers import decoding
from kdbench.data.readers.base import DataError
from kdbench.data.readers.image_folder import files_by_class, imagefolder
from kdbench.grid.settings import Dataset


def read(root: Path, size: int | None = 8) -> int:
    """Read a folder, and return the number of its training images."""
    dataset = Dataset(name="imagefolder", root=str(root), size=size)
    return len(imagefolder(dataset, root.parent).train.labels)


def raises(root: Path, *parts: str) -> None:
    """Check that reading fails with one line that contains all parts."""
    with pytest.raises(DataError) as caught:
        read(root)
    text = str(caught.value)
    assert text.isprintable()
    for part in parts:
        assert part in text, text


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG file of few bytes that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + lines + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height"), [(10_000, 5_001), (12_000, 12_000), (20_000, 20_000), (2**31 - 1, 2)]
)
def test_image_bomb_is_refused_before_it_is_decoded(
    width: int, height: int, tmp_path: Path
) -> None:
    root = folders(tmp_path / "pets")
    bomb = root / "train" / "dog" / "1.png"
    bomb.write_bytes(png_claiming(width, height))
    raises(root, f"{bomb} ")


def test_large_photo_is_read(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    Image.new("RGB", (6000, 4000), (200, 100, 50)).save(root / "train" / "dog" / "1.png")
    assert read(root) == 6


def test_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    fifo = root / "train" / "cat" / "9.png"
    os.mkfifo(fifo)
    raises(root, f"{fifo} is not a regular file")


def test_broken_link_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    link = root / "train" / "cat" / "9.png"
    link.symlink_to("nowhere.png")
    raises(root, f"{link} cannot be read")


def test_eps_does_not_reach_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: pytest.fail("was called"))
    root = folders(tmp_path / "pets")
    file = root / "train" / "cat" / "0.png"
    file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    raises(root, f"{file} cannot be decoded: not an image; accepted: BMP, GIF, JPEG")


def test_errors_of_decoders_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise struct.error("unpack requires\n4 bytes")

    root = folders(tmp_path / "pets")
    monkeypatch.setattr(Image, "open", broken)
    raises(root, "cannot be decoded: unpack requires 4 bytes")


def test_images_that_do_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise MemoryError

    root = folders(tmp_path / "pets")
    monkeypatch.setattr(decoding.np, "empty", full)
    raises(root, "10 images of 8x8 need 0 GB: give size")


def test_cache_of_other_content_is_not_used(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    read(root)
    (kept,) = (tmp_path / "cache").iterdir()
    with kept.open("wb") as file:
        np.savez(file, images=np.zeros((10, 8), np.float32))
    assert read(root) == 6


# -- lists of files -------------------------------------------------------------------------


def test_order_of_files_is_torchvisions(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets", ("cat", "Dog", "a b"))
    cat = root / "train" / "cat"
    (cat / "more" / "deep").mkdir(parents=True)
    (cat / "more.1").mkdir()
    for place in (cat / "more", cat / "more" / "deep", cat / "more.1"):
        shutil.copy(cat / "0.png", place / "Z.PNG")
        shutil.copy(cat / "0.png", place / "a.jpeg")
    (cat / "notes.txt").write_text("no image")
    theirs = ImageFolder(root / "train")
    ours = files_by_class(root / "train")
    assert list(ours) == theirs.classes
    listed = [(str(file), k) for k, files in enumerate(ours.values()) for file in files]
    assert listed == theirs.samples


def test_loops_of_links_end(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    (cat / "up").symlink_to(root / "train", target_is_directory=True)
    (cat / "self").symlink_to(cat, target_is_directory=True)
    (cat / "other").symlink_to(dog, target_is_directory=True)
    (dog / "back").symlink_to(cat, target_is_directory=True)
    assert set(files_by_class(root / "train")["cat"]) >= {cat / "0.png", cat / "other" / "0.png"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("name", [b"c\xffat", b"c\nat", b"c\x1b[31mat"])
def test_class_name_that_is_no_text_is_refused(name: bytes, tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    (root / "train" / "cat").rename(root / "train" / os.fsdecode(name))
    raises(root, "class folder", "needs a name of printable text")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_file_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    cat = root / "train" / "cat"
    (cat / "0.png").rename(cat / os.fsdecode(b"\xff.png"))
    assert read(root) == 6
