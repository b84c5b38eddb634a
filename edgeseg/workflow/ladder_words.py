"""The rescue ladder in words: what was kept, what it costs, and what to type where the goals are missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kept_lines(format_: str, ladder: Mapping[str, Any]) -> list[str]:
    """A line on the rung kept, and one more where it misses the goals."""
    rungs = ladder.get("rungs")
    if not rungs:
        return []
    kept = next(rung for rung in rungs if rung["kept"])
    lines = [f"{format_}: {rung_words(kept)}"]
    if not ladder["reached"]:
        lines.append(f"{format_}: {unmet_words(ladder)}")
    return lines


def rung_words(rung: Mapping[str, Any]) -> str:
    """One rung in words."""
    words = f"{rung['rung'].replace('_', '-')} ({rung['best']})"
    if "miou_drop" in rung:
        lost, most = 100 * rung["miou_drop"], 100 * rung["miou_drop_high"]
        words += f": {lost:+.2f} points of mIoU lost on training frames held back (at most {most:+.2f})"
    elif "agreement" in rung:
        words += f": {rung['agreement']:.2%} of the answers as in float on frames held back"
    if rung.get("worst_class"):
        words += f", worst class {rung['worst_class']} {100 * rung['worst_class_drop']:+.2f}"
    if rung["float_layers"]:
        words += f"; {len(rung['float_layers'])} layers float ({rung['float_macs_share']:.0%} of the MACs)"
    return words


def unmet_words(ladder: Mapping[str, Any]) -> str:
    """What is left to do where the goals are missed."""
    if all("miou" not in rung for rung in ladder["rungs"]):
        return "more than 2 % of its answers differ from float, and without class maps that are labelled nothing more can be judged"
    asked = " and ".join(f"{goal} {limit:g}" for goal, limit in ladder["goals"].items() if limit is not None)
    if not asked:
        return ("that is more than a point, and no goal says how much it may be; to have it rescued, type: "
                "edgeseg run --set goals.miou_drop=0.01")
    last = ladder["last_rung"]
    if last == "qat":
        return (f"{asked} cannot be met in int8 here, the best found is kept; use the fp32 bundle, train for int8 longer "
                "(--set quantize.qat_epochs=N), or relax the goal")
    if ladder.get("of_one_bundle"):
        return (f"{asked} is missed, the best found is kept; a run fine-tunes its own network for int8: "
                "edgeseg run --set quantize.rescue=qat")
    following = {"post_training": "mixed", "mixed": "qat"}[last]
    why = "keeps the layers that need it float" if following == "mixed" else "fine-tunes the network for int8"
    return (f"{asked} is missed on the last rung allowed, the best found is kept; type: edgeseg run --set quantize.rescue={following}, "
            f"which {why}")
