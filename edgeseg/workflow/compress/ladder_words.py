"""The rescue ladder in words: what was kept, what it costs, and what to type where the limits are missed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kept_lines(format_: str, ladder: Mapping[str, Any]) -> list[str]:
    """A line on the rung kept, one on each that was not possible, and one more where the limits are missed or not decided."""
    rungs = ladder.get("rungs")
    if not rungs:
        return []
    kept = next(rung for rung in rungs if rung["kept"])
    lines = [f"{format_}: {rung_words(kept, also_calibrates=ladder['judged_on'].get('also_calibrates', False))}"]
    lines += [f"{format_}: fine-tuning for int8 is {rung['best']}" for rung in rungs if "not_possible" in rung]
    if not ladder["reached"]:
        lines.append(f"{format_}: {unmet_words(ladder)}")
    return lines


def rung_words(rung: Mapping[str, Any], *, also_calibrates: bool = False) -> str:
    """One rung in words; `also_calibrates` = it was judged on the frames that it was calibrated on."""
    words = f"{rung['rung'].replace('_', '-')} ({rung['best']})"
    where = "the training frames it was calibrated on, too few to hold any back" if also_calibrates else "training frames held back"
    if not also_calibrates and rung["rung"].startswith("qat"):
        where += " from calibration, not from fine-tuning"
    if "miou_drop" in rung:
        lost, most = 100 * rung["miou_drop"], 100 * rung["miou_drop_high"]
        words += f": {lost:+.2f} points of mIoU lost on {where} (at most {most:+.2f})"
    elif "agreement" in rung:
        words += f": {rung['agreement']:.2%} of the answers as in float on {where.replace('training frames', 'frames')}"
    if rung.get("worst_class"):
        words += f", worst class {rung['worst_class']} {100 * rung['worst_class_drop']:+.2f}"
    if rung["float_layers"]:
        words += f"; {len(rung['float_layers'])} layers float ({rung['float_macs_share']:.0%} of the MACs)"
    return words


def undecided(ladder: Mapping[str, Any]) -> bool:
    """Whether the rung kept keeps the limits as measured, and the frames are too few to be sure of it."""
    return any(rung["kept"] and rung.get("verdict") == "not decided" for rung in ladder["rungs"])


def unmet_words(ladder: Mapping[str, Any]) -> str:
    """What is left to do where the limits are missed, or whether they are is not decided."""
    if all("miou" not in rung for rung in ladder["rungs"]):
        if ladder.get("of_one_bundle"):
            return "more than 2 % of its answers differ from float, and without class maps that are labelled nothing more can be judged"
        return "more than 2 % of its objects differ from float; what that costs in AP is measured against labels when it is verified"
    asked = " and ".join(f"{goal} {limit:g}" for goal, limit in ladder["goals"].items() if limit is not None)
    if undecided(ladder):
        number = ladder["judged_on"]["num_frames"]
        return (f"{asked or 'a point of mIoU'} is kept as measured, and not decided on {number} training frames; the last word has "
                "edgeseg verify on the evaluation split, and more training frames would tell")
    if not asked:
        return ("that is more than a point, and no goal says how much it may be; to have it rescued, type: "
                "edgeseg run --set goals.miou_drop=0.01")
    last = ladder["last_rung"]
    if any("not_possible" in rung for rung in ladder["rungs"]):
        return f"{asked} cannot be met in int8 here, the best found is kept; use the fp32 bundle, or relax the goal"
    if last == "qat":
        return (f"{asked} cannot be met in int8 here, the best found is kept; use the fp32 bundle, train for int8 longer "
                "(--set quantize.qat_epochs=N), or relax the goal")
    if ladder.get("of_one_bundle"):
        if last == "post_training":
            return (f"{asked} is missed on the last rung allowed, the best found is kept; set [quantize] rescue = \"mixed\" in the "
                    "edgeseg.toml given by --data")
        return (f"{asked} is missed, the best found is kept; a run fine-tunes its own network for int8: "
                "edgeseg run --set quantize.rescue=qat")
    following = {"post_training": "mixed", "mixed": "qat"}[last]
    why = "keeps the layers that need it float" if following == "mixed" else "fine-tunes the network for int8"
    return (f"{asked} is missed on the last rung allowed, the best found is kept; type: edgeseg run --set quantize.rescue={following}, "
            f"which {why}")
