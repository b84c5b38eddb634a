"""Keras models as networks: layouts, training mode, norms that fold, checkpoints that fit, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from edgeseg.core.vendors import quiet

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="keras is not installed; it comes with pip install 'edgeseg[keras]'",
)


def keras_model(layout: str = "channels_last", *, num_scores: int = 3) -> Any:
    """Every way a norm can stand: behind convolutions of each kind, behind a ReLU, and behind a convolution that is read twice."""
    from exporters.imported.keras import require_keras

    keras = require_keras()
    keras.utils.clear_session()
    keras.utils.set_random_seed(4)
    axis = -1 if layout == "channels_last" else 1

    def norm(x: Any, **more: Any) -> Any:
        return keras.layers.BatchNormalization(
            axis=axis, moving_mean_initializer="random_normal", gamma_initializer="random_uniform", **more,
        )(x)

    def conv(kind: str, *arguments: Any, **more: Any) -> Any:
        return getattr(keras.layers, kind)(*arguments, data_format=layout, padding="same", **more)

    inputs = keras.Input((None, None, 3) if axis == -1 else (3, None, None))
    x = norm(conv("Conv2D", 8, 3, strides=2, bias_initializer="random_normal")(inputs))
    x = norm(keras.layers.ReLU()(x), scale=False)
    x = norm(conv("DepthwiseConv2D", 3, use_bias=False)(x), center=False)
    twice = conv("Conv2D", 8, 1)(x)
    x = keras.layers.Add()([norm(twice), twice])
    x = norm(conv("Conv2DTranspose", 8, 2, strides=2, use_bias=False)(x))
    return keras.Model(inputs, conv("Conv2D", num_scores, 1)(x))


def network(layout: str = "channels_last") -> Any:
    from edgeseg.models.keras_network import KerasNetwork

    with quiet():
        return KerasNetwork(keras_model(layout))


def picture() -> torch.Tensor:
    return torch.rand((1, 3, 32, 48), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_takes_and_gives_channels_first(layout: str) -> None:
    net = network(layout).eval()
    with torch.no_grad():
        scores = net(picture())
    assert scores.shape == (1, 3, 32, 48)
    direct = net.model(picture().permute(0, 2, 3, 1) if layout == "channels_last" else picture(), training=False).detach()
    assert torch.equal(scores, direct.permute(0, 3, 1, 2) if layout == "channels_last" else direct)


def test_training_mode_reaches_keras_and_learns() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.eval()(picture())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.train()(picture()).square().mean().backward()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(before[name], value)}
    assert moved
    assert all("moving" in name for name in moved)
    assert all(parameter.grad is not None for parameter in net.parameters() if parameter.requires_grad)


def test_a_second_build_takes_the_weights_of_the_first() -> None:
    first, second = network().eval(), network().eval()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(picture()), second(picture()))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_norms_fold_without_changing_the_answer(layout: str) -> None:
    from edgeseg.models.keras_norms import fold_norms

    net = network(layout).eval()
    with quiet():
        folded = copy.deepcopy(net)
        fold_norms(folded.model)
    with torch.no_grad():
        expected, got = net(picture()), folded(picture())
    assert not torch.equal(net.model.layers[1].kernel.value, folded.model.layers[1].kernel.value), "nothing was folded"
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        operations = [str(node.target) for node in torch.export.export(folded, (picture(),)).graph.nodes]
    assert not any("rsqrt" in name or "sub" in name for name in operations)
    assert sum("mul" in name for name in operations) == 2, "behind a ReLU, and behind a convolution that is read twice"


@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_exports_like_any_network(format: str, tmp_path: Path) -> None:
    from edgeseg.models import ContractModule
    from exporters import EXPORTERS
    from targets.runtimes import RuntimeOptions, open_session

    net, contract = network().eval(), Contract(height=32, width=48)
    model = EXPORTERS[format](net, contract, tmp_path)
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = ContractModule(net, contract)(torch.from_numpy(frame[None]))[0].numpy()
    got = open_session(sealed(model, contract, tmp_path), {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert"}[format],
                       RuntimeOptions()).run(frame)
    assert np.mean(got == expected) >= 0.999


def sealed(model: Any, contract: Contract, folder: Path) -> Any:
    from edgeseg.core.bundle import BundleInfo, seal_bundle

    info = BundleInfo(
        name="keras", contract=contract, classes=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)), reference=None, parents=(),
        config_sha256="0" * 64,
    )
    return seal_bundle(folder / "bundle", model, info, golden_frames=[], answer=lambda _: ("none", lambda frame: frame[:, :, 0]))


def test_refuses_what_is_no_network() -> None:
    from edgeseg.models.keras_network import KerasNetwork
    from exporters.imported.keras import require_keras

    keras = require_keras()
    with pytest.raises(ConfigError, match="does not run on torch"):
        KerasNetwork(object())
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ConfigError, match="has 2 inputs"):
        KerasNetwork(keras.Model([a, b], keras.layers.Add()([a, b])))
    gray = keras.Input((8, 8, 1))
    with pytest.raises(ConfigError, match="three channels"):
        KerasNetwork(keras.Model(gray, keras.layers.ReLU()(gray)))
