"""The zoo of student and teacher networks, by name; only building a network imports torch.

``TABLE`` lists the published architectures. ``FAMILIES`` lists name patterns for the same code with
other depths and widths, among them the demo networks ``r8w16`` and ``v5w16``.
"""

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from kdbench.errors import nearest

if TYPE_CHECKING:
    from kdbench.models.network import Network


class Architecture(NamedTuple):
    """A network's module in ``kdbench.models``, its class there and the arguments of the class."""

    module: str
    builder: str
    settings: dict[str, Any]


def _resnet(depth: int, *channels: int) -> Architecture:
    return Architecture("resnet", "ResNet", {"depth": depth, "channels": channels})


def _imagenet_style(*blocks: int, bottleneck: bool = False) -> Architecture:
    settings = {"blocks": blocks, "bottleneck": bottleneck}
    return Architecture("resnet_imagenet_style", "ImageNetStyleResNet", settings)


def _wrn(depth: int, width: int) -> Architecture:
    return Architecture("wrn", "WideResNet", {"depth": depth, "width": width})


def _vgg(*repeats: int) -> Architecture:
    widths = (64, 128, 256, 512, 512)
    blocks = tuple((w,) * n for w, n in zip(widths, repeats, strict=True))
    return Architecture("vgg", "VGG", {"blocks": blocks, "pools": 3, "first_stage": 1})


def _small_vgg(convolutions: int, width: int) -> Architecture:
    blocks = tuple((w,) * convolutions for w in (width, 2 * width, 4 * width))
    return Architecture("vgg", "VGG", {"blocks": blocks, "pools": 2, "first_stage": 0})


def _mobilenet(width: float) -> Architecture:
    return Architecture("mobilenet", "MobileNetV2", {"width": width})


def _shuffle_v2(*channels: int) -> Architecture:
    return Architecture("shufflenet", "ShuffleNetV2", {"channels": channels})


PLAIN, X2, X4 = (16, 16, 32, 64), (16, 32, 64, 128), (32, 64, 128, 256)  # stem, three stages

TABLE: dict[str, Architecture] = {
    "resnet8": _resnet(8, *PLAIN),
    "resnet14": _resnet(14, *PLAIN),
    "resnet20": _resnet(20, *PLAIN),
    "resnet32": _resnet(32, *PLAIN),
    "resnet38": _resnet(38, *PLAIN),
    "resnet44": _resnet(44, *PLAIN),
    "resnet56": _resnet(56, *PLAIN),
    "resnet110": _resnet(110, *PLAIN),
    "resnet116": _resnet(116, *PLAIN),
    "resnet14x2": _resnet(14, *X2),
    "resnet38x2": _resnet(38, *X2),
    "resnet110x2": _resnet(110, *X2),
    "resnet8x4": _resnet(8, *X4),
    "resnet14x4": _resnet(14, *X4),
    "resnet32x4": _resnet(32, *X4),
    "resnet38x4": _resnet(38, *X4),
    "resnet8x4_double": _resnet(8, 64, 128, 256, 512),
    "ResNet18": _imagenet_style(2, 2, 2, 2),
    "ResNet34": _imagenet_style(3, 4, 6, 3),
    "ResNet50": _imagenet_style(3, 4, 6, 3, bottleneck=True),
    "wrn_16_1": _wrn(16, 1),
    "wrn_16_2": _wrn(16, 2),
    "wrn_16_4": _wrn(16, 4),
    "wrn_40_1": _wrn(40, 1),
    "wrn_40_2": _wrn(40, 2),
    "wrn_40_4": _wrn(40, 4),
    "vgg8": _vgg(1, 1, 1, 1, 1),
    "vgg11": _vgg(1, 1, 2, 2, 2),
    "vgg13": _vgg(2, 2, 2, 2, 2),
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "vgg19": _vgg(2, 2, 4, 4, 4),
    "MobileNetV2": _mobilenet(0.5),
    "MobileNetV2_1_0": _mobilenet(1.0),
    "ShuffleV1": Architecture("shufflenet", "ShuffleNetV1", {}),
    "ShuffleV2": _shuffle_v2(116, 232, 464, 1024),
    "ShuffleV2_1_5": _shuffle_v2(176, 352, 704, 1024),
    "ShuffleV2_2_0": _shuffle_v2(224, 488, 976, 2048),
}


class Family(NamedTuple):
    """Names with one or two numbers: a depth ``step * n + offset``, then a width."""

    form: str
    step: int
    offset: int
    entry: Callable[..., Architecture]

    def numbers(self, name: str) -> list[int] | None:
        """Return the numbers in a name, or None if it has another form."""
        pattern = (
            re.escape(self.form).replace("D", r"([1-9]\d{0,3})").replace("W", r"([1-9]\d{0,3})")
        )
        match = re.fullmatch(pattern, name)
        return [int(group) for group in match.groups()] if match else None


FAMILIES = (
    Family("rDwW", 6, 2, lambda d, w: _resnet(d, w, w, 2 * w, 4 * w)),
    Family("vDwW", 3, 2, lambda d, w: _small_vgg((d - 2) // 3, w)),
    Family("wrn_D_W", 6, 4, _wrn),
    Family("resnetD", 6, 2, lambda d: _resnet(d, *PLAIN)),
    Family("resnetDx2", 6, 2, lambda d: _resnet(d, *X2)),
    Family("resnetDx4", 6, 2, lambda d: _resnet(d, *X4)),
)

TAKEN = {"resnet50": "ResNet50 (the one published) or r50w16 (the thin one of depth 6n + 2)"}
"""Names that match a pattern but usually mean another network."""


def names() -> list[str]:
    """Return the names of the published architectures."""
    return list(TABLE)


def known(name: str) -> bool:
    """Check whether ``create`` can build a network of this name."""
    return _find(name) is not None


def suggest(name: str) -> list[str]:
    """Return the nearest valid names, best first; none if nothing is near.

    A name that differs in capitals only comes before one with another depth.
    """
    depth = _nearest_depth(name)
    near = nearest(name, (*TABLE, "r8w16", "v5w16"), n=3)
    same = [other for other in near if other.casefold() == name.casefold()]
    return list(dict.fromkeys([*same, *([depth] if depth else []), *near]))


def family(name: str) -> str:
    """Return the module of a network, such as ``"wrn"``: its style of architecture."""
    return entry(name).module


def entry(name: str) -> Architecture:
    """Return a network's architecture.

    Raises:
        ValueError: unknown name; the message suggests the nearest names.
    """
    architecture = _find(name)
    if architecture is not None:
        return architecture
    if name in TAKEN:
        raise ValueError(f"unknown network {name!r}: did you mean {TAKEN[name]}?")
    near = " or ".join(suggest(name)) or f"one of {', '.join(TABLE)}, r8w16, v5w16"
    raise ValueError(f"unknown network {name!r}{_wrong_depth(name)} (did you mean {near}?)")


def create(name: str, *, num_classes: int = 100, in_channels: int = 3) -> "Network":
    """Build a network with weights from torch's global generator.

    Convolutions that PyTorch's CPU kernels get wrong are replaced; see ``models.pointwise``.

    Args:
        name: name of a published architecture, or one that matches a family.
        num_classes: K.
        in_channels: channels of an image.

    Raises:
        ValueError: unknown name, or a size below 1.
    """
    module, builder, settings = entry(name)
    for key, value in {"num_classes": num_classes, "in_channels": in_channels}.items():
        if value < 1:
            raise ValueError(f"{name}: {key} must be at least 1, not {value}")
    build = getattr(importlib.import_module(f"kdbench.models.{module}"), builder)
    network: Network = build(num_classes=num_classes, in_channels=in_channels, **settings)
    # Imported here, like the architecture's module, because it imports torch.
    importlib.import_module("kdbench.models.pointwise").replace_strided_pointwise(network)
    return network


@cache
def _find(name: str) -> Architecture | None:
    if name in TABLE:
        return TABLE[name]
    if name in TAKEN:
        return None
    for pattern in FAMILIES:
        numbers = pattern.numbers(name)
        if (
            numbers
            and numbers[0] > pattern.offset
            and (numbers[0] - pattern.offset) % pattern.step == 0
        ):
            return pattern.entry(*numbers)
    return None


def _nearest_depth(name: str) -> str | None:
    """Return the name with the nearest valid depth if only the depth is wrong."""
    for pattern in FAMILIES:
        numbers = pattern.numbers(name)
        if numbers:
            n = max(1, round((numbers[0] - pattern.offset) / pattern.step))
            right = name.replace(str(numbers[0]), str(pattern.step * n + pattern.offset), 1)
            return right if known(right) else None
    return None


def _wrong_depth(name: str) -> str:
    for pattern in FAMILIES:
        numbers = pattern.numbers(name)
        if numbers:
            return f": depth {numbers[0]} is not {pattern.step}n + {pattern.offset}"
    return ""
