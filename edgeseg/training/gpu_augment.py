"""The training crops of `edgeseg.data.augment`, cut on a GPU, a batch at a time, out of frames that lie there as uint8.

The choices are drawn on the host, from the same numbers: the same crop of the same frame as on a CPU. Pixels differ by a level or two,
since values are rounded in other places, and a blur is a true Gaussian here (Pillow's is three box filters).

Resizing is two matrix products a frame, rows x frame x columns, whose factors hold the weights of Pillow's antialiased bilinear filter:
`grid_sample` does not antialias. Labels are gathered, never interpolated.

Legend: F = frames of the store, N = frames of a batch, H/W = rows/columns of the largest frame, R/S = of the region that is cut,
h/w = of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.core.config import AugmentSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.data.augment import View, colour_matrix, draw, look
from edgeseg.data.loader import augmentation_generator, batches_per_epoch, epoch_order, prepared, slice_positions
from edgeseg.data.store import FrameStore

BYTES_PER_PIXEL: Final = 4
SHARE: Final = 0.4
"""Of a GPU's free memory that training frames may take; the rest is for the network's activations."""
_GRAY: Final = 114.0
"""Outside the frame, as in `edgeseg.data.augment`."""
_LUMA: Final = (0.299, 0.587, 0.114)
_TAPS: Final = 5
"""Pixels on each side that a blur reads: more than three sigma of the widest, 1.5."""


class DeviceFrames:
    """Every frame of a store and its label, uint8, decoded once and kept on `device`; smaller frames are padded to the largest."""

    def __init__(self, store: FrameStore, device: torch.device) -> None:
        self.sizes_hw = [(label.shape[0], label.shape[1]) for _, label in store]
        self.ids = tuple(sample.id for sample in store.samples)
        H, W = _largest(self.sizes_hw)
        # Planes, not pixels: both products then run along contiguous rows.
        self.frames_F3HW = torch.empty((len(store), 3, H, W), dtype=torch.uint8, device=device)
        self.labels_FHW = torch.empty((len(store), H, W), dtype=torch.uint8, device=device)
        for i, (frame_HWC, label_HW) in enumerate(store):
            h, w = label_HW.shape
            self.frames_F3HW[i, :, :h, :w] = torch.from_numpy(np.ascontiguousarray(frame_HWC.transpose(2, 0, 1))).to(device)
            self.labels_FHW[i, :h, :w] = torch.from_numpy(np.array(label_HW)).to(device)

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.sizes_hw)

    @staticmethod
    def size_bytes(store: FrameStore) -> int:
        """Bytes that the frames of `store` would take on a device."""
        H, W = _largest([(label.shape[0], label.shape[1]) for _, label in store])
        return BYTES_PER_PIXEL * len(store) * H * W


def kept_on_gpu(store: FrameStore, device: torch.device) -> DeviceFrames | None:
    """Keep the frames on the GPU where they take at most `SHARE` of its free memory; else, and on a CPU, `None`."""
    if device.type != "cuda" or not len(store):
        return None
    free_bytes, _ = torch.cuda.mem_get_info()
    return DeviceFrames(store, device) if DeviceFrames.size_bytes(store) <= SHARE * free_bytes else None


def _largest(sizes_hw: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return max(h for h, _ in sizes_hw), max(w for _, w in sizes_hw)


@dataclass(frozen=True)
class DeviceBatch:
    """`frames_NHWC` and `labels_NHW`, uint8 on the device, and the samples they were cut from."""

    frames_NHWC: Tensor
    labels_NHW: Tensor
    ids: tuple[str, ...]


def device_batches(
    frames: DeviceFrames, *, seed: int, epoch: int, batch_size: int, crop_hw: tuple[int, int], section: AugmentSection,
    model_hw: tuple[int, int], resize: str, part: tuple[int, int] = (0, 1),
) -> Iterator[DeviceBatch]:
    """Give the batches of one epoch: frames, order and crops as `edgeseg.data.loader.batches`, whose arguments these are."""
    order = epoch_order(len(frames), seed=seed, epoch=epoch)
    device = frames.frames_F3HW.device

    def plan(number: int) -> tuple[list[int], list[View]]:
        positions = slice_positions(number, batch_size, part)
        picks = [order[position % len(order)] for position in positions]
        views = [
            look(draw(section, augmentation_generator(seed, epoch=epoch, position=position)), frame_hw=frames.sizes_hw[pick],
                 crop_hw=crop_hw, model_hw=model_hw, resize=resize)
            for position, pick in zip(positions, picks, strict=True)
        ]
        return picks, views

    for picks, views in prepared(plan, batches_per_epoch(len(frames), batch_size), num_workers=1):
        index_N = sent(np.array(picks, dtype=np.int64), device)
        sizes_hw = [frames.sizes_hw[pick] for pick in picks]
        crops, labels = cut(frames.frames_F3HW[index_N], frames.labels_FHW[index_N], views, sizes_hw)
        yield DeviceBatch(crops, labels, tuple(frames.ids[pick] for pick in picks))


def sent(array: NDArray[Any], device: torch.device) -> Tensor:
    """Give `array` as a tensor on `device`; to a GPU without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def cut(frames_N3HW: Tensor, labels_NHW: Tensor, views: Sequence[View], sizes_hw: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Cut a crop out of each frame: uint8 [N, h, w, 3] and labels uint8 [N, h, w], 255 where no frame is.

    Args:
        frames_N3HW: uint8; what lies below and right of a frame's own size is never read.
        labels_NHW: uint8.
        views: where and how to cut, one a frame; all of one crop size.
        sizes_hw: rows and columns of each frame.
    """
    values = sent(np.array([_values(view, size) for view, size in zip(views, sizes_hw, strict=True)]), frames_N3HW.device)
    region_hw = (max(view.region_hw[0] for view in views), max(view.region_hw[1] for view in views))
    rows, columns = _axis(values[:, 0:6], region_hw[0]), _axis(values[:, 6:12], region_hw[1])
    x_N3RS = _resized(frames_N3HW, rows, columns)
    x_N3RS = _recoloured(x_N3RS, rows, columns, values)
    blurred = [i for i, view in enumerate(views) if view.choice.blur_radius > 0]
    if blurred:
        at = torch.tensor(blurred).to(x_N3RS.device, non_blocking=True)
        x_N3RS = x_N3RS.index_copy(0, at, _blurred(x_N3RS[at], values[at, 12]))
    inside_NRS = rows.inside_NO.unsqueeze(2) & columns.inside_NO.unsqueeze(1)
    x_N3RS = x_N3RS.where(inside_NRS.unsqueeze(1), _GRAY)
    number_N11 = torch.arange(len(views), device=x_N3RS.device).view(-1, 1, 1)
    y_NRS = labels_NHW[number_N11, rows.nearest_NO.unsqueeze(2), columns.nearest_NO.unsqueeze(1)].where(inside_NRS, IGNORE_INDEX)
    if any(view.choice.rotate_deg != 0 for view in views):
        x_N3RS, y_NRS = _turned(x_N3RS, y_NRS, values, views[0].crop_hw)
    for column, dim in ((13, -1), (14, -2)):
        flip_N = values[:, column] > 0
        x_N3RS = torch.where(flip_N.view(-1, 1, 1, 1), x_N3RS.flip(dim), x_N3RS)
        y_NRS = torch.where(flip_N.view(-1, 1, 1), y_NRS.flip(dim), y_NRS)
    return x_N3RS.to(torch.uint8).permute(0, 2, 3, 1).contiguous(), y_NRS


def _values(view: View, size_hw: tuple[int, int]) -> list[float]:
    """All numbers of a view in one row, so that a batch's go to the device in one copy."""
    choice = view.choice
    unit = colour_matrix(choice, np.ones(3))  # the offset is linear in the mean, whose luma is 1 here
    axes: list[float] = []
    for axis in (0, 1):
        low, high = (np.float32(view.box[side - axis]) for side in (1, 3))  # as Pillow holds a box
        axes += [view.part_yx[axis], view.part_hw[axis], float(low), float(high - low), view.read_yx[axis].start, size_hw[axis]]
    radians = math.radians(choice.rotate_deg)
    return [
        *axes, choice.blur_radius, float(choice.flip), float(choice.flip_vertical), math.cos(radians), math.sin(radians),
        *view.region_hw, *unit[:, :3].reshape(-1), *unit[:, 3],
    ]


@dataclass(frozen=True)
class _Axis:
    """How the rows (or columns) of the region come from those of the frame; those outside the part show its nearest."""

    centre_NO: Tensor
    """Where in the frame each lies, float64, in pixels, edges at integers."""
    step_N1: Tensor
    """Rows of the frame that one stands for."""
    size_N1: Tensor
    """Rows of the frame."""
    nearest_NO: Tensor
    """Row of the frame that a label is read from, int64."""
    inside_NO: Tensor
    """Whether the frame is there."""
    sampled_NO: Tensor
    """Every eighth of the part, which the mean colour is taken of."""

    def weights(self, in_size: int, dtype: torch.dtype) -> Tensor:
        """Pillow's bilinear filter [N, out, in]: a triangle of the width of an output pixel, at least of an input pixel; sums to 1."""
        width_N11 = self.step_N1.float().clamp(min=1).unsqueeze(2)
        middle_I = torch.arange(in_size, device=width_N11.device) + 0.5
        weights_NOI = (1 - (middle_I - self.centre_NO.float().unsqueeze(2)).abs() / width_N11).clamp(min=0)
        weights_NOI = weights_NOI * (middle_I < self.size_N1.unsqueeze(2))
        return (weights_NOI / weights_NOI.sum(dim=2, keepdim=True)).to(dtype)


def _axis(values_N6: Tensor, out_size: int) -> _Axis:
    start_N1, part_N1, low_N1, span_N1, first_N1, size_N1 = (column.unsqueeze(1) for column in values_N6.unbind(1))
    offset_NO = torch.arange(out_size, device=values_N6.device, dtype=torch.float64) - start_N1
    inside_NO = (offset_NO >= 0) & (offset_NO < part_N1)
    shown_NO = torch.minimum(offset_NO.clamp(min=0), part_N1 - 1)
    step_N1 = span_N1 / part_N1
    centre_NO = first_N1 + low_N1 + (shown_NO + 0.5) * step_N1
    # Pillow adds the step up from pixel to pixel, which decides where a centre lies on the border of two.
    walked_NO = torch.cat([low_N1 + 0.5 * step_N1, step_N1.expand(-1, out_size - 1)], dim=1).cumsum(dim=1)
    nearest_NO = torch.minimum(first_N1 + walked_NO.gather(1, shown_NO.long()).floor(), size_N1 - 1).long()
    return _Axis(centre_NO, step_N1, size_N1, nearest_NO, inside_NO, inside_NO & (offset_NO % 8 == 0))


def _resized(frames_N3HW: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    """Levels 0..255 in float32, [N, 3, R, S]. On a GPU in fp16, which holds them to 1/8 at least; sums are fp32 there."""
    dtype = torch.float32 if frames_N3HW.device.type == "cpu" else torch.float16
    H, W = frames_N3HW.shape[2:]
    x_N3RW = rows.weights(H, dtype).unsqueeze(1) @ frames_N3HW.to(dtype)
    x_N3RS = x_N3RW @ columns.weights(W, dtype).transpose(1, 2).unsqueeze(1)
    return _levels(x_N3RS.float())


def _levels(x: Tensor) -> Tensor:
    return (x + 0.5).floor().clamp(0, 255)


def _recoloured(x_N3RS: Tensor, rows: _Axis, columns: _Axis, values: Tensor) -> Tensor:
    """Apply the 3x4 colour matrix, whose offset hangs on the mean luma of the part."""
    linear_N33, offset_N3 = values[:, 19:28].float().view(-1, 3, 3), values[:, 28:31].float()
    row_NR, column_NS = rows.sampled_NO.float(), columns.sampled_NO.float()
    sums_N3 = torch.einsum("ncrs,nr,ns->nc", x_N3RS, row_NR, column_NS)
    mean_N3 = sums_N3 / (row_NR.sum(1) * column_NS.sum(1)).unsqueeze(1)
    luma_N1 = (mean_N3 * torch.tensor(_LUMA, device=x_N3RS.device)).sum(1, keepdim=True)
    coloured = torch.einsum("nij,njrs->nirs", linear_N33, x_N3RS) + (offset_N3 * luma_N1).unsqueeze(2).unsqueeze(3)
    return _levels(coloured)


def _blurred(x_B3RS: Tensor, sigma_B: Tensor) -> Tensor:
    """Gaussian blur, each frame with its own sigma in pixels; edges are repeated."""
    B, _, R, S = x_B3RS.shape
    at_T = torch.arange(-_TAPS, _TAPS + 1, device=x_B3RS.device, dtype=torch.float32)
    kernel_BT = torch.exp(-0.5 * (at_T / sigma_B.float().unsqueeze(1)) ** 2)
    kernel_BT = kernel_BT / kernel_BT.sum(1, keepdim=True)
    planes = F.pad(x_B3RS.reshape(1, B * 3, R, S), (_TAPS,) * 4, mode="replicate")
    filters = kernel_BT.repeat_interleave(3, dim=0)
    planes = F.conv2d(planes, filters.view(B * 3, 1, -1, 1), groups=B * 3)
    planes = F.conv2d(planes, filters.view(B * 3, 1, 1, -1), groups=B * 3)
    return _levels(planes.view(B, 3, R, S))


def _turned(x_N3RS: Tensor, y_NRS: Tensor, values: Tensor, crop_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Turn about the middle of each frame's own region and cut the middle; what leaves the region gets gray and 255."""
    h, w = crop_hw
    R, S = y_NRS.shape[1:]
    cos, sin, region_h, region_w = (values[:, i].view(-1, 1, 1) for i in range(15, 19))
    down = torch.arange(h, device=values.device, dtype=torch.float64).view(1, -1, 1) + 0.5 - h / 2
    right = torch.arange(w, device=values.device, dtype=torch.float64).view(1, 1, -1) + 0.5 - w / 2
    x_Nhw, y_Nhw = cos * right + sin * down + region_w / 2, -sin * right + cos * down + region_h / 2
    inside_Nhw = (x_Nhw >= 0) & (x_Nhw < region_w) & (y_Nhw >= 0) & (y_Nhw < region_h)
    grid_Nhw2 = torch.stack([2 * x_Nhw / S - 1, 2 * y_Nhw / R - 1], dim=-1).float()
    turned = _levels(F.grid_sample(x_N3RS, grid_Nhw2, mode="bilinear", padding_mode="border", align_corners=False))
    column, row = x_Nhw.floor().long().clamp(0, S - 1), y_Nhw.floor().long().clamp(0, R - 1)
    number_N11 = torch.arange(len(y_NRS), device=values.device).view(-1, 1, 1)
    labels = y_NRS[number_N11, row, column].where(inside_Nhw, IGNORE_INDEX)
    return turned.where(inside_Nhw.unsqueeze(1), _GRAY), labels
