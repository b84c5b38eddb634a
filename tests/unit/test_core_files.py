"""A killed or failed write leaves the old file or the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from edgeseg.core import files
from edgeseg.core.errors import BusyError, ConfigError, InputMissingError, NoPermissionError, OutputError, explain_os_error, users_path
from edgeseg.workflow.steps import Steps
from edgeseg.workflow.ui import Silent


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"v": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"v": float("nan")})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"v": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_killed_process_leaves_old_or_new_folder(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from edgeseg.core.files import atomic_folder
        n = 0
        while True:
            n += 1
            with atomic_folder(Path(sys.argv[1])) as folder:
                for i in range(5):
                    (folder / str(i)).write_text(str(n) * 2000)
            print(n, flush=True)
    """)
    target = tmp_path / "out"
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3):
                process.stdout.readline()
            process.kill()
        files.sweep_temporaries(tmp_path)
        if target.exists():  # between the two renames there is, for a moment, none
            texts = {(target / str(i)).read_text() for i in range(5)}
            assert len(texts) == 1
        assert {p.name for p in tmp_path.iterdir()} <= {"out"}


def test_second_holder_of_a_lock_is_told_who_has_it(tmp_path: Path) -> None:
    told = rf"in use by first \(pid {os.getpid()}\)"
    with (
        files.lock(tmp_path / ".lock", holder="first"),
        pytest.raises(BusyError, match=told),
        files.lock(tmp_path / ".lock", holder="second"),
    ):
        pass
    with files.lock(tmp_path / ".lock", holder="third"):
        pass


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, OutputError),
        (errno.EACCES, NoPermissionError),
        (errno.EROFS, NoPermissionError),
        (errno.ENOENT, InputMissingError),
        (errno.EIO, OutputError),
    ],
)
def test_os_errors_say_what_they_mean(number: int, kind: type) -> None:
    explained = explain_os_error(OSError(number, os.strerror(number), "some/path"), doing="writing")
    assert type(explained) is kind
    assert "some/path" in str(explained)


def test_an_error_without_a_file_or_with_many_is_one_line_too() -> None:
    assert str(explain_os_error(OSError(errno.ENOSPC, "no space"), doing="using")).startswith("disk full (df -h tells which one); free")
    many = shutil.Error([("a/x", "b/x", "[Errno 28] No space left on device: 'a/x' -> 'b/x'"), ("a/y", "b/y", "[Errno 28] No space")])
    explained = explain_os_error(many, doing="using")
    assert (type(explained), str(explained).partition(";")[0]) == (OutputError, "disk full while using b/x")
    assert str(explain_os_error(shutil.Error([("a", "b", "odd")]), doing="using")) == "odd while using a"


def test_what_cannot_be_copied_is_named_and_not_where_it_was_to_go(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "gone").symlink_to("nowhere")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    explained = explain_os_error(caught.value, doing="copying")
    assert (type(explained), str(explained)) == (InputMissingError, f"{tmp_path}/from/gone does not exist; check the spelling")
    for refused in ("a/x", "b/x"):
        error = shutil.Error([("a/x", "b/x", str(PermissionError(errno.EACCES, "Permission denied", refused)))])
        assert str(explain_os_error(error, doing="copying")).startswith(f"no permission while copying {refused};")


def test_step_is_redone_only_when_something_changed(tmp_path: Path) -> None:
    calls: list[str] = []

    def make(output: Path) -> None:
        calls.append("made")
        files.write_text(output, "content")

    def do(key: int) -> bool:
        return Steps(tmp_path, Silent()).do("s", kind="export", key={"k": key}, output=tmp_path / "s.txt", make=make).cached

    assert [do(1), do(1), do(2), do(2)] == [False, True, False, True]
    (tmp_path / "s.txt").write_text("edited by hand")
    assert [do(2), do(2)] == [False, True]
    (tmp_path / ".steps" / "s.json").write_text("{ cut in ha")
    assert [do(2), do(2)] == [False, True]
    assert len(calls) == 4
    only_train = Steps(tmp_path, Silent(), frozenset({"train"}))
    assert only_train.do("s", kind="export", key={"k": 2}, output=tmp_path / "s.txt", make=make).cached
    with pytest.raises(InputMissingError, match="edgeseg export"):
        only_train.do("s", kind="export", key={"k": 3}, output=tmp_path / "s.txt", make=make)


@pytest.mark.parametrize(("ours", "theirs"), [
    ("runs/a/.edgeseg.toml.123.tmp", "runs/a/edgeseg.toml"),
    ("/data/.bundle.77.tmp/golden/0.png", "/data/bundle"),
    ("/data/.bundle.77.old", "/data/bundle"),
    ("/home/u/.downloads/camvid.zip.part", "/home/u"),
    (".downloads/camvid.lock", "."),
    ("runs/a/work/.export-ab12cd_3.tmp/model.onnx", "runs/a/work"),
    (f"{tempfile.gettempdir()}/edgeseg-import-a1b2c3d4/model.onnx", f"the temporary folder {tempfile.gettempdir()} (TMPDIR names another)"),
    ("/home/u/edgeseg-data-20240101/img/a.png", "/home/u/edgeseg-data-20240101/img/a.png"),
    ("/home/u/edgeseg-demo/data/a.png", "/home/u/edgeseg-demo/data/a.png"),
    ("/home/u/.config/x.tmp", "/home/u/.config/x.tmp"),
])
def test_messages_name_the_path_a_person_gave(ours: str, theirs: str) -> None:
    assert users_path(ours) == theirs
    assert theirs in str(explain_os_error(OSError(errno.ENOSPC, "no space", ours), doing="writing"))


def test_where_caches_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert files.cache_root({"EDGESEG_CACHE": "/data", "XDG_CACHE_HOME": "/x"}) == Path("/data")
    assert files.cache_root({"EDGESEG_CACHE": "~/data"}) == Path("/home/me/data")
    assert files.cache_root({"XDG_CACHE_HOME": "/x"}) == Path("/x/edgeseg")
    assert files.cache_root({"EDGESEG_CACHE": ""}) == Path("/home/me/.cache/edgeseg")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)  # as a container may set any number
    with pytest.raises(ConfigError, match="set EDGESEG_CACHE to a folder"):
        files.cache_root({})


def test_pythons_own_sha256_and_that_of_openssl_give_the_same(tmp_path: Path) -> None:
    data = bytes(range(256)) * ((5 << 20) // 256)
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "small").write_bytes(data[:100_001])
    (tmp_path / "empty").write_bytes(b"")
    code = """
        import sys
        from pathlib import Path
        from edgeseg.core.files import sha256_bytes, sha256_file
        print(sha256_file(Path("empty")), sha256_file(Path("small")), "_hashlib" in sys.modules)
        print(sha256_file(Path("large")), sha256_file(Path("small")), sha256_bytes(b""))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, check=True)
    large, small, empty = (hashlib.sha256(part).hexdigest() for part in (data, data[:100_001], b""))
    assert done.stdout.split() == [empty, small, "False", large, small, empty]
