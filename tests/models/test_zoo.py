"""Tests of the zoo: published architectures, and the handles of networks."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import golden_models
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.method import Features
from kdbench.models import size, zoo
from kdbench.models.fold_batch_norm import folded
from kdbench.models.network import Network
from kdbench.models.published_checkpoints import CheckpointError, arch_of, fit, read_checkpoint
from kdbench.models.shufflenet import shuffle

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("models.json").read_text())
ONE_EACH = ("resnet8x4", "ResNet18", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2")
OTHER_SHAPES = ("resnet8", "ResNet50", "wrn_16_1", "vgg16")
DEMO = ("r8w16", "r14w3", "v5w16", "v8w8")


def on_meta(name: str, **settings: int) -> Network:
    with torch.device("meta"):
        return zoo.create(name, **settings)


def each_tensor(features: Features) -> list[Tensor]:
    return [features.stem, *features.stages, *features.preacts, features.embedding, features.logits]


def sizes(maps: tuple[Tensor, ...]) -> list[list[int]]:
    return [list(m.shape[1:]) for m in maps]


def filled(name: str, seed: int = 2, **settings: int) -> Network:
    """Return a float64 network whose weights and running statistics are nowhere trivial."""
    network = zoo.create(name, **settings).double()
    golden_models.fill(network, seed)
    return network


# The architectures


def test_table_has_every_published_name() -> None:
    assert sorted(zoo.names()) == sorted(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_architecture_is_the_published_one(name: str) -> None:
    facts, network = FACTS[name], on_meta(name)
    keys = [[key, list(value.shape)] for key, value in network.state_dict().items()]
    text = json.dumps(keys, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == facts["state_dict_sha256"]
    assert size.params(network) == facts["params"]
    assert size.macs(network, 3, 32, 100) == facts["macs"]
    features = network(torch.empty(2, 3, 32, 32, device="meta"))
    assert list(features.stem.shape) == [2, *facts["stem"]]
    assert sizes(features.stages) == facts["stages"]
    assert sizes(features.preacts) == facts["preacts"]
    assert list(features.embedding.shape) == [2, *facts["embedding"]]
    assert list(features.logits.shape) == [2, 100]


@pytest.mark.parametrize("name", (*ONE_EACH, *OTHER_SHAPES, *DEMO))
def test_folds_are_convolutions_that_feed_only_a_batch_norm(name: str) -> None:
    """Connections of modules are observed in a forward pass, not read from declarations."""
    network = on_meta(name)
    features, fed, kept = watch(network)
    feature_ids = {id(t) for t in each_tensor(features)}
    pairs = {(conv, bn) for bn, (x, conv) in fed.items() if conv and id(x) not in feature_ids}
    assert set(network.folds()) == pairs
    assert len(network.folds()) == len(pairs)
    assert kept


def watch(network: Network) -> tuple[Features, dict[str, tuple[Tensor, str]], list[Tensor]]:
    """Return features, each batch norm's input and convolution, and tensors that keep ids valid."""
    made: dict[int, str] = {}
    fed: dict[str, tuple[Tensor, str]] = {}
    kept: list[Tensor] = []

    def hook(name: str, module: nn.Module) -> None:
        def after(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made[id(output)] = name
                kept.append(output)
            else:
                fed[name] = args[0], made.get(id(args[0]), "")

        module.register_forward_hook(after)

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            hook(name, module)
    features = network(torch.empty(2, 3, 32, 32, device="meta"))
    return features, fed, kept


@pytest.mark.parametrize("name", (*ONE_EACH, "ResNet50", *DEMO))
def test_every_batch_norm_runs_once_in_a_step(name: str) -> None:
    network = zoo.create(name, num_classes=5).train()
    network(torch.randn(2, 3, 8, 8))
    counts = [b for key, b in network.named_buffers() if key.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 1 for count in counts)


@pytest.mark.parametrize("name", ONE_EACH)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = zoo.create(name, num_classes=5)
    network(torch.randn(2, 3, 16, 16)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


# Maps


@pytest.mark.parametrize(
    "name", ("resnet8x4", "ResNet18", "ResNet50", "vgg8", "ShuffleV1", "r8w16", "v5w16")
)
def test_stages_are_relu_of_preacts(name: str) -> None:
    features = filled(name).eval()(torch.randn(2, 3, 16, 16, dtype=torch.double))
    for stage, before in zip(features.stages, features.preacts, strict=True):
        assert torch.equal(stage, F.relu(before))
        assert (before < 0).any()


def test_preacts_of_mobilenet_are_its_stages() -> None:
    features = filled("MobileNetV2").eval()(torch.randn(2, 3, 16, 16, dtype=torch.double))
    for stage, before in zip(features.stages, features.preacts, strict=True):
        assert stage is before
        assert (stage < 0).any()


def test_preacts_of_shuffle_v2_are_not_shuffled() -> None:
    features = filled("ShuffleV2").eval()(torch.randn(2, 3, 16, 16, dtype=torch.double))
    for stage, before in zip(features.stages, features.preacts, strict=True):
        left, right = before.chunk(2, 1)
        assert torch.equal(stage, shuffle(F.relu(before), 2))
        assert left.min() >= 0 > right.min()


def test_shuffle_interleaves_the_groups() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_preacts_of_wrn_are_next_batch_norm_of_raw_sum() -> None:
    network = filled("wrn_16_2").eval()
    features = network(torch.randn(2, 3, 16, 16, dtype=torch.double))
    following = ("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1")
    for stage, before, bn in zip(features.stages, features.preacts, following, strict=True):
        assert (stage < 0).any()
        assert torch.equal(before, network.get_submodule(bn)(stage))


@pytest.mark.parametrize("name", ONE_EACH)
def test_embedding_is_the_mean_of_the_last_map(name: str) -> None:
    features = filled(name).eval()(torch.randn(2, 3, 16, 16, dtype=torch.double))
    assert features.last is not None
    assert torch.equal(features.last.mean((2, 3)), features.embedding)


@pytest.mark.parametrize("name", (*ONE_EACH, "ResNet50", "v5w16"))
def test_norms_make_the_preacts(name: str) -> None:
    """A pre-activation is the output of its batch norm, or a sum whose last summand that is."""
    network = filled(name).eval()
    norms = network.norms()
    outputs: dict[nn.Module, Tensor] = {}
    for norm in norms:
        if norm is not None:
            norm.register_forward_hook(lambda m, _, y: outputs.update({m: y.clone()}))
    features = network(torch.randn(2, 3, 16, 16, dtype=torch.double))
    assert len(norms) == len(features.preacts)
    if name == "ShuffleV2":
        assert norms == (None, None, None)
        return
    for norm, before in zip(norms, features.preacts, strict=True):
        assert norm is not None
        made = outputs[norm]
        assert made.shape == before.shape
        if name.startswith(("wrn", "v")):
            assert torch.equal(made, before)
    assert len(outputs) == len(norms)


def test_embedding_is_input_of_head() -> None:
    for name in ONE_EACH:
        network = filled(name).eval()
        features = network(torch.randn(2, 3, 16, 16, dtype=torch.double))
        assert torch.equal(network.head(features.embedding), features.logits)
        assert network.head is network.get_submodule(network.head_name)


# Handles


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("resnet8", {"fc"}),
        ("ResNet50", {"linear"}),
        ("wrn_16_2", {"fc", "bn1"}),
        ("vgg8", {"classifier"}),
        ("MobileNetV2", {"classifier", "conv2"}),
        ("ShuffleV1", {"linear"}),
        ("ShuffleV2", {"linear", "conv2", "bn2"}),
        ("v5w16", {"classifier"}),
    ],
)
def test_trunk_excludes_modules_after_the_stages(name: str, left_out: set[str]) -> None:
    network = on_meta(name)
    trunk = {id(p) for module in network.trunk() for p in module.parameters()}
    outside = {key.split(".")[0] for key, p in network.named_parameters() if id(p) not in trunk}
    assert outside == left_out


@pytest.mark.parametrize("name", (*ONE_EACH, "ResNet50", "wrn_16_1", "r8w16", "v8w8"))
def test_folded_gives_the_same_features(name: str) -> None:
    network = filled(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fast = folded(network)
    assert network.training
    assert not any(module.training for module in fast.modules())
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert fast.folds() == []
    images = torch.randn(2, 3, 16, 16, dtype=torch.double)
    assert difference(fast, network.eval(), images) < 1e-12
    single = network.float()
    assert difference(folded(single), single, images.float()) < 1e-5


def difference(a: Network, b: Network, images: Tensor) -> float:
    """Return the largest difference of features, each relative to its largest entry."""
    with torch.no_grad():
        pairs = zip(each_tensor(a(images)), each_tensor(b(images)), strict=True)
        return max(float((x - y).abs().max() / y.abs().max()) for x, y in pairs)


def test_only_batch_norms_without_a_convolution_remain() -> None:
    left = [k for k, m in folded(filled("wrn_16_2")).named_modules() if type(m) is nn.BatchNorm2d]
    assert left == [f"block{s}.layer.{i}.bn1" for s in (1, 2, 3) for i in (0, 1)] + ["bn1"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded(filled("vgg8")).modules())


# Initialisation


@pytest.mark.parametrize("name", ("resnet8x4", "ResNet18", "wrn_16_2", "vgg8", "MobileNetV2"))
def test_convolutions_are_initialised_by_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for module in zoo.create(name).modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            area = module.kernel_size[0] * module.kernel_size[1]
            scale = (2 / (area * module.out_channels)) ** 0.5
            assert float(weight.std()) == pytest.approx(scale, rel=4 / weight.numel() ** 0.5)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


@pytest.mark.parametrize("name", ("ShuffleV1", "ShuffleV2"))
def test_shufflenets_keep_the_uniform_default(name: str) -> None:
    torch.manual_seed(0)
    for module in zoo.create(name).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 500:
            bound = module.weight[0].numel() ** -0.5
            assert 0.95 * bound < float(module.weight.detach().abs().max()) <= 1.000001 * bound


@pytest.mark.parametrize("name", ONE_EACH)
def test_classifiers_are_initialised_as_in_reference(name: str) -> None:
    torch.manual_seed(0)
    head = zoo.create(name).head
    weight, bias, bound = head.weight.detach(), head.bias.detach(), head.in_features**-0.5
    if zoo.family(name) in {"vgg", "mobilenet"}:
        assert float(weight.std()) == pytest.approx(0.01, rel=0.05)
    else:
        assert 0.95 * bound < float(weight.abs().max()) <= 1.000001 * bound
    assert bool(bias.any()) == (zoo.family(name) not in {"vgg", "mobilenet", "wrn"})
    assert float(bias.abs().max()) <= 1.000001 * bound


def test_weights_depend_on_global_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in zoo.create("r8w3").parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# Names


def test_importing_the_zoo_does_not_import_torch() -> None:
    code = (
        "import sys, kdbench.models.zoo as m; "
        "assert m.known('r8w16') and m.family('wrn_16_2') == 'wrn' and m.suggest('resnet9'); "
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet8x4_double", "resnet"),
        ("r8w16", "resnet"),
        ("resnet26x2", "resnet"),
        ("ResNet34", "resnet_imagenet_style"),
        ("wrn_28_10", "wrn"),
        ("vgg19", "vgg"),
        ("v11w4", "vgg"),
        ("MobileNetV2_1_0", "mobilenet"),
        ("ShuffleV2_1_5", "shufflenet"),
    ],
)
def test_family(name: str, family: str) -> None:
    assert zoo.known(name)
    assert zoo.family(name) == family


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet15", "depth 15 is not 6n + 2 (did you mean resnet14"),
        ("r9w16", "did you mean r8w16"),
        ("wrn_4_1", "depth 4 is not 6n + 4 (did you mean wrn_10_1"),
        ("v6w8", "did you mean v5w8"),
        ("vgg12", "did you mean vgg1"),
        ("mobilenetv2", "did you mean MobileNetV2"),
        ("R8W16", "did you mean r8w16"),
        ("resnet50", "did you mean ResNet50"),
        ("r8w0", "r8w16"),
        ("", "one of resnet8, "),
        ("???", "one of resnet8, "),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, hint: str) -> None:
    assert not zoo.known(name)
    with pytest.raises(ValueError, match="unknown network") as error:
        zoo.create(name)
    assert hint in str(error.value)
    assert all(zoo.known(near) for near in zoo.suggest(name))


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="resnet8: num_classes must be at least 1, not 0"):
        zoo.create("resnet8", num_classes=0)
    with pytest.raises(ValueError, match="resnet8: in_channels must be at least 1, not 0"):
        zoo.create("resnet8", in_channels=0)


# Demo networks and other image sizes


def test_demo_families_have_equal_map_sizes() -> None:
    images = torch.randn(2, 1, 8, 8)
    for name in ("r8w16", "r14w16", "v5w16", "v8w16"):
        features = zoo.create(name, num_classes=10, in_channels=1)(images)
        assert sizes(features.stages) == [[16, 8, 8], [32, 4, 4], [64, 2, 2]]
        assert sizes(features.preacts) == sizes(features.stages)
        assert torch.equal(features.stem, features.stages[0]) == name.startswith("v")
        assert features.logits.shape == (2, 10)


def test_demo_resnet_has_published_architecture() -> None:
    assert size.params(on_meta("r8w16", num_classes=10, in_channels=1)) == 77_754
    small, published = on_meta("r20w16").state_dict(), on_meta("resnet20").state_dict()
    assert [(k, v.shape) for k, v in small.items()] == [(k, v.shape) for k, v in published.items()]
    assert "layer1.0.downsample.0.weight" not in on_meta("r8w3").state_dict()


@pytest.mark.parametrize("name", ONE_EACH)
def test_small_one_channel_images_are_accepted(name: str) -> None:
    network = zoo.create(name, num_classes=3, in_channels=1).eval()
    assert all(t.isfinite().all() for t in each_tensor(network(torch.randn(2, 1, 8, 8))))


def test_rectangular_images_are_accepted() -> None:
    assert on_meta("wrn_16_2")(torch.empty(3, 3, 64, 48, device="meta")).logits.shape == (3, 100)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("r8w16", (2, 1, 8, 8), r"ResNet takes images \[B, 3, H, W\], not \[2, 1, 8, 8\]"),
        ("r8w16", (3, 8, 8), r"not \[3, 8, 8\]"),
        ("vgg8", (2, 3, 7, 8), "VGG needs images of at least 8x8 pixels, not 7x8"),
        ("v5w16", (2, 3, 3, 3), "at least 4x4 pixels"),
    ],
)
def test_wrong_images_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_meta(name)(torch.empty(shape, device="meta"))


# Cost


def test_macs_by_name_and_by_network_agree() -> None:
    network = zoo.create("r8w3", num_classes=4, in_channels=1).double()
    assert size.macs("r8w3", 1, 8, 4) == size.macs(network, 1, 8, 4)
    assert size.macs(folded(network), 1, 8, 4) == size.macs(network, 1, 8, 4)
    assert network.training
    assert all(b == 0 for k, b in network.named_buffers() if k.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (1, 4, 8, 8), 6 * 16 * 2 * 9),
        (nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1), (1, 4, 8, 8), 4 * 64 * 6 * 16),
        (nn.Linear(5, 7), (1, 5), 35),
        (nn.BatchNorm2d(4), (1, 4, 8, 8), 0),
    ],
)
def test_macs_of_layers(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert size.module_macs(layer, torch.zeros(shape)) == expected


def test_layer_called_twice_costs_twice() -> None:
    layer = nn.Linear(5, 5)
    assert size.module_macs(nn.Sequential(layer, layer), torch.zeros(1, 5)) == 50


# Golden files


def test_fill_is_the_documented_hash() -> None:
    assert golden_models.uniform(0, 2, 1).tolist() == [0.15869814343750477, 0.04012043378315866]
    assert golden_models.uniform(5, 8, 1)[7] == 0.36018796637654305
    assert golden_models.uniform(1000003, 12288, 1)[12287] == 0.7383203182835132


def test_changed_epsilon_fails_golden_case(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parent.parent / "golden" / "models" / "wrn_16_2.npz"
    assert golden_models.check_case(path) == 14
    create = zoo.create

    def other(name: str, **settings: int) -> Network:
        network = create(name, **settings)
        network.get_submodule("block3.layer.1.bn2").eps = 2e-5  # type: ignore[assignment]
        return network

    monkeypatch.setattr(zoo, "create", other)
    with pytest.raises(AssertionError, match="wrn_16_2: logits: differs by"):
        golden_models.check_case(path)


# Published checkpoints


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return filled("resnet8").float().state_dict()


def loaded(path: Path, name: str = "resnet8") -> Network:
    network = zoo.create(name)
    fit(network, read_checkpoint(path), name=name)
    return network


def test_published_files_are_read(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    parallel = {f"module.{k}": v for k, v in weights.items()}
    published = {"epoch": 240, "model": old, "accuracy": torch.tensor(7.0), "optimizer": {}}
    contents = [(published, False), (published, True), (weights, True), ({"model": parallel}, True)]
    path = tmp_path / "ckpt_epoch_240.pth"
    for content, zipped in contents:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        ours = loaded(path).state_dict()
        assert list(ours) == list(weights)
        assert all(torch.equal(ours[key], weights[key]) for key in weights)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("wrn_40_2_vanilla/ckpt_epoch_240.pth", "wrn_40_2"),
        ("ResNet50_vanilla/ckpt_epoch_240.pth", "ResNet50"),
        ("x/resnet32x4_vanilla/ckpt_epoch_240.pth", "resnet32x4"),
        ("MobileNetV2_1_0_cifar/last.pth", "MobileNetV2_1_0"),
        ("teachers/vgg13_best.pth", "vgg13"),
        ("teachers/best.pth", None),
        ("best.pth", None),
    ],
)
def test_network_is_named_by_folder(path: str, name: str | None) -> None:
    assert arch_of(path) == name


@pytest.mark.parametrize(
    ("theirs", "classes", "ours", "message"),
    [
        ("resnet14", 100, "resnet8", "layer1.1.conv1.weight [16, 16, 3, 3] is unexpected; these"),
        ("resnet8", 100, "resnet14", "the checkpoint has no layer1.1.conv1.weight [16, 16, 3, 3]"),
        ("resnet38x2", 100, "wrn_40_2", "these are weights of resnet38x2 with 100 classes"),
        ("resnet8", 10, "resnet8", "fc.weight is [10, 64] in the checkpoint, [100, 64] in the net"),
    ],
)
def test_weights_of_another_network_are_refused(
    theirs: str, classes: int, ours: str, message: str
) -> None:
    state = on_meta(theirs, num_classes=classes).state_dict()
    with pytest.raises(CheckpointError) as error:
        fit(on_meta(ours), state, name=ours)
    text = str(error.value)
    assert text.startswith(f"{ours}: ")
    assert message in text
    assert f"these are weights of {theirs} with {classes} classes" in text
    assert "\n" not in text


def test_torchvision_resnets_are_recognised() -> None:
    from torchvision.models import resnet18

    with torch.device("meta"):
        state = resnet18().state_dict()
    with pytest.raises(CheckpointError, match="ImageNet ResNet as in torchvision"):
        fit(on_meta("ResNet18"), state, name="ResNet18")


def test_refused_checkpoint_changes_no_weight(weights: dict[str, Tensor]) -> None:
    network = zoo.create("resnet8")
    before = network.head.weight.clone()
    with pytest.raises(CheckpointError, match="'s extra"):
        fit(network, {**weights, "extra": torch.zeros(1)}, name="resnet8")
    assert torch.equal(network.head.weight, before)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def refused(path: Path) -> str:
    """Return the reason that a file is refused: one line that starts with its name."""
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert "weights_only" not in text  # torch's advice to run the file's code
    return text


@pytest.mark.parametrize("zipped", (True, False))
@pytest.mark.parametrize("kept", (0.0, 0.001, 0.5, 0.999))
def test_cut_files_are_refused(
    tmp_path: Path, weights: dict[str, Tensor], zipped: bool, kept: float
) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"model": weights}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "damaged" in refused(path)


def test_flipped_bit_is_noticed(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "flipped.pth"
    torch.save({"model": weights}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.pth"
    assert "no such file" in refused(path)
    assert "damaged" in refused(tmp_path)
    path.write_text("<html>\n404</html>")
    assert "damaged or not a checkpoint" in refused(path)
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps(Code(), protocol=protocol))
        refused(path)
    for content, message in (
        (Code(), "holds Python objects"),
        ([1, 2], "expected a dict of weights, not list"),
        ({"model": {}}, "has no named tensors, but model (dict)"),
        ({}, "has no named tensors, but is an empty dict"),
        ({"epoch": 3}, "has no named tensors, but epoch (int)"),
        (filled("resnet8"), "torch.save(model.state_dict(), 'weights.pth')"),
    ):
        torch.save(content, path)
        assert message in refused(path)
    assert "must not run" not in capsys.readouterr().out
