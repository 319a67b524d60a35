"""Image folders of damaged and odd files end well or in one line that names the file."""

import io
import tempfile
from pathlib import Path

from fuzzing import answer, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdbench.data.readers.image_folder import imagefolder
from kdbench.grid.settings import Dataset

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F")
FORMATS = ("BMP", "EPS", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "TIFF", "WEBP")


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    """Draw the content of an image file of any mode and format that Pillow writes together."""
    mode = draw(st.sampled_from(MODES))
    size = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    image = Image.new("L", size, draw(st.integers(0, 255))).convert(mode)
    file = io.BytesIO()
    try:
        image.save(file, draw(st.sampled_from(FORMATS)))
    except (OSError, ValueError, KeyError):
        image.convert("RGB").save(file, "PNG")
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw an image file, perhaps with some bytes changed, cut off, or repeated."""
    content = bytearray(draw(image_files()))
    # Headers, which hold sizes and kinds, are hit as often as all of the rest.
    place = st.integers(0, min(60, len(content) - 1)) | st.integers(0, len(content) - 1)
    for at in draw(st.lists(place, max_size=6)):
        content[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    kept = draw(st.none() | st.integers(0, len(content)))
    return bytes(content[:kept]) + draw(st.just(b"") | st.binary(max_size=40))


@fuzzed
@given(
    contents=st.lists(damaged() | st.binary(max_size=200), min_size=1, max_size=3),
    suffix=st.sampled_from((".png", ".JPG", ".tiff", ".webp", ".ppm", ".bmp")),
    size=st.sampled_from((None, 8)),
)
def test_odd_images_end_in_one_line(contents: list[bytes], suffix: str, size: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photos"
        for part in ("train", "test"):
            (root / part / "a").mkdir(parents=True)
            for i, content in enumerate(contents):
                (root / part / "a" / f"{i}{suffix}").write_bytes(content)
        dataset = Dataset(name="imagefolder", root=str(root), size=size)
        message = answer(lambda: imagefolder(dataset, Path(name)))
        assert not message or str(root) in message
