"""The tasks, by the `task` of `[model]`: that of its network in `edgeseg.models.MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeseg.training.instance_task import InstanceTask
from edgeseg.training.task import SemanticTask, Task, TaskContext

TASKS: Final[dict[str, Callable[[TaskContext], Task]]] = {
    "semantic": SemanticTask,
    "instance": InstanceTask,
}
