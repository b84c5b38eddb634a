"""What was tried, in Optuna's journal file: one line of JSON an event, appended by every worker, never rewritten but for a torn end.

A line counts once its line feed is on disk. A process that dies while it appends, or a full disk, leaves a torn last line; whoever takes
the lock next cuts it off, so that no line is ever appended to half of another. The lock is a `flock`, which the kernel frees when its
holder dies (Optuna's own lock files would hold everybody up for 30 s).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

from edgeseg.core.errors import TrainingError
from edgeseg.core.files import parse_json
from edgeseg.core.lazy import require

_NAME: Final = "search"
_MAX_DIFFERENCES: Final = 3


class JournalLock:
    """A `BaseJournalFileLock` of Optuna that also mends the end of the journal before anybody appends to it."""

    def __init__(self, journal: Path, say: Callable[[str], None]) -> None:
        """Lock `journal` by a file beside it; `say` takes what was mended."""
        self._journal, self._say = journal, say
        self._stream: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Wait for the lock, then cut off a torn last line."""
        stream = self._journal.with_name(f"{self._journal.name}.lock").open("ab")
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        self._stream = stream
        cut = cut_torn_line(self._journal)
        if cut:
            self._say(f"{self._journal}: the last line was torn (a process died while it wrote it); its {cut} bytes were cut off")
        return True

    def release(self) -> None:
        """Free the lock."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def cut_torn_line(journal: Path) -> int:
    """Cut off what follows the last line feed; give how many bytes that were."""
    try:
        with journal.open("rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            end, chunk = size, b""
            while end > 0 and b"\n" not in chunk:
                start = max(0, end - 4096)
                stream.seek(start)
                chunk = stream.read(end - start)
                if b"\n" in chunk:
                    end = start + chunk.rindex(b"\n") + 1
                    break
                end = start
            if end < size:
                stream.truncate(end)
                stream.flush()
                os.fsync(stream.fileno())
            return size - end
    except FileNotFoundError:
        return 0


def check_lines(journal: Path, *, again: str = "edgeseg search --restart") -> None:
    """Read every line once, before Optuna does; see `open_study`.

    Raises:
        TrainingError: one is not JSON; names it.
    """
    try:
        lines = journal.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for number, line in enumerate(lines[:-1], start=1):
        try:
            event = parse_json(line.decode("utf-8"))
        except ValueError as error:
            raise TrainingError(_damaged(journal, number, len(lines) - 1, str(error), again)) from error
        if not isinstance(event, dict) or "op_code" not in event:
            raise TrainingError(_damaged(journal, number, len(lines) - 1, "no event of a search", again))


def _damaged(journal: Path, number: int, total: int, why: str, again: str) -> str:
    return (f"{journal} is damaged at line {number} of {total} ({why}); put a copy of it back, or begin again, which keeps finished "
            f"trainings, with: {again}")


def open_study(
    journal: Path, identity: Mapping[str, Any], *, say: Callable[[str], None], again: str = "edgeseg search --restart",
) -> Any:  # noqa: ANN401 - optuna.Study
    """Open the search of `journal`, or begin it; mIoU is maximised and p90 latency minimised. Call under the search's setup lock.

    `again` is the command that begins anew, for messages.

    Raises:
        TrainingError: the journal is damaged, or holds a search of another configuration (says what differs).
        MissingExtraError: Optuna is not installed.
    """
    optuna = require("optuna", extra="search")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lock = JournalLock(journal, say)
    lock.acquire()
    try:
        check_lines(journal, again=again)
    finally:
        lock.release()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal), lock_obj=lock))
    if any(study.study_name == _NAME for study in storage.get_all_studies()):
        study = optuna.load_study(study_name=_NAME, storage=storage)
    else:
        study = optuna.create_study(study_name=_NAME, storage=storage, directions=["maximize", "minimize"])
    was = study.user_attrs.get("identity")
    if was is None:
        study.set_user_attr("identity", dict(identity))
        return study
    different = [f"{key} was {was.get(key)!r}, now {identity.get(key)!r}" for key in sorted({*was, *identity})
                 if was.get(key) != identity.get(key)]
    if different:
        more = f" (and {len(different) - _MAX_DIFFERENCES} more)" if len(different) > _MAX_DIFFERENCES else ""
        raise TrainingError(f"{journal} is of another search: {'; '.join(different[:_MAX_DIFFERENCES])}{more}; set it back to go on, "
                            f"or begin again, which keeps finished trainings, with: {again}")
    return study
