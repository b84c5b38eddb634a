"""The demo: a synthetic field and a config, then the same chain as for anybody's data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeseg.core.config import (
    AugmentSection,
    BenchSection,
    Config,
    DataSection,
    GoalsSection,
    ModelSection,
    PruneSection,
    TrainSection,
    render_toml,
)
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import write_text
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.ui import Ui

COUNTS: Final = {"train": 360, "val": 40, "test": 120}
DEMO: Final = Config(
    name="demo",
    targets=("host", "intel-cpu", "raspberry-pi-5"),
    data=replace(DataSection(), dir="data", size=(192, 256)),
    model=ModelSection(name="fast_scnn", width=0.75),
    augment=replace(AugmentSection(), scale=(0.8, 1.25), flip_vertical=0.5, rotate_deg=15.0),
    train=replace(TrainSection(), epochs=20, batch_size=8, eval_every=4, warmup_epochs=1.0),
    prune=PruneSection(macs_share=0.6, epochs=8),
    bench=BenchSection(quick=True),
    goals=GoalsSection(agreement=0.999, miou=0.85, miou_drop=0.01),
)


def write_demo(folder: Path, *, ui: Ui) -> Path:
    """Draw the synthetic field into `folder/data` (once) and write `folder/edgeseg.toml`; give the config's path.

    Raises:
        ConfigError: the folder holds somebody's own config or data.
    """
    data, config, text = folder / "data", folder / "edgeseg.toml", render_toml(DEMO, defaults=False)
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{config} is not the demo's; choose another folder with --out DIR")
    if not config.exists() and data.exists():
        raise ConfigError(f"{data} exists and is not the demo's; choose another folder with --out DIR")
    write_text(config, text)  # first, so that a demo killed while it draws is known as its own
    if not (data / "dataset.json").exists():  # written last, so a killed process draws again
        total = sum(COUNTS.values())
        ui.say(f"drawing {total} frames of a synthetic field into {data}")
        write_field(data, seed=0, counts=COUNTS, progress=lambda done, total: ui.progress("drawing", done, total))
    return config
