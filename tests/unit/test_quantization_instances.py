"""Which part of an instance model stays float."""

from __future__ import annotations

from quantization.instances import Operation, float_operations

GRAPH = {
    "backbone": Operation(("frame",), weighted=True),
    "relu": Operation(("backbone",)),
    "pyramid": Operation(("relu",), weighted=True),
    "table": Operation(("pyramid",)),
    "rpn": Operation(("pyramid",), weighted=True),
    "rpn_relu": Operation(("rpn",)),
    "rpn_scores": Operation(("rpn_relu",), weighted=True),
    "rpn_flat": Operation(("rpn_scores",)),
    "best": Operation(("rpn_flat",), selects=True),
    "scale": Operation(("best",)),
    "look_up": Operation(("table", "scale")),
    "fc1": Operation(("look_up",), weighted=True),
    "fc_relu": Operation(("fc1",)),
    "scores": Operation(("fc_relu",), weighted=True),
    "softmax": Operation(("scores",)),
    "detections": Operation(("softmax", "best")),
    "mask_conv": Operation(("look_up",), weighted=True),
    "mask_scores": Operation(("mask_conv",), weighted=True),
    "masks": Operation(("mask_scores",)),
}


def test_boxes_scores_and_their_last_layers_stay_float() -> None:
    floats = float_operations(GRAPH, ["detections", "masks"])
    assert floats == {"detections", "softmax", "scores", "best", "rpn_flat", "rpn_scores", "scale", "look_up", "fc_relu", "masks",
                      "mask_scores"}
    assert {"backbone", "relu", "pyramid", "table", "rpn", "rpn_relu", "fc1", "mask_conv"} == set(GRAPH) - floats


def test_without_a_selection_only_the_end_stays_float() -> None:
    graph = {name: GRAPH[name] for name in ("backbone", "relu", "pyramid")} | {"answer": Operation(("pyramid",))}
    assert float_operations(graph, ["answer"]) == {"answer", "pyramid"}
