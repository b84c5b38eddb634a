"""Cameras and streams: what is typed, FFmpeg's device layer (its test pictures in place of a camera), and a real RTSP server."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_bundle
from waiting_tools import comes_true

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.images import read_class_map
from targets.predict import PredictOptions, predict_source
from targets.runtimes import RuntimeOptions, Session, open_session
from targets.sources import SourceOptions, open_source, pyav
from targets.sources.base import Damage
from targets.sources.camera import camera_settings
from targets.sources.pyav import open_live
from targets.sources.rtsp import without_password

av = pytest.importorskip("av")

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
factory = GstRtspServer.RTSPMediaFactory()
shape = "video/x-raw,format=I420,width=64,height=48,framerate=20/1"
factory.set_launch(f"( videotestsrc is-live=true ! {shape} ! jpegenc ! rtpjpegpay name=pay0 )")
factory.set_shared(True)
server.get_mount_points().add_factory("/field", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


def has_server() -> bool:
    if not Path(SYSTEM_PYTHON).exists():
        return False
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, check=False, timeout=300).returncode == 0


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    if not has_server():
        pytest.skip("needs Debian's python3-gi, gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-base and -good")
    with subprocess.Popen([SYSTEM_PYTHON, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], 300)[0], "the server does not say its port"
            yield process, int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle", "null")


@pytest.fixture
def session(bundle: Bundle) -> Session:
    return open_session(bundle, "null", RuntimeOptions())


def test_what_is_typed_for_a_camera() -> None:
    assert camera_settings("/dev/video3") == ("/dev/video3", {})
    assert camera_settings("camera:0") == ("/dev/video0", {})
    assert camera_settings("camera:1:640x480@30") == ("/dev/video1", {"video_size": "640x480", "framerate": "30"})
    assert camera_settings("camera:1@15") == ("/dev/video1", {"framerate": "15"})
    with pytest.raises(ConfigError, match="type camera:0, camera:0:640x480"):
        camera_settings("camera:front")


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(InputMissingError, match="there is no camera /dev/video97"):
        open_source("camera:97")


def test_a_device_gives_frames_with_times() -> None:
    source = open_live("testsrc=size=64x48:rate=20", SourceOptions(), shown="test pictures", format="lavfi")
    frames = iter(source)
    got = [next(frames) for _ in range(3)]
    assert (source.live, source.count, source.fps) == ("test pictures", None, 20)
    assert [item.name for item in got] == ["000000", "000001", "000002"]
    assert [item.time_s for item in got] == pytest.approx([0, 0.05, 0.1])
    assert got[0].read().frame_HWC.shape == (48, 64, 3)


def test_frames_that_cannot_be_decoded_are_counted_and_leave_a_gap(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        for number in range(5):
            (packet,) = stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 50 * number, np.uint8), format="rgb24"))
            if number in (1, 2):
                broken = av.Packet(bytes(packet.size))
                broken.stream, broken.pts, broken.dts, broken.time_base = stream, packet.pts, packet.dts, packet.time_base
                packet = broken
            container.mux(packet)
    source = open_live(str(clip), SourceOptions(), shown="a stream")
    done = predict_source(session, bundle, source, tmp_path / "out", PredictOptions(drop="never", overlays=False))
    assert (done.num_frames, done.dropped, done.damaged) == (3, 0, 2)
    assert sorted(path.stem for path in done.masks.iterdir()) == ["000000", "000003", "000004"]


def lent_memory(format: str) -> list[Any]:
    """Pictures of a format, and packets, that somebody refers to."""
    kept = gc.get_objects()  # by type(): isinstance asks each object, and some of other libraries warn when they are asked
    pictures = [one for one in kept if issubclass(type(one), av.VideoFrame) and one.width and one.format.name == format]
    return [*pictures, *(one for one in kept if issubclass(type(one), av.Packet) and one.size)]


class Lent:
    """A container that lends its memory, as a camera's: when it is closed it notes which packets and pictures are left."""

    def __init__(self, container: Any, format: str, fails_after: int) -> None:
        self.container, self.format, self.fails_after = container, format, fails_after
        self.before = lent_memory(format)
        """What other tests of this process left."""
        self.left: list[object] | None = None

    def demux(self, stream: object) -> Iterator[Any]:
        for number, packet in enumerate(self.container.demux(stream)):
            if number == self.fails_after:
                raise av.error.FFmpegError(19, "No such device")
            yield packet
            del packet

    def close(self) -> None:
        self.left = [one for one in lent_memory(self.format) if all(one is not other for other in self.before)]
        self.container.close()


@pytest.mark.parametrize("format", ["yuyv422", "rgb24"])
@pytest.mark.parametrize("unplugged", [True, False])
def test_nothing_refers_to_a_camera_that_is_closed(format: str, unplugged: bool) -> None:
    container = av.open(f"testsrc=size=64x48:rate=100,format={format}", format="lavfi")
    lent = Lent(container, format, fails_after=3 if unplugged else 100)
    frames = pyav._live_frames(av, lent, container.streams[0], SourceOptions(), "camera:0", Damage())
    got = [next(frames) for _ in range(3)]
    if unplugged:
        with pytest.raises(InputMissingError, match="camera:0: lost after 3 frames"):
            next(frames)
    else:
        frames.close()  # type: ignore[attr-defined]
    assert lent.left == []
    assert [item.read().frame_HWC.shape for item in got] == [(48, 64, 3)] * 3  # those that wait are handed out all the same


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://me:se:cr@t@10.0.0.7:554/a?b=1") == "rtsp://10.0.0.7:554/a?b=1"
    with pytest.raises(InputMissingError) as caught:
        open_source("rtsp://me:secret@127.0.0.1:1/field")
    assert "secret" not in str(caught.value)
    assert "rtsp://127.0.0.1:1/field cannot be opened" in str(caught.value)


def test_a_stream_is_answered_until_enough(server: tuple[object, int], bundle: Bundle, session: Session, tmp_path: Path) -> None:
    source = f"rtsp://me:secret@127.0.0.1:{server[1]}/field"
    done = predict_source(session, bundle, source, tmp_path / "out", PredictOptions(max_frames=5, timeout_s=60))
    assert (done.num_frames, done.drop, done.live, done.lost) == (5, "oldest", f"rtsp://127.0.0.1:{server[1]}/field", None)
    assert len(list(done.masks.iterdir())) == 5
    assert done.overlays is not None
    again = list(open_source(done.overlays))
    assert len(again) == 5
    mask = read_class_map(sorted(done.masks.iterdir())[0])
    assert mask.shape == (48, 64)
    assert set(np.unique(mask).tolist()) == {0, 1, 2}  # bars of all brightnesses


def test_a_stream_that_is_not_there(server: tuple[object, int]) -> None:
    with pytest.raises(InputMissingError, match=r"/none cannot be opened \(.*404"):
        open_source(f"rtsp://127.0.0.1:{server[1]}/none", SourceOptions(timeout_s=60))


def test_a_server_that_hangs_ends_the_stream_and_leaves_everything_whole(bundle: Bundle, session: Session, tmp_path: Path,
                                                                         server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    source = open_live(f"rtsp://127.0.0.1:{port}/field", SourceOptions(timeout_s=60), shown="field", settings={"rtsp_flags": "prefer_tcp"})
    frames = iter(source)
    next(frames).read()
    frames.close()  # type: ignore[attr-defined]

    def hang(done: int, count: int | None, dropped: int) -> None:
        if done == 3:
            os.kill(process.pid, signal.SIGSTOP)

    start = time.monotonic()
    options = PredictOptions(timeout_s=6, drop="never")
    done = predict_source(session, bundle, f"rtsp://127.0.0.1:{port}/field", tmp_path / "out", options, on_frame=hang)
    os.kill(process.pid, signal.SIGCONT)
    assert time.monotonic() - start < 120
    assert done.num_frames >= 3
    assert isinstance(done.lost, InputMissingError)
    assert done.overlays is not None
    assert sum(1 for _ in open_source(done.overlays)) == done.num_frames == len(list(done.masks.iterdir()))
    assert comes_true(lambda: not any(thread.name == "edgeseg-infer" for thread in threading.enumerate()))
