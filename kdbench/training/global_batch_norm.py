"""Batch norm over the global batch, of which each rank has only its rows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.tensors import upcast
from kdbench.training.ranks import World


def convert(module: nn.Module, world: World) -> None:
    """Replace every batch norm below ``module``, keeping its parameters, buffers and their names.

    Not needed for a method's own modules, which get the global batch on every rank.
    """
    if world.size == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, GlobalBatchNorm(child, world))
        else:
            convert(child, world)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """``nn.BatchNorm1d`` or ``2d`` with statistics over the rows of all ranks.

    Unlike ``nn.SyncBatchNorm`` it also works on a CPU. All ranks must have the same number of rows.
    """

    def __init__(self, original: nn.BatchNorm1d | nn.BatchNorm2d, world: World) -> None:
        super().__init__(original.num_features, original.eps, original.momentum)
        self.world = world
        self._parameters.update(original._parameters)
        self._buffers.update(original._buffers)
        self.train(original.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise this rank's rows, [b, C] or [b, C, H, W]."""
        if not self.training:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        normed, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps, self.world)
        n = x.numel() // x.shape[1] * self.world.size
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            share = self.momentum
            if share is None:  # a plain average over all batches
                share = 1 / float(self.num_batches_tracked)  # type: ignore[arg-type]
            self.running_mean.lerp_(mean, share)  # type: ignore[union-attr]
            self.running_var.lerp_(var * (n / max(1, n - 1)), share)  # type: ignore[union-attr]
        return normed


class _Normalise(torch.autograd.Function):
    """Ioffe & Szegedy, ICML 2015 (arXiv:1502.03167), Algorithm 1 and its derivative."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [i for i in range(x.dim()) if i != 1]
        moments = torch.var_mean(upcast(x), dims, correction=0)
        # [size, 2, C]; each rank's variance is about its own mean, so no large numbers cancel.
        variances, means = world.concatenated(torch.stack(moments)[None]).unbind(1)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.world, ctx.dims = world, dims
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.dim() - 2)]
        slope = upcast(grad)
        unit = (upcast(x) - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([slope.sum(ctx.dims), (slope * unit).sum(ctx.dims)])
        n = x.numel() // x.shape[1] * ctx.world.size
        offset, tilt = (part.view(shape) for part in ctx.world.sum(own) / n)
        back = (slope - offset - unit * tilt) * (inverse * weight).view(shape)
        return back.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None
