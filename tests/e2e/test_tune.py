"""`edgeseg tune`, and what bench and predict then do: through the command line, with a real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.cli.main import run
from edgeseg.core.images import write_frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tune"), "tflite").folder


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_tuned_settings_are_found_used_and_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads(said(capsys, "tune", folder, "--quick", "--json"))
    kept = Path(found["file"])
    assert kept == folder.with_name("tflite.tuned.json")
    assert found["quick"] is True
    assert found["purpose"] == "latency"
    delegates = {row["fields"]["delegate"] for row in found["rows"]}
    assert delegates == {True, False}
    (entry,) = json.loads(kept.read_text(encoding="utf-8"))["entries"]
    assert (entry["fields"], entry["default"]) == (found["chosen"], found["default"])
    (row,) = [row for row in found["rows"] if row["fields"] == found["chosen"]]
    assert row["cost_ms"] > 0
    assert not row["reason"]

    tuned = json.loads(said(capsys, "bench", folder, "--quick", "--json"))
    assert tuned["tuned"].startswith("tuned for latency (num_threads=")
    assert tuned["num_threads"] == found["chosen"]["num_threads"]
    write_frame(tmp_path / "a.png", tiny_frame(height=48, width=64))
    lines = said(capsys, "predict", folder, tmp_path / "a.png", "--out", tmp_path / "out", "--no-overlay")
    assert "settings: tuned for latency (num_threads=" in lines
    lines = said(capsys, "predict", folder, tmp_path / "a.png", "--out", tmp_path / "out", "--no-overlay", "--force", "--untuned")
    assert "settings:" not in lines

    kept.write_text("{}", encoding="utf-8")
    error = said(capsys, "predict", folder, tmp_path / "a.png", "--out", tmp_path / "out", "--force", code=2)
    assert error.startswith(f"edgeseg: {kept}: not a file of tuned settings of schema 2; ")
    assert error.count("\n") == 1
    too_late = "minutes were spent before it was said"
    monkeypatch.setattr("edgeseg.workflow.measure.tuning.find_settings", lambda *_, **more: pytest.fail(too_late))
    error = said(capsys, "tune", folder, "--quick", code=2)
    assert error.startswith(f"edgeseg: {kept}: not a file of tuned settings of schema 2; ")
    kept.unlink()


@pytest.mark.parametrize(("arguments", "code", "error"), [
    (("--for", "speed"), 2, "edgeseg: --for speed: one of latency, throughput\n"),
    (("--device", "emulated:raspberry-pi-5"), 13, "edgeseg: emulated:raspberry-pi-5 is emulated: it gives answers only, "
                                                  "and its times mean nothing; tune on the board itself\n"),
    (("--target", "jetson-orin-nano"), 13, "edgeseg: jetson-orin-nano does not run tflite; it runs "),
])
def test_refusals(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...],
    code: int, error: str,
) -> None:
    monkeypatch.setenv("EDGESEG_DEVICES", str(tmp_path / "devices.toml"))
    assert said(capsys, "tune", folder, "--quick", *arguments, code=code).startswith(error)
    assert not folder.with_name("tflite.tuned.json").exists()
