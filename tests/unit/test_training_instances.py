"""Learning to find objects: who learns from what, the five losses, and that a tiny Mask R-CNN learns eight frames by heart."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from shapes_tools import CLASSES, draw_shapes, shapes_data
from torch import Tensor, nn

from edgeseg.core.config import AugmentSection, Config, DataSection, ModelSection, TrainSection
from edgeseg.core.errors import DataError
from edgeseg.core.instances import InstanceLabel, Instances
from edgeseg.core.manifest import Contract
from edgeseg.core.paste import paste
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.objects import instance_label
from edgeseg.models.mask_rcnn import build
from edgeseg.models.mask_rcnn.boxes import encode
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.instance_evaluate import evaluate_instances
from edgeseg.training.instance_losses import box_losses, mask_loss, mask_targets, proposal_losses
from edgeseg.training.instance_matching import Matched, Objects, Place, match, objects_of, sample
from edgeseg.training.instance_task import InstanceTask, InstanceTaskBatch
from edgeseg.training.loop import TrainProgress, fit
from edgeseg.training.step import Stepper
from edgeseg.training.task import TaskContext

HW = (64, 96)
CPU = torch.device("cpu")
MODEL = ModelSection(name="mask_rcnn", encoder="mobilenet_v3_small", width=0.25, max_instances=10)
STILL = AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0)


def objects(boxes: list[list[float]], crowds: list[list[float]] | None = None) -> Objects:
    return Objects(
        torch.tensor(boxes).reshape(-1, 4), torch.arange(1, len(boxes) + 1), torch.zeros(len(boxes), 1, 1, dtype=torch.uint8),
        torch.tensor(crowds or []).reshape(-1, 4),
    )


# ------------------------------------------------------------------ matching and sampling


def test_matching_by_overlap_and_the_best_of_each_object() -> None:
    wanted = objects([[0, 0, 10, 10], [20, 0, 30, 10]])
    candidates = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 5], [20, 0, 24, 10], [20, 6, 30, 10], [50, 50, 60, 60]])
    matched = match(candidates, wanted, above=0.7, below=0.3, best_too=True)
    assert matched.positive_A.tolist() == [True, False, True, True, False]  # both of the second object's best, at IoU 0.4
    assert matched.negative_A.tolist() == [False, False, False, False, True]
    assert matched.object_A.tolist()[:4] == [0, 0, 1, 1]
    strict = match(candidates, wanted, above=0.7, below=0.3, best_too=False)
    assert strict.positive_A.tolist() == [True, False, False, False, False]


def test_what_lies_in_a_crowd_is_not_background() -> None:
    candidates = torch.tensor([[50.0, 50, 60, 60], [80, 80, 90, 90], [55, 50, 65, 60]])
    for boxes in ([], [[0.0, 0, 10, 10]]):
        matched = match(candidates, objects(boxes, [[40, 40, 61, 70]]), above=0.5, below=0.5, best_too=False)
        assert not matched.positive_A.any()
        assert matched.negative_A.tolist() == [False, True, False]


def test_samples_are_of_one_number_positives_first() -> None:
    positive = torch.zeros(100, dtype=torch.bool)
    positive[:30] = True
    matched = Matched(torch.zeros(100, dtype=torch.long), positive, ~positive & (torch.arange(100) < 90))
    drawn = sample(matched, Place(0, 0, 0).numbers(3, 100, CPU), count=40, most_positive=10)
    assert drawn.positive_S.tolist() == [True] * 10 + [False] * 30 and bool(drawn.used_S.all())
    assert bool(positive[drawn.index_S[:10]].all()) and bool(matched.negative_A[drawn.index_S[10:]].all())
    assert len(set(drawn.index_S.tolist())) == 40
    few = sample(matched, Place(0, 0, 0).numbers(3, 100, CPU), count=100, most_positive=10)
    assert int(few.used_S.sum()) == 10 + 60 and not few.used_S[70:].any()


def test_random_numbers_belong_to_a_place() -> None:
    first = Place(3, 1, 5).numbers(3, 8, CPU)
    assert torch.equal(first, Place(3, 1, 5).numbers(3, 8, CPU))
    for other, purpose in ((Place(4, 1, 5), 3), (Place(3, 2, 5), 3), (Place(3, 1, 6), 3), (Place(3, 1, 5), 4)):
        assert not torch.equal(first, other.numbers(purpose, 8, CPU))


# ------------------------------------------------------------------ losses


def test_proposal_losses_by_hand() -> None:
    scores, positive, used = torch.tensor([0.0, 2.0, 9.0]), torch.tensor([True, False, False]), torch.tensor([True, True, False])
    deltas, wanted = torch.tensor([[0.05, 0, 0, 1.0], [9, 9, 9, 9], [9, 9, 9, 9.0]]), torch.zeros(3, 4)
    wanted[2] = float("nan")  # of a filler, which counts for nothing
    about, where = proposal_losses(scores, deltas, positive, used, wanted)
    assert float(about) == pytest.approx((np.log(2) + np.log(1 + np.exp(2))) / 2)
    assert float(where) == pytest.approx((0.05**2 * 9 / 2 + (1 - 1 / 18)) / 2)  # smooth L1 with its bend at 1/9


def test_box_losses_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0], [0.0, 0.0], [5.0, 5.0]])
    classes, used = torch.tensor([1, 0, 0]), torch.tensor([True, True, False])
    about, where = box_losses(scores, torch.full((3, 4), 0.5), classes, used, torch.zeros(3, 4))
    assert float(about) == pytest.approx((np.log(1 + np.exp(-2)) + np.log(2)) / 2)
    assert float(where) == pytest.approx(4 * 0.125 / 2)


def test_mask_loss_by_hand_and_with_no_positive() -> None:
    masks, wanted = torch.zeros(2, 28, 28), torch.ones(2, 28, 28)
    masks[0] = 1.0
    assert float(mask_loss(masks, wanted, torch.tensor([True, False]))) == pytest.approx(np.log(1 + np.exp(-1)))
    assert float(mask_loss(masks, wanted, torch.tensor([False, False]))) == 0


def test_mask_targets_are_what_pasting_turns_back_into_the_mask() -> None:
    _, label = draw_shapes(3, HW)
    wanted = objects_of(label, CPU)
    count = len(label.classes_N)
    targets = mask_targets(wanted.masks_GHW, torch.arange(count), wanted.boxes_G4, 28)
    found = Instances(
        boxes_K4=label.boxes_N4, scores_K=np.ones(count, np.float32), classes_K=label.classes_N,
        masks_Khw=(targets * 255 + 0.5).byte().numpy(),
    )
    for patch, mask in zip(paste(found, HW), label.masks_NHW, strict=True):
        assert (patch.on(HW) != mask).sum() <= 0.02 * mask.sum()


def test_mask_targets_beyond_the_frame_and_in_part_of_the_object() -> None:
    mask = torch.zeros(1, 10, 10, dtype=torch.uint8)
    mask[0, :, 5:] = 1
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 2, 10, 8], [0, 0, 5, 10]])
    targets = mask_targets(mask, torch.zeros(3, dtype=torch.long), boxes, 28)
    assert targets[0, 14].round().tolist() == [0.0] * 14 + [1.0] * 14
    assert bool((targets[1] > 0.49).all()) and bool((targets[2] < 0.51).all())


# ------------------------------------------------------------------ the task


def context_of(folder: Path, *, epochs: int = 1, batch_size: int = 4, **train: object) -> TaskContext:
    data, stores = shapes_data(folder, HW)
    section = TrainSection(
        epochs=epochs, batch_size=batch_size, lr=2e-3, ema=0.0, precision="fp32", device="cpu", clip_norm=5.0, warmup_epochs=1.0,
    )
    config = Config(data=DataSection(size=HW), model=MODEL, augment=STILL, train=dataclasses.replace(section, **train))  # type: ignore[arg-type]
    contract = Contract(height=HW[0], width=HW[1], task="instance", max_instances=MODEL.max_instances)
    return TaskContext(data=data, config=config, stores=stores, contract=contract, device=CPU, precision="fp32")


def network() -> nn.Module:
    torch.manual_seed(0)
    return build(MODEL, len(CLASSES))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> InstanceTask:
    return InstanceTask(context_of(tmp_path_factory.mktemp("shapes")))


def first_batch(task: InstanceTask) -> InstanceTaskBatch:
    batch = next(iter(task.batches(0).stream))
    assert isinstance(batch, InstanceTaskBatch)
    return batch


def with_frozen_norms(net: nn.Module) -> nn.Module:
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return net


def test_the_loss_of_a_batch_is_the_mean_of_its_slices(task: InstanceTask) -> None:
    net, batch = with_frozen_norms(network()), first_batch(task)
    slices = [
        InstanceTaskBatch(batch.frames_NHWC[i : i + 2], batch.objects[i : i + 2], batch.places[i : i + 2], batch.ids[i : i + 2])
        for i in (0, 2)
    ]
    whole = task.loss(net, batch)
    torch.testing.assert_close(torch.stack([task.loss(net, part) for part in slices]).mean(), whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(whole, task.loss(net, batch)), "the draw must not depend on what was drawn before"


def test_every_parameter_gets_a_gradient_even_from_frames_without_objects(task: InstanceTask) -> None:
    batch = first_batch(task)
    nothing = InstanceLabel(
        boxes_N4=np.zeros((0, 4), np.float32), classes_N=np.zeros(0, np.int64), masks_NHW=np.zeros((0, *HW), bool),
        crowd_N=np.zeros(0, bool),
    )
    for some in (batch, dataclasses.replace(batch, objects=tuple(objects_of(nothing, CPU) for _ in batch.objects))):
        net = network().train()
        loss = task.loss(net, some)
        loss.backward()  # type: ignore[no-untyped-call]
        assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []
        assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)


def test_perfect_answers_cost_next_to_nothing(task: InstanceTask) -> None:
    """The losses ask for what inference decodes: with the offsets and scores they want, the second stage's loss vanishes."""
    boxes, wanted = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[2.0, 1, 18, 25]])
    deltas = encode(boxes, wanted, (10.0, 5.0))
    about, where = box_losses(torch.tensor([[-20.0, 20.0]]), deltas, torch.tensor([1]), torch.tensor([True]), deltas)
    assert float(about) < 1e-6 and float(where) == 0


def test_no_labelled_object_is_an_error(tmp_path: Path, task: InstanceTask) -> None:
    _, (store, _) = shapes_data(tmp_path, HW, count=1)
    _, label = store[0]
    crowds = dataclasses.replace(label, crowd_N=np.ones_like(label.crowd_N))
    only_crowds = dataclasses.replace(store.samples[0], read_instances=lambda: crowds)
    empty = InstanceStore([only_crowds], num_classes=3, memory_limit_mb=10)
    with pytest.raises(DataError, match="no object is labelled"):
        evaluate_instances(lambda _: pytest.fail("asked"), empty, task.context.contract)


def test_labels_answered_score_1(task: InstanceTask, tmp_path: Path) -> None:
    _, (store, _) = shapes_data(tmp_path, HW)
    answers = {frame.tobytes(): label for frame, label in store}

    def labelled(frame: np.ndarray) -> Instances:
        label = answers[frame.tobytes()]
        wanted = objects_of(label, CPU)
        masks: Tensor = mask_targets(wanted.masks_GHW, torch.arange(len(label.classes_N)), wanted.boxes_G4, 28)
        return Instances(boxes_K4=label.boxes_N4, scores_K=np.ones(len(masks), np.float32), classes_K=label.classes_N,
                         masks_Khw=(masks * 255 + 0.5).byte().numpy())

    score = evaluate_instances(labelled, store, task.context.contract)
    assert score.ap50 == pytest.approx(1.0) and score.ap > 0.98


def test_a_val_split_without_objects_is_refused_before_the_first_step(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    bare = dataclasses.replace(context.data.splits["val"][0], read_instances=partial(instance_label, HW, []))
    val = InstanceStore((bare,), num_classes=len(CLASSES), memory_limit_mb=10)
    with pytest.raises(DataError, match="no object of val is labelled"):
        InstanceTask(dataclasses.replace(context, stores=(context.stores[0], val)))


@pytest.mark.slow
def test_learns_eight_frames_by_heart(tmp_path: Path) -> None:
    context = context_of(tmp_path, epochs=25)
    task = InstanceTask(context)
    stepper = Stepper(network(), task, context)
    step, total = 0, 50
    for epoch in range(25):
        stepper.net.train()
        for batch in task.batches(epoch).stream:
            stepper.step(batch, step=step, lr=2e-3 * min(1, (step + 1) / 8) * (1 - step / total))
            step += 1
        stepper.finish_epoch()
    result = task.validate(stepper.kept)
    assert result.metrics["val_ap50"] >= 0.8 and result.metric == "mask AP" and result.score == result.metrics["val_ap"]


class Stopped(Exception):
    pass


def fitted(folder: Path, out: Path, *, resume: bool = False, stop_at: int = -1) -> dict[str, Tensor]:
    """Train through the loop that `edgeseg train` uses; give the weights it kept."""
    torch.set_num_threads(1)
    context = context_of(folder, epochs=2, batch_size=2, eval_every=2)
    config = dataclasses.replace(context.config, augment=AugmentSection())
    stores = tuple(InstanceStore(context.data.splits["train"][:count], num_classes=3, memory_limit_mb=10) for count in (4, 2))

    def on_progress(now: TrainProgress) -> None:
        if now.step == stop_at:
            raise Stopped

    fit(network(), context.data, config, out, stores=(stores[0], stores[1]), contract=context.contract, resume=resume,
        on_progress=on_progress)
    return load_checkpoint(out / "best")[0].state_dict()


def test_a_training_that_was_stopped_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "data", tmp_path / "whole")
    with pytest.raises(Stopped):
        fitted(tmp_path / "data", tmp_path / "stopped", stop_at=3)
    again = fitted(tmp_path / "data", tmp_path / "stopped", resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
