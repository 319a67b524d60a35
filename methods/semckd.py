"""SemCKD: semantic calibration (Chen et al., AAAI 2021, arXiv:2012.03236; TKDE 2022).

Every student stage learns from every teacher stage. As in the authors' code, for which beta is
tuned, the term is an average over samples, student stages and elements. The ablations are the
paper's; definitions that the paper leaves open are this project's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Batch, Features, Incompatible, Method, Setup
from kdbench.tensors import gram, pool, sum_squares, unit_rows, upcast

ATTENTION = ("learned", "equal", "raw", "one_to_one", "hard", "straight_through", "shared")
PROJECTION = ("full", "linear", "none")


class SemCKD(Method):
    """Regress every student stage onto every teacher stage, with attention weights per sample.

    The attention's input is as wide as the batch. Smaller batches are padded with zeros; larger
    batches are an error.

    Args:
        soft: temperature of the attention.
        factor: ratio of the batch size to the width of queries and keys; at most the batch size.
        attention: "learned": the method; "equal": 1/T; "raw": cosine of the similarity rows, no
            networks; "one_to_one": stage i onto stage i; "shared": one attention for the batch,
            from its mean logits; "hard": all weight on the largest learned attention, without a
            gradient; "straight_through": like "hard", with the learned attention's gradient.
        projection: "full": 1x1, 3x3, 1x1 with batch norm; "linear": one 1x1; "none": the maps
            themselves; needs equal channels.
    """

    family = "feature map"
    beta = 400.0

    def __init__(
        self,
        setup: Setup,
        *,
        soft: float = 1.0,
        factor: int = 4,
        attention: str = "learned",
        projection: str = "full",
    ) -> None:
        super().__init__(setup)
        for key, value, known in (
            ("attention", attention, ATTENTION),
            ("projection", projection, PROJECTION),
        ):
            if value not in known:
                raise ValueError(f"{key} is {value!r}, expected one of {', '.join(known)}")
        self.soft, self.mode, self.batch_size = soft, attention, setup.batch_size
        s, t = setup.student.stages, setup.teacher.stages
        self.pairs = [
            (i, j)
            for i in range(len(s))
            for j in range(len(t))
            if i == j or attention != "one_to_one"
        ]
        learns = attention not in ("equal", "raw", "one_to_one")
        if not 1 <= factor <= setup.batch_size:
            raise Incompatible(
                f"SemCKD: factor is {factor}, expected 1 to the batch size, {setup.batch_size}"
            )
        width = setup.batch_size // factor
        self.keys = nn.ModuleList(Embed(setup.batch_size, width) for _ in t if learns)
        self.queries = nn.ModuleList(Embed(setup.batch_size, width) for _ in s if learns)
        self.regressors = nn.ModuleList(project(s[i], t[j], projection) for i, j in self.pairs)

    def loss(self, s: Features, t: Features, batch: Batch) -> Tensor:
        attention = self.attention(s, t)  # [B, S, T]
        distances = self.distances(s, t)  # one [B] for each pair
        weights = torch.stack([attention[:, i, j] for i, j in self.pairs])  # [pairs, B]
        return (weights * distances).sum() / (len(weights[0]) * len(s.stages))

    def trace(self, s: Features, t: Features) -> dict[str, Tensor]:
        return {"attention": self.attention(s, t).mean(0)}  # [S, T]

    def attention(self, s: Features, t: Features) -> Tensor:
        """Return the weight of each pair of stages per sample, [B, S, T]; sums to 1 over T."""
        sizes = (len(s.logits), len(s.stages), len(t.stages))
        like = upcast(s.stages[0])
        if self.mode == "equal":
            return like.new_full(sizes, 1 / sizes[2])
        if self.mode == "one_to_one":
            return torch.eye(*sizes[1:], dtype=like.dtype, device=like.device).expand(sizes)
        with torch.autocast(like.device.type, enabled=False):
            logits = self.affinity(s, t) / self.soft
            if self.mode == "shared":
                logits = logits.mean(0, keepdim=True).expand(sizes)
            soft = logits.softmax(2)
        if self.mode not in ("hard", "straight_through"):
            return soft
        hard = torch.zeros_like(soft).scatter_(2, soft.argmax(2, keepdim=True), 1.0)
        return hard if self.mode == "hard" else hard + soft - soft.detach()

    def affinity(self, s: Features, t: Features) -> Tensor:
        """Return cosines of queries and keys, from similarities within the batch, [B, S, T]."""
        rows_s = [gram(x) for x in s.stages]  # each [B, B]
        rows_t = [gram(x) for x in t.stages]
        if self.mode == "raw":
            queries, keys = [unit_rows(x) for x in rows_s], [unit_rows(x) for x in rows_t]
        else:
            if len(s.logits) > self.batch_size:
                raise ValueError(
                    f"SemCKD was built for batches of {self.batch_size}, this one has "
                    f"{len(s.logits)}: its attention is as wide as the batch"
                )
            queries = [net(x) for net, x in zip(self.queries, rows_s, strict=True)]
            keys = [net(x) for net, x in zip(self.keys, rows_t, strict=True)]
        return torch.stack(queries, 1) @ torch.stack(keys, 2)  # [B, S, D] @ [B, D, T]

    def distances(self, s: Features, t: Features) -> Tensor:
        """Return the mean squared error of every pair and sample, [len(pairs), B]."""
        pooled: dict[tuple[str, int, int, int], Tensor] = {}

        def stage(network: str, i: int, height: int, width: int) -> Tensor:
            """Return a stage's map at a size, pooled once for all pairs that need it."""
            key = (network, i, height, width)
            if key not in pooled:
                maps = (s if network == "s" else t).stages[i]
                same = maps.shape[-2:] == (height, width)
                pooled[key] = maps if same else pool(maps, height, width)
            return pooled[key]

        errors = []
        for (i, j), regressor in zip(self.pairs, self.regressors, strict=True):
            size = min(s.stages[i].shape[-2:], t.stages[j].shape[-2:])
            error = upcast(regressor(stage("s", i, *size))) - upcast(stage("t", j, *size))
            errors.append(sum_squares(error, 1, 2, 3) / error[0].numel())
        return torch.stack(errors)


class Embed(nn.Module):
    """Network from a sample's similarities to the batch to its query or key, [B, B] -> [B, D]."""

    def __init__(self, batch_size: int, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(batch_size, 2 * width)
        self.linear2 = nn.Linear(2 * width, width)

    def forward(self, rows: Tensor) -> Tensor:
        # A smaller batch uses the first B columns only, as if padded with zeros.
        first = F.linear(rows, self.linear1.weight[:, : rows.shape[1]], self.linear1.bias)
        return unit_rows(self.linear2(first.relu()))


def project(a: Tensor, b: Tensor, kind: str) -> nn.Module:
    """Build a projection of student to teacher channels, [B, C_s, H, W] -> [B, C_t, H, W]."""
    c_s, c_t = a.shape[1], b.shape[1]
    if kind == "none":
        if c_s != c_t:
            raise Incompatible(
                f"without projection SemCKD needs equal channels: student {list(a.shape[1:])}, "
                f"teacher {list(b.shape[1:])}"
            )
        return nn.Identity()
    if kind == "linear":
        return nn.Conv2d(c_s, c_t, 1, bias=False)
    return nn.Sequential(
        nn.Conv2d(c_s, 2 * c_t, 1, bias=False),
        nn.BatchNorm2d(2 * c_t),
        nn.ReLU(inplace=True),
        nn.Conv2d(2 * c_t, 2 * c_t, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * c_t),
        nn.ReLU(inplace=True),
        nn.Conv2d(2 * c_t, c_t, 1, bias=False),
    )
