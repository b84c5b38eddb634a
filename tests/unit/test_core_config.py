"""edgeseg.toml is validated once, and each mistake is answered with what to type."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomllib

from edgeseg.core.config import Config, load_config, parse_config, render_toml
from edgeseg.core.errors import ConfigError, InputMissingError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"\[train\] unknown key 'epoch'; did you mean 'epochs'\?"),
        ("trian = 1", "did you mean 'train'"),
        ("[train]\nepochs = 'many'", r"\[train\] epochs = 'many': expected a whole number"),
        ("[train]\nepochs = 0", "expected at least 1"),
        ("[train]\nepochs = true", "expected a whole number"),
        ("[train]\nlr = nan", "expected"),
        ("[data]\nsize = [360]", "expected 2 values"),
        ("[data]\nsize = 360", "expected a list"),
        ("[data]\nresize = 'crop'", "one of stretch, letterbox, tile"),
        ("[export]\nformats = ['onx']", "did you mean 'onnx'"),
        ("[train]\ncrop = [0, 320]", "give both sides"),
        ("[train]\nloss = {ce = 0}", "nothing to learn from"),
        ("[train]\nloss = {}", "nothing to learn from"),
        ("[train]\nloss = 'dice'", "expected a table of weights"),
        ("[train]\nloss = {dize = 1}", "no 'dize'.* did you mean 'dice'"),
        ("[train]\nloss = {ce = -1}", r"loss\.ce = -1.0: expected at least 0"),
        ("[train]\nloss = {ce = true}", r"loss\.ce = True: expected a number"),
        ("[train]\nce = 1.0", r"unknown key 'ce'; .* loss = \{ce = 1.0, dice = 0.5\}"),
        ("[model]\nname = 'unet'\nencoder = 'resnet18'\ndepth = 3", r"depth = 3: resnet18 has the levels it has; leave depth out, or the"),
        ("[model]\ndepth = 3", r"depth = 3: fast_scnn has the levels it has; leave depth out$"),
        ("train = 5", r"write \[train\]"),
        ("[train", "not valid TOML"),
    ],
)
def test_a_mistake_is_answered_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "edgeseg.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_missing_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="edgeseg init --data DIR"):
        load_config(tmp_path / "edgeseg.toml")


def test_overrides_are_toml_or_bare_words(tmp_path: Path) -> None:
    path = tmp_path / "edgeseg.toml"
    path.write_text("[train]\nepochs = 5\n")
    config = load_config(path, ("train.epochs=7", "data.size=[64, 96]", "data.resize=tile", "name=field-1"))
    assert (config.train.epochs, config.data.size, config.data.resize, config.name) == (7, (64, 96), "tile", "field-1")
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        load_config(path, ("train.epochs",))
    with pytest.raises(ConfigError, match=r"--set train.loss=\{ce=1,iou=.1\}: not valid TOML \(.*column 22\)\); numbers are written 0.1"):
        load_config(path, ("train.loss={ce=1,iou=.1}",))
    with pytest.raises(ConfigError, match=r'--set data.classes=\[a, b\]: not valid TOML .*strings "a"'):
        load_config(path, ("data.classes=[a, b]",))
    with pytest.raises(ConfigError, match="is a value, not a section"):
        load_config(path, ("train.epochs.x=1",))


def test_data_dir_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "edgeseg.toml").write_text("[data]\ndir = 'd'\n")
    assert load_config(tmp_path / "edgeseg.toml").data.dir == str(tmp_path.resolve() / "d")


def test_what_is_rendered_is_read_back() -> None:
    config = parse_config({"name": 'a"b\\c', "data": {"size": [64, 96]}, "goals": {"miou_drop": 0.01}, "train": {"loss": {"lovasz": 1}}})
    for defaults in (True, False):
        assert parse_config(tomllib.loads(render_toml(config, defaults=defaults))) == config
    assert render_toml(Config(), defaults=False).strip() == ""
    assert "calibration_frames = 128  # training frames" in render_toml(Config(), defaults=True)
    assert "loss = {ce = 1.0, dice = 0.5}  # weight of each loss" in render_toml(Config(), defaults=True)


def test_a_table_of_weights_replaces_the_default_as_a_whole() -> None:
    assert parse_config({"train": {"loss": {"focal": 1, "iou": 0.5}}}).train.loss == {"focal": 1.0, "iou": 0.5}
    assert parse_config({}).train.loss == {"ce": 1.0, "dice": 0.5}


def test_hash_depends_on_every_value() -> None:
    assert parse_config({"train": {"seed": 1}}).sha256 != Config().sha256
    assert parse_config({}).sha256 == Config().sha256
    assert parse_config({"data": {"dir": "elsewhere"}}).sha256 == Config().sha256


def test_devices_are_names_of_targets_and_change_no_bundle() -> None:
    text = 'targets = ["host", "raspberry-pi-5"]\n[devices]\nraspberry-pi-5 = "pi 5"\n'
    config = parse_config(tomllib.loads(text))
    assert config.devices == {"raspberry-pi-5": "pi 5"}
    assert parse_config(tomllib.loads(render_toml(config, defaults=True))) == config
    assert config.sha256 == dataclasses.replace(config, devices={}).sha256
    with pytest.raises(ConfigError, match=r"\[devices\] raspberry-pi-4: none of the targets \(host\)"):
        parse_config({"targets": ["host"], "devices": {"raspberry-pi-4": "pi"}})
    with pytest.raises(ConfigError, match=r"\[devices\] host = 5: expected a string"):
        parse_config({"targets": ["host"], "devices": {"host": 5}})
    with pytest.raises(ConfigError, match=r"devices = 'pi': expected a table of names; write \[devices\]"):
        parse_config({"targets": ["host"], "devices": "pi"})
