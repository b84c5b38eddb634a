"""What a training starts from: encoder weights from packages and files, networks of the user's own, what is refused and how."""

from __future__ import annotations

import dataclasses
import importlib.util
import pickle
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeseg.core.config import Config, ModelSection, load_config, parse_config
from edgeseg.core.encoders import PACKAGES, encoder_weights_sha256, find_encoder_weights
from edgeseg.core.errors import ConfigError, EdgesegError, InputMissingError, MissingExtraError
from edgeseg.core.factory import factory_sha256
from edgeseg.core.files import sha256_file
from edgeseg.core.manifest import Contract
from edgeseg.models import build, fold, start
from edgeseg.models.encoders import build_encoder, load_encoder_weights
from edgeseg.models.encoders.inception_v3 import InceptionV3
from edgeseg.pruning import prune
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint

HW = (64, 96)
needs_weights = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in PACKAGES.values()), reason="needs pip install 'edgeseg[pretrained]'"
)
needs_torchvision = pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")


def begin(section: ModelSection, num_classes: int = 3) -> nn.Module:
    return start(section, num_classes, seed=0, size_hw=HW, crop_hw=(0, 0))


def one_line(error: EdgesegError) -> str:
    assert "\n" not in str(error)
    return str(error)


def meta(section: ModelSection) -> CheckpointMeta:
    return CheckpointMeta(
        model=section, num_classes=3, classes=("a", "b", "c"), palette=((0, 0, 0),) * 3, contract=Contract(height=HW[0], width=HW[1]),
        config_sha256="0" * 64, dataset="none", dataset_sha256="0" * 64,
    )


# ---- weights


def pattern_NCHW() -> Tensor:
    """A smooth picture of 224x224."""
    y, x = torch.linspace(-2, 2, 224).view(1, 1, -1, 1), torch.linspace(-2, 2, 224).view(1, 1, 1, -1)
    return torch.cat([torch.sin(3 * y) * torch.cos(2 * x), torch.sin(x + y), torch.cos(4 * x) * torch.ones_like(y)], dim=1)


@needs_weights
@pytest.mark.parametrize(("index", "digest", "means"), [
    (0, "57934424", (4.8992, 6.3988, 6.2340, 4.2070, 1.6945)),
    (1, "77cc7160", (5.9203, 8.5524, 7.9276, 4.1318, 1.8723)),
    (2, "9656183e", (5.5888, 7.4791, 7.1471, 4.2113, 1.6058)),
])
def test_packaged_weights_give_the_maps_of_the_reference(index: int, digest: str, means: tuple[float, ...]) -> None:
    """The means of absolute values were taken from maps that equalled those of efficientnet-lite-pytorch 0.1.0 bit by bit."""
    section = ModelSection(name="effnet_lite", encoder=f"efficientnet_lite{index}", encoder_weights="imagenet")
    assert str(encoder_weights_sha256(section)).startswith(digest)
    net = build(section, 3)
    load_encoder_weights(net, section)
    with torch.inference_mode():
        maps = net.get_submodule("encoder").eval()(pattern_NCHW())
    assert [float(one.abs().mean()) for one in maps] == pytest.approx(means, rel=1e-3)


@needs_weights
def test_checkpoints_load_without_the_weights_they_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = ModelSection(name="effnet_lite", encoder_weights="imagenet")
    net = begin(section)
    save_checkpoint(tmp_path / "saved", net, meta(section))
    monkeypatch.setattr("edgeseg.core.encoders.PACKAGES", {"efficientnet_lite0": "package_that_nobody_has"})
    with pytest.raises(MissingExtraError, match=r"package-that-nobody-has.*pip install 'edgeseg\[pretrained\]'"):
        begin(section)
    loaded, loaded_meta = load_checkpoint(tmp_path / "saved")
    assert loaded_meta.model == section
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_with_torchvisions_names_loads_as_it_is(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(5)
    wanted = build_encoder("resnet18", 0.25).state_dict()
    given = {**wanted, "fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    del given["bn1.num_batches_tracked"]  # files of before PyTorch 0.4.1 have none
    path = tmp_path / f"resnet18{suffix}"
    save_file(given, path) if suffix == ".safetensors" else torch.save(given, path)
    section = ModelSection(name="fcn8s", encoder="resnet18", width=0.25, encoder_weights=str(path))
    got = begin(section).get_submodule("encoder").state_dict()
    assert all(torch.equal(got[key], value) for key, value in wanted.items() if not key.endswith("num_batches_tracked"))
    assert encoder_weights_sha256(section) == sha256_file(path)
    plain = dataclasses.replace(section, encoder_weights="")
    assert encoder_weights_sha256(plain) is None
    assert not torch.equal(begin(plain).get_submodule("encoder").state_dict()["conv1.weight"], wanted["conv1.weight"])


def test_fcn_on_vgg_starts_its_convolutions_from_the_fully_connected_layers(tmp_path: Path) -> None:
    torch.manual_seed(6)
    fc6, fc7 = nn.Linear(64 * 49, 512), nn.Linear(512, 512)
    state = {**build_encoder("vgg16", 0.125).state_dict(), **{f"classifier.0.{key}": value for key, value in fc6.state_dict().items()},
             **{f"classifier.3.{key}": value for key, value in fc7.state_dict().items()}, "classifier.6.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "vgg.pth")
    head = begin(ModelSection(name="fcn8s", width=0.125, encoder_weights=str(tmp_path / "vgg.pth"))).get_submodule("classifier")
    pool5 = torch.randn(1, 64, 7, 7)  # of a frame of 224x224: the middle of what the convolution gives is what the layer gave
    with torch.inference_mode():
        torch.testing.assert_close(head.get_submodule("fc6")(pool5)[0, :, 3, 3], fc6(pool5.flatten()))
        torch.testing.assert_close(head.get_submodule("fc7")(torch.ones(1, 512, 1, 1)).flatten(), fc7(torch.ones(512)))


def test_lraspp_has_the_names_of_torchvisions_backbone() -> None:
    with torch.device("meta"):
        ours = set(build(ModelSection(name="lraspp_mobilenet_v3_large"), 3).get_submodule("encoder").state_dict())
        plain = set(build_encoder("mobilenet_v3_large").state_dict())
    assert plain < ours
    assert {key.rpartition(".")[0] for key in ours - plain} == {"features.16.0", "features.16.1"}


@pytest.mark.parametrize(("other", "width", "said"), [
    ("resnet50", 0.25, "lacks layer1.1.conv2.weight"),
    ("resnet34", 0.25, r"has the unknown layer1\.2\.conv1\.weight and \d+ more"),
    ("mobilenet_v2", 0.25, "lacks conv1.weight"),
    ("resnet18", 0.5, r"has another shape of conv1\.weight \[32, 3, 7, 7\], not \[16, 3, 7, 7\] and \d+ more"),
])
def test_weights_of_another_architecture_are_named_by_their_first_key(tmp_path: Path, other: str, width: float, said: str) -> None:
    if other == "resnet50":  # the same blocks, one convolution fewer in one of them
        state = build_encoder("resnet18", 0.25).state_dict()
        del state["layer1.1.conv2.weight"]
    else:
        state = build_encoder(other, width).state_dict()
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(ConfigError, match=said) as error:
        begin(ModelSection(name="unet", encoder="resnet18", width=0.25, encoder_weights=str(path)))
    assert "other.pth does not fit resnet18 at width 0.25" in one_line(error.value)


class NotATensor:
    """What a pickle of a whole model holds."""


@pytest.mark.parametrize(("content", "said"), [
    (b"", "damaged"), (b"PK\x03\x04 half a file", "damaged"), (pickle.dumps(NotATensor()), "save net.state_dict"),
])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as error:
        begin(ModelSection(name="unet", encoder="resnet18", width=0.25, encoder_weights=str(path)))
    assert "weights.pth" in one_line(error.value)


def test_a_table_of_other_things_and_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    section = ModelSection(name="unet", encoder="resnet18", width=0.25, encoder_weights=str(tmp_path / "weights.pth"))
    torch.save({"epoch": 3, "model": {}}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"no table of tensors \(it holds epoch, model\)"):
        begin(section)
    state = build_encoder("resnet18", 0.25).state_dict()
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"not finite, first in conv1\.weight"):
        begin(section)


@pytest.mark.parametrize(("section", "kind", "said"), [
    (ModelSection(encoder_weights="imagenet"), ConfigError, "fast_scnn has no encoder to load them into"),
    (ModelSection(name="unet", encoder="resnet18", encoder_weights="imagenet"), ConfigError, "no package carries weights of resnet18"),
    (ModelSection(name="unet", encoder="resnet18", encoder_weights="imagnet"), ConfigError, "expected \"imagenet\" or a file"),
    (ModelSection(name="fcn8s", encoder_weights="nowhere.pth"), InputMissingError, "nowhere.pth does not exist"),
])
def test_weights_that_cannot_be_found_say_why(section: ModelSection, kind: type[EdgesegError], said: str) -> None:
    with pytest.raises(kind, match=said):
        find_encoder_weights(section)


# ---- which encoder


@pytest.mark.parametrize(("section", "said"), [
    (ModelSection(encoder="resnet18"), "fast_scnn takes none; leave it out, or choose among effnet_lite, fcn32s"),
    (ModelSection(name="unet", encoder="resnet81"), "did you mean 'resnet18'"),
    (ModelSection(name="effnet_lite", encoder="resnet18"), "takes efficientnet_lite0, efficientnet_lite1, efficientnet_lite2"),
    (ModelSection(name="unet", encoder="resnet18", depth=3), "resnet18 has the levels it has"),
])
def test_encoders_that_do_not_fit_are_refused(section: ModelSection, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(section, 3)


def test_inception_below_its_smallest_size_is_refused_where_the_config_is_read() -> None:
    model = {"name": "unet", "encoder": "inception_v3"}
    message = r"\[data\] size = \[64, 96\]: inception_v3 needs at least 75 pixels a side; set data.size = \[80, 96\]"
    with pytest.raises(ConfigError, match=message):
        parse_config({"data": {"size": [64, 96]}, "model": model})
    with pytest.raises(ConfigError, match=r"\[train\] crop = \[96, 74\]: inception_v3 needs at least 75"):
        parse_config({"data": {"size": [128, 128]}, "train": {"crop": [96, 74]}, "model": model})
    assert parse_config({"data": {"size": [75, 75]}, "model": model}).model.title == "unet on inception_v3"


def test_75_pixels_are_the_smallest_that_the_unpadded_network_takes() -> None:
    net = InceptionV3(0.125, padded=False).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 75, 75))[-1].shape[2:] == (1, 1)
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, 74, 74))


def test_what_is_kept_of_a_run_does_not_depend_on_where_the_weights_lie(tmp_path: Path) -> None:
    hashes = set()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "edgeseg.toml").write_text('[model]\nname = "fcn8s"\nencoder_weights = "weights/vgg.pth"\n')
        config = load_config(folder / "edgeseg.toml")
        assert config.model.encoder_weights == str(folder / "weights" / "vgg.pth")
        assert config.model.portable.encoder_weights == "vgg.pth"
        hashes.add(config.sha256)
    assert len(hashes) == 1
    assert hashes != {Config().sha256}


# ---- networks of the user's own

MODULE = '''
import torch
from torch import nn
from edgeseg.models.outputs import Outputs


class Net(nn.Module):
    def __init__(self, scores, stride=4):
        super().__init__()
        self.body = nn.Conv2d(3, scores, 3, stride, 1)
        self.tied = self.body.bias

    def forward(self, x):
        return self.body(x)


class WithAux(Net):
    def forward(self, x):
        return Outputs(self.body(x), (self.body(x),), (0.4,)) if self.training else self.body(x)


class InADict(Net):
    def forward(self, x):
        return {"out": self.body(x)}


class OneSize(Net):
    def forward(self, x):
        return self.body(x.view(len(x), 3, 32, 32))


def build(num_classes):
    return Net(num_classes)


def with_aux(num_classes):
    return WithAux(num_classes)


def too_many(num_classes):
    return Net(num_classes + 1)


def in_a_dict(num_classes):
    return InADict(num_classes)


def one_size(num_classes):
    return OneSize(num_classes)


def no_module(num_classes):
    return "resnet18"


def the_class(num_classes):
    return Net


def integers(num_classes):
    class Whole(Net):
        def forward(self, x):
            return self.body(x).long()
    return Whole(num_classes)


def broken(num_classes):
    raise KeyError("stem")


def a_number(num_classes):
    return num_classes


def leaves(num_classes):
    raise SystemExit(3)


def frozen(num_classes):
    return Net(num_classes).requires_grad_(False)


def not_finite(num_classes):
    net = Net(num_classes)
    for value in net.parameters():
        value.data.fill_(float("nan"))
    return net
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder edgeseg is started in, with a package of the user's."""
    package = tmp_path / "their_nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(MODULE)
    (package / "needs_more.py").write_text("import package_that_nobody_has\n")
    (package / "half.py").write_text("def build(num_classes:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "their_nets"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize("function", ["build", "with_aux"])
def test_a_network_of_the_users_trains_folds_and_comes_back_from_a_checkpoint(folder: Path, function: str) -> None:
    section = ModelSection(factory=f"their_nets.net:{function}")
    net = begin(section)
    save_checkpoint(folder / "saved", net, meta(section))
    loaded, loaded_meta = load_checkpoint(folder / "saved")
    assert loaded_meta.model.factory == loaded_meta.model.title == section.factory
    x = torch.randn(1, 3, *HW)
    with torch.inference_mode():
        assert torch.equal(loaded(x), net.eval()(x))
        assert torch.equal(fold(loaded)(x), net(x))
    again = begin(section).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(("factory", "said"), [
    ("their_nets.net", "expected \"package.module:function\""),
    ("their_nets.net:", "expected \"package.module:function\""),
    ("their_nets/net.py:build", "expected \"package.module:function\""),
    ("their_net.net:build", "there is no module 'their_net', installed or in"),
    ("their_nets.nett:build", "there is no module 'their_nets.nett'"),
    ("their_nets.needs_more:build", "needs 'package_that_nobody_has', which is not installed"),
    ("their_nets.half:build", "failed with SyntaxError"),
    ("their_nets.net:biuld", "no function 'biuld'; did you mean 'build'"),
    ("their_nets.net:broken", r"broken\(3\) failed with KeyError: 'stem'"),
    ("their_nets.net:no_module", "gave a str; it has to give a torch.nn.Module"),
    ("their_nets.net:a_number", "gave an int; it has to give a torch.nn.Module"),
    ("their_nets.net:the_class", "gave the class Net; it has to give a torch.nn.Module"),
    ("their_nets.net:too_many", r"gave \[2, 4, 16, 24\]; expected class scores as a float tensor \[2, 3, h, w\], h and w at most 64, 96"),
    ("their_nets.net:in_a_dict", r"gave a dict \(out\); expected class scores"),
    ("their_nets.net:leaves", r"leaves\(3\) failed with SystemExit: 3"),
    ("their_nets.net:frozen", "its scores hang on no parameter that trains"),
    ("their_nets.net:not_finite", "gave scores that are not finite"),
    ("their_nets.net:integers", "gave a tensor of int64; expected class scores as a float tensor"),
    ("their_nets.net:one_size", r"training on frames \[2, 3, 64, 96\] failed with RuntimeError"),
])
def test_a_factory_that_is_wrong_is_refused_in_one_line(folder: Path, factory: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        begin(ModelSection(factory=factory))
    assert one_line(error.value).startswith(f"[model] factory = '{factory}'")


@pytest.mark.parametrize("also", [{"name": "unet"}, {"width": 0.5}, {"depth": 3}, {"encoder": "resnet18"}, {"encoder_weights": "imagenet"}])
def test_keys_that_say_nothing_to_a_factory_are_refused(folder: Path, also: dict[str, object]) -> None:
    (key,) = also
    with pytest.raises(ConfigError, match=f"and {key} = .*leave {key} out"):
        begin(dataclasses.replace(ModelSection(factory="their_nets.net:build"), **also))  # type: ignore[arg-type]


def test_the_code_of_a_factory_is_hashed_without_running_it(folder: Path) -> None:
    section = ModelSection(factory="their_nets.net:build")
    first = factory_sha256(section)
    assert first is not None and "their_nets" not in sys.modules
    (folder / "their_nets" / "parts.py").write_text("import what_does_not_exist\n")
    assert factory_sha256(section) != first
    (folder / "their_nets" / "parts.py").unlink()
    assert factory_sha256(section) == first
    (folder / "one_file.py").write_text("a = 1\n")
    alone = factory_sha256(ModelSection(factory="one_file:build"))
    (folder / "one_file.py").write_text("a = 2\n")
    assert alone is not None and factory_sha256(ModelSection(factory="one_file:build")) not in (alone, None)
    assert factory_sha256(ModelSection()) is None


class EditableFinder:
    """Finds a package outside the path, as setuptools' editable installs do."""

    def __init__(self, package: Path) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.package.name:
            return None
        return spec_from_file_location(name, self.package / "__init__.py", submodule_search_locations=[str(self.package)])


def test_the_code_of_an_editable_install_is_hashed_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "their_nets"
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, EditableFinder(package)])
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    section = ModelSection(factory="their_nets.net:build")
    first = factory_sha256(section)
    assert first is not None and "their_nets" not in sys.modules
    (package / "net.py").write_text(MODULE + "# edited\n")
    assert factory_sha256(section) not in (first, None)
    begin(section)
    edited = factory_sha256(section)  # and so once it is imported
    (package / "net.py").write_text(MODULE)
    assert factory_sha256(section) == first != edited


@pytest.mark.parametrize(("factory", "said"), [
    ("nowhere.net:build", "there is no module 'nowhere', installed or in .*; start edgeseg in the folder that holds it"),
    ("their_nets/net.py:build", "expected \"package.module:function\""),
])
def test_code_that_is_not_found_is_an_error_not_a_hash(folder: Path, factory: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        factory_sha256(ModelSection(factory=factory))
    assert one_line(error.value).startswith(f"[model] factory = '{factory}'")


def test_a_factory_in_python_itself_has_no_code_to_follow() -> None:
    assert factory_sha256(ModelSection(factory="sys:exit")) == factory_sha256(ModelSection(factory="builtins:len"))


def test_a_network_that_does_not_name_its_class_layers_is_not_pruned(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"class_layers = \(\"NAME OF THE LAYER\",\), or set macs_share = 1"):
        prune(begin(ModelSection(factory="their_nets.net:build")), macs_share=0.5, round_to=8, example_hw=HW)


# ---- torchvision, where it is installed


@needs_torchvision
@pytest.mark.parametrize(("name", "theirs", "last"), [
    ("resnet18", "resnet18", "layer4"), ("resnet34", "resnet34", "layer4"), ("resnet50", "resnet50", "layer4"),
    ("vgg16", "vgg16_bn", "features"), ("inception_v3", "inception_v3", "Mixed_7c"), ("mobilenet_v2", "mobilenet_v2", "features.17"),
    ("mobilenet_v3_small", "mobilenet_v3_small", "features.11"), ("mobilenet_v3_large", "mobilenet_v3_large", "features.15"),
])
def test_torchvision_and_ours_agree(tmp_path: Path, name: str, theirs: str, last: str) -> None:
    import torchvision

    torch.manual_seed(0)
    options = {"init_weights": False} if name == "inception_v3" else {}  # else it warns that it takes minutes
    reference = getattr(torchvision.models, theirs)(weights=None, **options).eval()
    torch.save(reference.state_dict(), tmp_path / "theirs.pth")
    section = ModelSection(name="unet", encoder=name, encoder_weights=str(tmp_path / "theirs.pth"))
    net = build(section, 3)
    load_encoder_weights(net, section)
    encoder = net.get_submodule("encoder")
    side = 128
    if name == "inception_v3":
        side, weights = 299, encoder.state_dict()
        encoder = InceptionV3(padded=False)
        encoder.load_state_dict(weights)
    expected: list[Tensor] = []
    reference.get_submodule(last).register_forward_hook(lambda _module, _inputs, output: expected.append(output))
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        reference(x)
        torch.testing.assert_close(encoder.eval()(x)[-1], expected[0], rtol=1e-4, atol=1e-4)
