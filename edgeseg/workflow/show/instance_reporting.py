"""What a report says of an instance model in place of mIoU and class maps: average precision, and objects drawn over frames."""

from __future__ import annotations

from typing import Any, Final

from edgeseg.core.images import Frame, resize_frame
from edgeseg.core.instances import Instances
from edgeseg.core.paste import to_frame_boxes
from edgeseg.report.model import FloatReference, ObjectPicture
from edgeseg.workflow.check.verifying import Verified
from edgeseg.workflow.learn.instance_reference import FloatInstances
from edgeseg.workflow.learn.learning import RunData
from targets.boards import plan
from targets.instances import MIN_SCORE, at_least, draw, find_instances, shown_found, shown_label
from targets.runtimes import open_session

_NUM_PICTURES: Final = 6
_PICTURE_SIDE: Final = 480


def float_facts(reference: FloatInstances) -> FloatReference:
    """What the float checkpoint reached, as the report takes it."""
    facts = reference.reference
    return FloatReference(
        split=facts.split, num_frames=facts.num_frames, miou=None, iou=(), pixel_accuracy=None, task="instance", ap=facts.ap,
        ap50=facts.ap50, class_ap=facts.class_ap,
    )


def accuracy(verified: Verified, reference: FloatInstances) -> dict[str, Any]:
    """Fields of a `ResultRow` that say how accurate a bundle is."""
    result = verified.result
    return {
        "task": "instance", "ap": result["ap"], "ap50": result["ap50"], "ap_float": reference.reference.ap,
        "class_ap": tuple(result["class_ap"].values()), "no_miou": result["no_miou"], "worst_class": verified.worst_class,
        "worst_class_drop": result["worst_class_drop"], "agreement": result["agreement"],
    }


def object_pictures(data: RunData, reference: FloatInstances, verified: list[Verified]) -> list[ObjectPicture]:
    """The frames on which the reduced bundles differ most from the float network, worst first."""
    reduced = [v for v in verified if v.bundle.bundle.manifest.precision != "fp32"] or verified
    contract, samples, classes = reference.contract, data.dataset.splits[data.eval_split], data.dataset.classes
    store, answers = data.learnt_from(data.eval_split, "instance"), reference.answers()
    shares = [min((v.frame_agreement[i] for v in reduced if v.frame_agreement[i] is not None), default=1.0) for i in range(len(samples))]
    sessions = {}
    for one in reduced:
        how = plan("host", one.bundle.bundle.manifest.format, one.bundle.bundle.manifest.precision)
        sessions[one.bundle.name] = open_session(one.bundle.bundle, how.runtime, how.options)
    pictures = []
    for i in sorted(range(len(samples)), key=lambda i: (shares[i], i))[:_NUM_PICTURES]:
        frame_HWC, label = store[i]
        frame_hw = (frame_HWC.shape[0], frame_HWC.shape[1])
        placement = contract.place(frame_hw)
        found = {name: at_least(find_instances(session, contract, frame_HWC), MIN_SCORE) for name, session in sessions.items()}
        float_found = at_least(to_frame_boxes(answers[i], placement), MIN_SCORE)
        pictures.append(ObjectPicture(
            id=samples[i].id,
            label=_small(draw(frame_HWC, shown_label(label, classes))),
            float_answer=_drawn(frame_HWC, float_found, classes),
            bundle_answers={name: _drawn(frame_HWC, objects, classes) for name, objects in found.items()},
            counts={"label": len(label.classes_N), "float": len(float_found), **{name: len(objects) for name, objects in found.items()}},
            note=f"lowest agreement with the float network: {shares[i]:.2%} of objects; drawn: scores of at least {MIN_SCORE}",
        ))
    for session in sessions.values():
        session.close()
    return pictures


def _drawn(frame_HWC: Frame, found: Instances, classes: tuple[str, ...]) -> Frame:
    return _small(draw(frame_HWC, shown_found(found, classes, (frame_HWC.shape[0], frame_HWC.shape[1]))))


def _small(frame_HWC: Frame) -> Frame:
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, _PICTURE_SIDE / max(height, width))
    return resize_frame(frame_HWC, max(1, round(height * scale)), max(1, round(width * scale)))
