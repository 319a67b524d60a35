"""Folding of batch norms into the convolutions before them, to speed up a frozen teacher."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kdbench.models.network import Network


def folded(network: Network) -> Network:
    """Return a frozen copy in eval mode with the same ``Features`` and fewer batch norms.

    Every batch norm whose only input is a convolution becomes an ``Identity``. The others stay, for
    instance the first of a WRN block. The network itself is not changed.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    for conv_name, bn_name in frozen.folds():
        conv, bn = frozen.get_submodule(conv_name), frozen.get_submodule(bn_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        _replace(frozen, conv_name, fuse_conv_bn_eval(conv, bn))
        _replace(frozen, bn_name, nn.Identity())
    return frozen.eval().requires_grad_(False)


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module)
