"""What is decided about an imported model before anything is converted; what could be read in two ways is refused, with what to type.

Legend: N = 1, H/W = rows/columns at model size, C = channels or classes, h/w = rows/columns of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from exporters.imported.base import PROBABILITY_OPS, Facts, Port, Reading

_INTEGERS = frozenset({"uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool"})
_CHANNEL_AXIS = {"NCHW": 1, "NHWC": 3}


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user said; "", empty or `None` = to be found out."""

    classes: tuple[str, ...]
    input: str = ""
    output: str = ""
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    order: str = ""
    layout: str = ""
    output_layout: str = ""
    size: tuple[int, int] | None = None
    """Height and width, for a model that leaves them open."""
    resize: str = "stretch"
    resizer: str = "pillow"
    decision: str = ""
    threshold: float | None = None
    scores: str = ""


def choose_ports(inputs: Sequence[Port], outputs: Sequence[Port], wishes: Wishes) -> tuple[Port, Port]:
    """Give the one input and the one output to use.

    Raises:
        ConfigError: no port of that name (the names there are), several inputs, or several outputs and none named.
    """
    chosen = _named(inputs, wishes.input, "input")
    if len(inputs) > 1:
        raise ConfigError(
            f"the model takes {len(inputs)} inputs, {_list(inputs)}; a bundle takes one, the frame: export a model with one input"
        )
    if not wishes.output and len(outputs) > 1:
        raise ConfigError(f"the model has {len(outputs)} outputs, {_list(outputs)}; type --output {outputs[0].name}, or another of them")
    return chosen, _named(outputs, wishes.output, "output")


def fix_input(port: Port, wishes: Wishes) -> tuple[tuple[int, ...], str, str]:
    """Give the input's static shape, its layout and its channel order.

    Raises:
        ConfigError: not a picture, left open where --size is missing, or of two meanings.
    """
    if port.dtype not in ("float32", "uint8"):
        more = "; export it in float32 (edgeseg makes int8 itself: edgeseg quantize)" if port.dtype != "string" else ""
        raise ConfigError(f"input {port} takes {port.dtype}; float32 and uint8 can be fed{more}")
    axes: tuple[int | None, ...] = (None,) * 4 if port.shape is None else port.shape
    if len(axes) != 4:
        raise ConfigError(f"input {port} has {len(axes)} axes; a picture has four, [1, 3, H, W] or [1, H, W, 3]")
    if axes[0] not in (None, 1):
        raise ConfigError(f"input {port} takes {axes[0]} pictures at once; a bundle takes one: export it with batch size 1")
    layout = wishes.layout or _find_layout(port, axes)
    channel_axis = _CHANNEL_AXIS[layout]
    channels = axes[channel_axis]
    if channels is None:
        channels = 1 if wishes.order == "gray" else 3
    if channels not in (1, 3):
        raise ConfigError(f"input {port} has {channels} channels in layout {layout}; a frame gives 3 (RGB) or 1 (gray)")
    order = wishes.order or ("gray" if channels == 1 else "rgb")
    if (order == "gray") != (channels == 1):
        raise ConfigError(f"--order {order}: input {port} has {channels} channel{'s' if channels > 1 else ''}; "
                          + ("leave --order out" if channels == 1 else "one of rgb, bgr"))
    rows, columns = (axes[2], axes[3]) if layout == "NCHW" else (axes[1], axes[2])
    height, width = _size(port, (rows, columns), wishes.size)
    shape = (1, channels, height, width) if layout == "NCHW" else (1, height, width, channels)
    return shape, layout, order


def read_output(
    input: Port, shape: tuple[int, ...], layout: str, order: str, facts: Facts, wishes: Wishes
) -> Reading:
    """Decide everything that is left: normalisation, what the output means, the decision.

    Args:
        input: the port that was chosen.
        shape: its static shape.
        layout: of the input.
        order: of its channels.
        facts: of the settled model.
        wishes: what the user said.

    Raises:
        ConfigError: something is missing or fits in two ways; says what to type.
    """
    mean, scale = _normalisation(input, 1 if order == "gray" else 3, wishes)
    height, width = (shape[2], shape[3]) if layout == "NCHW" else (shape[1], shape[2])
    output = facts.output
    if output.dtype not in _INTEGERS and output.dtype != "float32":
        raise ConfigError(f"output {output} gives {output.dtype}; float32 scores or whole class numbers can be read: export it in float32")
    if wishes.decision == "class-map" or (output.dtype in _INTEGERS and not wishes.decision):
        answers, output_layout, scores = "classes", _map_layout(output), len(wishes.classes)
        if wishes.threshold is not None:
            raise ConfigError(f"output {output} holds class numbers, which need no threshold; leave --threshold out")
    else:
        answers = "scores"
        output_layout, scores = _scores_layout(output, wishes, (height, width))
    decision, threshold = _decision(output, scores, answers, wishes)
    probabilities = False
    if decision == "threshold":
        if not wishes.scores and not facts.last_op:
            raise ConfigError(f"output {output}: nothing tells whether its scores are logits or probabilities; "
                              "type --scores logits or --scores probabilities")
        probabilities = (wishes.scores or ("probabilities" if facts.last_op in PROBABILITY_OPS else "logits")) == "probabilities"
    contract = Contract(height=height, width=width, resize=wishes.resize, resizer=wishes.resizer, decision=decision, threshold=threshold)
    static = Port(name=input.name, dtype=input.dtype, shape=shape, aliases=input.aliases)
    return Reading(
        input=static, layout=layout, order=order, mean=mean, scale=scale, output=output, output_layout=output_layout, answers=answers,
        probabilities=probabilities, num_classes=len(wishes.classes), contract=contract,
    )


def sentences(reading: Reading, facts: Facts, classes: tuple[str, ...]) -> list[str]:
    """Say in words how the model is read, so that what is wrong is seen at once."""
    contract = reading.contract
    values = "the frame's values as they are" if not reading.scale else (
        f"(value - {_numbers(reading.mean)}) / {_numbers(reading.scale)} of 0..255"
    )
    lines = [f"input {reading.input}: layout {reading.layout}, channels {reading.order}, {values}; frames come to "
             f"{contract.height}x{contract.width} by {contract.resize}{'' if contract.resizer == 'pillow' else ', ' + contract.resizer}"]
    if reading.answers == "classes":
        meaning = "class numbers, decided by the model"
    elif contract.decision == "threshold":
        kind = "probabilities" if reading.probabilities else "logits"
        meaning = f"{kind} in layout {reading.output_layout}; {classes[1]} where the probability is above {contract.threshold:g}"
    else:
        meaning = f"scores of {reading.num_classes} classes in layout {reading.output_layout}; the class with the largest score"
    return [*lines, f"output {reading.output}: {meaning}", *facts.remarks]


def _named(ports: Sequence[Port], name: str, kind: str) -> Port:
    if not name:
        return ports[0]
    for port in ports:
        if name == port.name or name in port.aliases:
            return port
    raise ConfigError(f"the model has no {kind} '{name}'; it has {_list(ports)}; type --{kind} {ports[0].name}")


def _list(ports: Sequence[Port]) -> str:
    return ", ".join(map(str, ports))


def _find_layout(port: Port, axes: tuple[int | None, ...]) -> str:
    for channels in (3, 1):
        found = [layout for layout, axis in _CHANNEL_AXIS.items() if axes[axis] == channels]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise ConfigError(f"input {port} does not say where its channels are; type --layout NCHW or --layout NHWC")


def _size(port: Port, given: tuple[int | None, int | None], wanted: tuple[int, int] | None) -> tuple[int, int]:
    if wanted is None:
        if None in given:
            raise ConfigError(f"input {port} leaves its size open; type --size HEIGHTxWIDTH, for example --size 512x512")
        assert given[0] is not None and given[1] is not None
        return given[0], given[1]
    if any(fixed not in (None, side) for fixed, side in zip(given, wanted, strict=True)):
        shown = "x".join("?" if side is None else str(side) for side in given)
        raise ConfigError(f"--size {wanted[0]}x{wanted[1]}: input {port} is fixed to {shown}; leave --size out, or export it at that size")
    return wanted


def _normalisation(port: Port, channels: int, wishes: Wishes) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, scale = wishes.mean, wishes.scale
    if port.dtype == "uint8":
        if mean or scale:
            raise ConfigError(f"input {port} takes uint8, so the model normalises by itself; leave --mean and --scale out")
        return (), ()
    if not mean and not scale:
        raise ConfigError(
            f"input {port} takes float32: type what it was trained with, for example --mean 0 --scale 255 (0..1), --mean 127.5 "
            "--scale 127.5 (-1..1), --mean 123.675,116.28,103.53 --scale 58.395,57.12,57.375 (ImageNet) or --mean 0 --scale 1 (0..255)"
        )
    mean, scale = mean or (0.0,), scale or (1.0,)
    for option, values in (("--mean", mean), ("--scale", scale)):
        if len(values) not in (1, channels):
            raise ConfigError(f"{option} has {len(values)} values; give one, or one a channel ({channels})")
    if any(value <= 0 or value != value for value in scale):
        raise ConfigError(f"--scale {_numbers(scale)}: the values are divided by it, so it must be above 0")
    if max(scale) < 1:
        if max(abs(value) for value in mean) <= 1 and min(scale) > 0.02:
            suggestion = f"--mean {_numbers(tuple(255 * v for v in mean))} --scale {_numbers(tuple(255 * v for v in scale))}"
        else:
            suggestion = f"--scale {_numbers(tuple(1 / v for v in scale))}"
        raise ConfigError(f"--scale {_numbers(scale)}: frames hold 0..255 and are divided by --scale; perhaps {suggestion}")
    if any(0 < abs(value) < 1 for value in mean):
        raise ConfigError(f"--mean {_numbers(mean)}: frames hold 0..255; perhaps --mean {_numbers(tuple(255 * v for v in mean))}")
    return mean * (channels // len(mean)), scale * (channels // len(scale))


def _map_layout(output: Port) -> str:
    """Where the two sides of a class map lie: everything else is one."""
    axes = _static(output)
    if len(axes) == 4 and axes[1] == 1:
        return "NCHW"
    if len(axes) == 4 and axes[3] == 1:
        return "NHWC"
    if len(axes) == 3 and axes[0] == 1:
        return "NHW"
    raise ConfigError(f"output {output} is no class map; [1, H, W], [1, 1, H, W] or [1, H, W, 1] is one; for scores export it in float32")


def _scores_layout(output: Port, wishes: Wishes, size_hw: tuple[int, int]) -> tuple[str, int]:
    axes, num_classes = _static(output), len(wishes.classes)
    if len(axes) == 3 and axes[0] == 1 and num_classes == 2:
        return "NHW", 1
    if len(axes) != 4 or axes[0] != 1:
        raise ConfigError(f"output {output} holds no scores a pixel; [1, C, H, W] or [1, H, W, C] with C = {num_classes} classes does")
    places = {layout: axis for layout, axis in _CHANNEL_AXIS.items() if wishes.output_layout in ("", layout)}
    for count in ((num_classes, 1) if num_classes == 2 else (num_classes,)):
        found = [layout for layout, axis in places.items() if axes[axis] == count]
        if len(found) > 1:
            raise ConfigError(f"output {output} can be read in two ways; type --output-layout NCHW or --output-layout NHWC")
        if found:
            return found[0], count
    names = ", ".join(wishes.classes[:4]) + (", ..." if num_classes > 4 else "")
    plausible = [axis for axis in places.values() if _is_map(axes[1:axis] + axes[axis + 1 :], size_hw)] or places.values()
    guess = sorted({axes[axis] for axis in plausible})
    raise ConfigError(
        f"output {output} has no axis of {num_classes}, as --classes names {num_classes} ({names}); "
        f"name as many classes as it has, a background included ({' or '.join(map(str, guess))})"
    )


def _is_map(sides: tuple[int, ...], size_hw: tuple[int, int]) -> bool:
    """Whether two sides may be those of a map of an input of `size_hw`: both divided by about the same."""
    (height, width), (rows, columns) = size_hw, sides
    return width * rows < 2 * height * columns and height * columns < 2 * width * rows


def _static(output: Port) -> tuple[int, ...]:
    axes = tuple(axis for axis in output.shape or () if axis is not None)
    assert output.shape is not None and len(axes) == len(output.shape), "settled ports are static"
    return axes


def _decision(output: Port, scores: int, answers: str, wishes: Wishes) -> tuple[str, float | None]:
    wanted, threshold = wishes.decision, wishes.threshold
    if answers == "classes":
        return "argmax", None
    if scores == 1 and wanted == "argmax":
        raise ConfigError(f"output {output} has one score a pixel, and argmax needs two; type --threshold 0.5, or another probability")
    if scores > 2 and (wanted == "threshold" or threshold is not None):
        raise ConfigError(f"--threshold: output {output} has {scores} scores a pixel; a threshold decides between two classes")
    if scores == 1 or wanted == "threshold" or threshold is not None:
        if threshold is None:
            raise ConfigError(f"output {output}: type --threshold, the probability above which a pixel is '{wishes.classes[1]}', "
                              "for example --threshold 0.5")
        if not 0 < threshold < 1:
            raise ConfigError(f"--threshold {threshold:g}: a probability between 0 and 1")
        if wanted == "argmax":
            raise ConfigError("--threshold does not go with --decision argmax; leave one of them out")
        return "threshold", threshold
    return "argmax", None


def _numbers(values: tuple[float, ...]) -> str:
    shown = [f"{value:g}" if abs(value - float(f"{value:g}")) < 1e-9 else f"{value:.6g}" for value in values]
    return ",".join(shown if len(set(shown)) > 1 else shown[:1])
