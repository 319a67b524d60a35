"""Settings of a transfer set: images without labels that students train on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from kdbench.grid.dataset_facts import DATASETS
from kdbench.grid.value_types import Line, Positive, Strict

NOISE = "noise"

if TYPE_CHECKING:
    TransferName = str
else:
    TransferName = Literal[(NOISE, *DATASETS)]


class TransferSet(Strict):
    """Images without labels, resized to those of the data set.

    Attributes:
        name: "noise": independent uniform bytes; or one of ``DATASETS``: its training images.
        root: imagefolder only: the folder of the images, in any folders below it; only those below
            ``train`` if it also has ``test``. It is not part of a run's id.
        label: imagefolder only: name in tables; by default the last part of ``root``.
        images: noise only: number of images; by default as many as the training set has.
    """

    name: TransferName
    root: str | None = None
    label: Line | None = None
    images: Positive | None = None

    @model_validator(mode="after")
    def _options_of_name(self) -> "TransferSet":
        if self.name == "imagefolder":
            if not self.root:
                raise ValueError("imagefolder needs a root: the folder of the images")
        elif self.root or self.label:
            raise ValueError(f"root and label are for imagefolder only, not for {self.name}")
        if self.images and self.name != NOISE:
            raise ValueError(f"images is for noise only, not for {self.name}")
        return self

    @property
    def title(self) -> str:
        """Name in tables, e.g. ``5,000 noise images``."""
        if self.name == NOISE:
            return f"{self.images:,} noise images" if self.images else "noise"
        return self.label or (Path(self.root).resolve().name if self.root else self.name)

    @property
    def canonical(self) -> dict[str, Any]:
        """The values that determine a result, as ``Dataset.canonical``."""
        values = self.model_dump(exclude_none=True, exclude={"root"})
        if self.name == "imagefolder":
            values["label"] = self.title
        if self.name in DATASETS and DATASETS[self.name].version > 1:
            values["version"] = DATASETS[self.name].version
        return values
