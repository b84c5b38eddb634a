"""The page's account of what was learned from, how, and what pruning changed."""

from __future__ import annotations

from edgeseg.report.charts import line_chart, part_bar
from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.model import DatasetFacts, PruningFacts, TrainingFacts
from edgeseg.report.page_parts import facts, swatch, table
from edgeseg.report.words import count, ms, number, percent


def training_section(training: TrainingFacts) -> Html:
    """Facts of the training and its two curves."""
    height, width = training.size_hw
    pairs: list[tuple[str, Child]] = [
        ("network", training.network), ("parameters", count(training.params)), ("MACs a frame", count(training.macs)),
        ("model size", f"{height} × {width}"), ("epochs", str(training.epochs)), ("minutes", number(training.minutes)),
        (f"best val {training.metric}", percent(training.best_val_score)), ("device", training.device), ("precision", training.precision),
        ("seed", str(training.seed)),
    ]
    loss = [(float(p.epoch), p.loss) for p in training.curve]
    scores = [(float(p.epoch), p.score) for p in training.curve if p.score is not None]
    charts = el(
        "div", line_chart(loss, title="Training loss", x_name="epoch", css="loss"),
        line_chart(scores, title=f"{training.metric} on val", x_name="epoch", percent=True, css="miou"), class_="charts",
    )
    return join([facts(pairs), charts])


def dataset_section(dataset: DatasetFacts) -> Html:
    """Counts, how the splits came about, warnings, and the share of pixels of each class."""
    pairs: list[tuple[str, Child]] = [("data set", dataset.name), ("folder", dataset.root), ("classes", str(len(dataset.classes)))]
    pairs += [(f"{split} frames", number(frames, 0)) for split, frames in dataset.counts.items()]
    parts: list[Child] = [facts(pairs)]
    if dataset.split_rule:
        parts.append(el("p", f"Splits: {dataset.split_rule}"))
    if dataset.warnings:
        parts.append(el("ul", *(el("li", warning) for warning in dataset.warnings)))
    splits = list(dataset.pixel_shares)
    if splits:
        body = []
        for index, name in enumerate(dataset.classes):
            shares = [_share(dataset.pixel_shares[split][index], f"{name}, {split}") for split in splits]
            body.append(el("tr", el("th", swatch(index, dataset.palette), name, scope="row"), *shares))
        parts.append(table(["Class", *splits], body, name="Share of pixels of each class", about="Share of the labelled pixels."))
    parts.append(el("p", "SHA-256 of the data: ", el("code", dataset.sha256), class_="small muted", style="overflow-wrap:anywhere"))
    return join(parts)


def _share(value: float, what: str) -> Html:
    words = percent(value, 2)
    bar = el("div", part_bar([("p2", value)], full=1.0, said=f"{what}: {words}"), class_="share")
    return el("td", words if value > 0 else "absent", bar if value > 0 else None)


def pruning_section(pruning: PruningFacts | None) -> Html:
    """Before and after the cut, with the verdict."""
    if pruning is None:
        return el("p", "The network was not pruned.", class_="muted")

    def line(name: str, before: str, after: str, ratio: float | None) -> Html:
        share = "-" if ratio is None else percent(ratio)
        return el("tr", el("th", name, scope="row"), *(el("td", cell, class_="n") for cell in (before, after, share)))

    def ratio(after: float | None, before: float | None) -> float | None:
        return after / before if after is not None and before else None

    times = [f"{ms(value)} ms" if value is not None else "-" for value in (pruning.latency_before_ms, pruning.latency_after_ms)]
    body = [
        line("Parameters", count(pruning.params_before), count(pruning.params_after), ratio(pruning.params_after, pruning.params_before)),
        line("MACs", count(pruning.macs_before), count(pruning.macs_after), ratio(pruning.macs_after, pruning.macs_before)),
        line("Latency, median", times[0], times[1], ratio(pruning.latency_after_ms, pruning.latency_before_ms)),
        line("mIoU on val", percent(pruning.miou_before), percent(pruning.miou_after), None),
    ]
    where = f" Latency: {pruning.latency_where}." if pruning.latency_where else ""
    about = f"Before the cut, and after it and its fine-tuning.{where}"
    heads = ["", ">before", ">after", ">what is left"]
    layers = [
        el("tr", el("th", name, scope="row"), el("td", count(before), class_="n"), el("td", count(after), class_="n"),
           el("td", percent(after / before), class_="n"))
        for name, before, after in pruning.layers
    ]
    cut = table(["Layer", ">before", ">after", ">what is left"], layers, name="Output channels of the layers that were cut")
    return join([
        el("p", pruning.verdict), el("p", pruning.method) if pruning.method else None,
        table(heads, body, name="Pruning, before and after", about=about),
        el("details", el("summary", "Channels layer by layer"), cut) if layers else None,
    ])
