"""A repository of the form of RepDistiller, written by the tests: KD, CC and small networks."""

from pathlib import Path

MODELS = '''
from torch import nn

from kdbench.models import zoo


class Net(nn.Module):
    """A network with the authors' signature and other names of its tensors."""

    def __init__(self, name, num_classes):
        super().__init__()
        self.inner = zoo.create(name, num_classes=num_classes)

    def forward(self, x, is_feat=False, preact=False):
        f = self.inner(x)
        return ([f.stem, *f.stages, f.embedding], f.logits) if is_feat else f.logits


model_dict = {
    name: (lambda num_classes, name=name: Net(name, num_classes)) for name in ("r8w16", "r8w3")
}
'''

MAIN = """
import argparse

import tensorboard_logger
import torch
import torch.nn.functional as F
from dataset.cifar100 import get_cifar100_dataloaders
from models import model_dict
from torch import nn


class LinearEmbed(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 128)

    def forward(self, x):
        return self.linear(x)


def main():
    parser = argparse.ArgumentParser()
    for name in ("path_t", "model_s", "distill", "lr_decay_epochs"):
        parser.add_argument(f"--{name}")
    for name in ("epochs", "init_epochs", "batch_size", "num_workers"):
        parser.add_argument(f"--{name}", type=int)
    for short, name in (("-r", "--gamma"), ("-a", "--alpha"), ("-b", "--beta")):
        parser.add_argument(short, name, type=float, default=1.0)
    opt = parser.parse_args()
    terms = {"kd": 0, "correlation": 1}[opt.distill]
    logger = tensorboard_logger.Logger(logdir="save", flush_secs=2)
    train_loader, test_loader, _ = get_cifar100_dataloaders(opt.batch_size, is_instance=True)
    model_t = model_dict[opt.path_t.split("/")[-2].split("_")[0]](num_classes=100)
    model_t.load_state_dict(torch.load(opt.path_t)["model"])
    model_t.cuda().eval()
    model_s = model_dict[opt.model_s](num_classes=100)
    nets, images = (model_s.eval(), model_t), torch.randn(2, 3, 32, 32)
    widths = [net(images, is_feat=True)[0][-1].shape[1] for net in nets]
    embeds = nn.ModuleList(LinearEmbed(width) for width in widths[: 2 * terms])
    trained = nn.ModuleList([model_s, embeds])
    sgd = torch.optim.SGD(trained.parameters(), 0.05, momentum=0.9, weight_decay=DECAY)
    for epoch in range(1, opt.epochs + 1):
        model_s.train()
        for group in sgd.param_groups:
            group["lr"] = 0.05 * 0.1 ** (epoch > int(opt.lr_decay_epochs))
        for images, labels, _ in train_loader:
            images = images.float().cuda()
            feat_s, logit_s = model_s(images, is_feat=True)
            with torch.no_grad():
                feat_t, logit_t = model_t(images, is_feat=True)
            soft = (logit_t / 4).softmax(1)
            loss = opt.gamma * F.cross_entropy(logit_s, labels)
            loss = loss + opt.alpha * 16 * F.kl_div(
                (logit_s / 4).log_softmax(1), soft, reduction="batchmean"
            )
            if terms:
                delta = (embeds[0](feat_s[-1]) - embeds[1](feat_t[-1])).abs()
                loss = loss + opt.beta * (delta[:-1] * delta[1:]).sum(1).mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        logger.log_value("train_loss", loss.item(), epoch)
        model_s.eval()
        for images, labels in test_loader:
            model_s(images.float())
"""


def write_repository(folder: Path, *, decay: float = 5e-4) -> None:
    """Write the repository; the authors' weight decay is 5e-4."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text(MODELS)
    (folder / "train_student.py").write_text(MAIN.replace("DECAY", repr(decay)))
