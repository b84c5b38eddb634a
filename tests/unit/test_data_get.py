"""`edgeseg data get` against a real HTTP server that cuts, stalls, refuses and lies."""

from __future__ import annotations

import io
import os
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DownloadError, OutputError
from edgeseg.data.dataset import load_dataset
from edgeseg.data.get import pack_isbi2012
from edgeseg.data.get.get import get_dataset
from edgeseg.data.get.sources import SOURCES, Source
from edgeseg.data.get.transfer import download

PAYLOAD = np.random.default_rng(3).integers(0, 256, 400_000, dtype=np.uint8).tobytes()


@dataclass
class Site:
    """What the server holds and how it behaves; `behave` may take an answer over (request number, handler) -> done."""

    payload: bytes = PAYLOAD
    etag: str | None = '"one"'
    ranges: bool = True
    behave: Callable[[int, BaseHTTPRequestHandler], bool] = lambda number, handler: False
    seen: list[str | None] = field(default_factory=list)
    url: str = ""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            site.seen.append(asked)
            if site.behave(len(site.seen), self):
                return
            start = 0
            if asked and site.ranges and self.headers.get("If-Range") == site.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            send(self, site, start)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def send(handler: BaseHTTPRequestHandler, site: Site, start: int = 0, *, stop: int | None = None, said: int | None = None) -> None:
    """Answer with payload[start:stop]; `said` replaces where the bytes are said to start."""
    handler.send_response(206 if start or said else 200)
    handler.send_header("Content-Length", str(len(site.payload) - start))
    if site.etag:
        handler.send_header("ETag", site.etag)
    if start or said:
        handler.send_header("Content-Range", f"bytes {start if said is None else said}-{len(site.payload) - 1}/{len(site.payload)}")
    handler.end_headers()
    handler.wfile.write(site.payload[start:stop])


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(made))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/set.zip"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(site: Site, folder: Path, **options: object) -> Path:
    return download(site.url, folder / "set.zip", **{"sleep": lambda _: None, "stall_s": 60.0, **options})  # type: ignore[arg-type]


def test_whole(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    assert fetch(site, tmp_path, progress=lambda done, total: seen.append((done, total))).read_bytes() == PAYLOAD
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]
    fetch(site, tmp_path)
    assert len(site.seen) == 1, "what is there is not fetched again"


def test_cut_again_and_again_still_ends(site: Site, tmp_path: Path) -> None:
    def cut(number: int, handler: BaseHTTPRequestHandler) -> bool:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        if start + 50_000 < len(PAYLOAD):
            send(handler, site, start, stop=start + 50_000)
            return True
        return False

    site.behave = cut
    assert fetch(site, tmp_path).read_bytes() == PAYLOAD
    assert len(site.seen) == 8
    assert site.seen[1] == "bytes=50000-"


def test_goes_on_in_another_process(site: Site, tmp_path: Path) -> None:
    def cut(number: int, handler: BaseHTTPRequestHandler) -> bool:
        if number == 1:
            send(handler, site, stop=100_000)
        else:
            handler.send_error(503)
        return True

    site.behave = cut
    with pytest.raises(DownloadError, match=r"503 .*5 times in a row; 0\.1 MB are kept"):
        fetch(site, tmp_path)
    site.behave = lambda number, handler: False
    assert fetch(site, tmp_path).read_bytes() == PAYLOAD
    assert site.seen[-1] == "bytes=100000-"


def test_a_stall_is_given_up_and_tried_again(site: Site, tmp_path: Path) -> None:
    release = threading.Event()

    def stall(number: int, handler: BaseHTTPRequestHandler) -> bool:
        if number == 1:
            send(handler, site, stop=10_000)
            release.wait(60)
            return True
        return False

    site.behave = stall
    try:
        assert fetch(site, tmp_path, stall_s=4.0).read_bytes() == PAYLOAD
    finally:
        release.set()
    assert site.seen == [None, "bytes=10000-"]


@pytest.mark.parametrize("why", ["no ranges", "another file now", "nothing to compare by"])
def test_begins_again_where_it_cannot_go_on(site: Site, tmp_path: Path, why: str) -> None:
    if why == "no ranges":
        site.ranges = False
    if why == "nothing to compare by":
        site.etag = None

    def cut(number: int, handler: BaseHTTPRequestHandler) -> bool:
        if number == 1:
            send(handler, site, stop=100_000)
            if why == "another file now":
                site.payload, site.etag = PAYLOAD[::-1], '"two"'
            return True
        return False

    site.behave = cut
    assert fetch(site, tmp_path).read_bytes() == site.payload


def test_a_range_that_was_not_asked_for_is_refused(site: Site, tmp_path: Path) -> None:
    def lie(number: int, handler: BaseHTTPRequestHandler) -> bool:
        send(handler, site, 100_000 if number > 1 else 0, stop=100_000 if number == 1 else None, said=7 if number > 1 else None)
        return True

    site.behave = lie
    with pytest.raises(DownloadError, match="asked for the bytes from 100000, was sent 'bytes 7-"):
        fetch(site, tmp_path)
    assert not (tmp_path / "set.zip").exists()


def test_gone_is_said_at_once(site: Site, tmp_path: Path) -> None:
    def gone(number: int, handler: BaseHTTPRequestHandler) -> bool:
        handler.send_error(404)
        return True

    site.behave = gone
    with pytest.raises(DownloadError, match="answers 404 Not Found; the source may have moved"):
        fetch(site, tmp_path)
    assert len(site.seen) == 1


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"the connection failed \(.*5 times in a row"):
        download("http://127.0.0.1:9/x.zip", tmp_path / "x.zip", sleep=lambda _: None)


def test_a_proxy_that_refuses_is_named_and_every_further_try_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9/")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the first request of a process
    said = list[str]()
    url = "http://sets.example/x.zip"
    with pytest.raises(DownloadError) as caught:
        download(url, tmp_path / "x.zip", say=said.append, attempts=3, sleep=lambda _: None)
    words = "the connection through the proxy 127.0.0.1:9 failed ([Errno 111] Connection refused)"
    assert str(caught.value) == f"{url}: {words}, 3 times in a row; nothing has arrived"
    assert said == [f"{url}: {words}; trying again in {wait} s ({n} of 3 attempts failed)" for n, wait in ((1, 2), (2, 4))]


def test_more_than_the_disk_holds(site: Site, tmp_path: Path) -> None:
    def boast(number: int, handler: BaseHTTPRequestHandler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**18))
        handler.end_headers()
        return True

    site.behave = boast
    with pytest.raises(OutputError, match="are to come and"):
        fetch(site, tmp_path)


def _png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def _stack(*, change: bool = False, compress: bool = False, broken_picture: bool = False) -> bytes:
    """An archive laid out as the published one, with its own pictures."""
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for number in range(30):
            label = np.where(rng.random((16, 16)) < 0.3, 0, 255).astype(np.uint8)
            if change and number == 7:
                label[0, 0] = 255 - label[0, 0]
            archive.writestr(f"unet-b45af4d/data/membrane/train/image/{number}.png", _png(rng.integers(0, 256, (16, 16), dtype=np.uint8)))
            picture = b"not a picture" if broken_picture and number == 3 else _png(label)
            archive.writestr(f"unet-b45af4d/data/membrane/train/label/{number}.png", picture)
    return stream.getvalue()


@pytest.fixture
def source(site: Site, tmp_path: Path) -> Source:
    """`isbi2012` as this server publishes it."""
    site.payload = _stack()
    with zipfile.ZipFile(io.BytesIO(site.payload)) as archive:
        (tmp_path / "expected").mkdir()
        pack_isbi2012.pack(archive, tmp_path / "expected")
    return replace(SOURCES["isbi2012"], url=site.url, content_sha256=pack_isbi2012.verify(tmp_path / "expected"))


def get(source: Source, out: Path, *, accept: bool = True) -> Path:
    return get_dataset("isbi2012", out, accept_license=accept, source=source, stall_s=60.0, sleep=lambda _: None)


def test_leaves_a_data_set_that_loads(source: Source, tmp_path: Path) -> None:
    out = get(source, tmp_path / "here" / "isbi")
    data = load_dataset(DataSection(dir=str(out)), seed=0)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 20, "val": 5, "test": 5}
    assert data.classes == ("cell", "membrane")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["isbi"], "the archive and the lock are gone"


def test_terms_first(source: Source, tmp_path: Path, site: Site) -> None:
    with pytest.raises(ConfigError, match=r"terms: .*research.*add --accept-license"):
        get(source, tmp_path / "isbi", accept=False)
    assert site.seen == []


def test_changed_content_is_refused_and_not_kept(source: Source, tmp_path: Path, site: Site) -> None:
    site.payload = _stack(change=True)
    with pytest.raises(DownloadError, match="the content has SHA-256"):
        get(source, tmp_path / "isbi")
    assert not (tmp_path / "isbi").exists()
    site.payload = _stack()
    assert get(source, tmp_path / "isbi").is_dir()


@pytest.mark.parametrize("payload", [b"<html>Sign in</html>", _stack()[:5000], b""])
def test_no_archive_is_refused_and_not_kept(source: Source, tmp_path: Path, site: Site, payload: bytes) -> None:
    site.payload = payload
    with pytest.raises(DownloadError, match="no whole ZIP archive"):
        get(source, tmp_path / "isbi")
    assert not list(tmp_path.rglob("*.zip"))
    assert not (tmp_path / "isbi").exists()


@pytest.mark.parametrize("kind", ["deflated bytes", "a picture that is none"])
def test_damage_inside_is_refused_and_not_kept(source: Source, tmp_path: Path, site: Site, kind: str) -> None:
    whole = bytearray(_stack(compress=kind == "deflated bytes", broken_picture=kind != "deflated bytes"))
    if kind == "deflated bytes":
        at = whole.index(b"label/3.png") + len(b"label/3.png")
        whole[at : at + 8] = bytes(8)
    good, site.payload = _stack(), bytes(whole)
    with pytest.raises(DownloadError, match="no whole ZIP archive of pictures"):
        get(source, tmp_path / "isbi")
    assert not (tmp_path / "isbi").exists()
    site.payload = good
    assert get(source, tmp_path / "isbi").is_dir(), "the damaged archive was not kept"


def test_a_full_disk_is_no_bad_line(site: Site, tmp_path: Path) -> None:
    site.behave = lambda number, handler: bool(handler.send_response(200) or handler.end_headers() or handler.wfile.write(PAYLOAD))
    full = tmp_path / "set.zip.part"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        fetch(site, tmp_path)
    assert len(site.seen) == 1


def test_another_archive_is_refused(source: Source, tmp_path: Path, site: Site) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/README", "nothing here")
    site.payload = stream.getvalue()
    with pytest.raises(DownloadError, match="slice 0 is not in it; this is not the archive that was published"):
        get(source, tmp_path / "isbi")


def test_a_folder_in_use_is_let_be(source: Source, tmp_path: Path) -> None:
    (tmp_path / "isbi").mkdir()
    (tmp_path / "isbi" / "mine").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already and not empty"):
        get(source, tmp_path / "isbi")
    assert (tmp_path / "isbi" / "mine").is_file()


def _published_isbi(root: Path, archive: zipfile.ZipFile) -> None:
    for path in root.glob("masks/*/*.png"):
        number = int(path.stem)
        with Image.open(path) as image:
            archive.writestr(f"u/data/membrane/train/label/{number}.png", _png(np.where(np.asarray(image) == 1, 0, 255).astype(np.uint8)))
        archive.writestr(f"u/data/membrane/train/image/{number}.png", (root / "images" / path.parent.name / path.name).read_bytes())


def _published_cwfid(root: Path, archive: zipfile.ZipFile) -> None:
    colours = np.zeros((256, 3), np.uint8)
    colours[1], colours[2] = (0, 255, 0), (255, 0, 0)
    for path in root.glob("masks/*/*.png"):
        with Image.open(path) as image:
            label = np.asarray(image)
        archive.writestr(f"d/annotations/{path.stem}_annotation.png", _png(colours[label]))
        archive.writestr(f"d/masks/{path.stem}_mask.png", _png(np.where(label > 0, 0, 255).astype(np.uint8)))
        archive.writestr(f"d/images/{path.stem}_image.png", b"as it came")


def _published_camvid(root: Path, archive: zipfile.ZipFile) -> None:
    for path in root.glob("masks/*/*.png"):
        with Image.open(path) as image:
            label = np.asarray(image)
        archive.writestr(f"s/CamVid/{path.parent.name}annot/{path.name}", _png(np.where(label == 255, 11, label)))
        archive.writestr(f"s/CamVid/{path.parent.name}/{path.name}", b"as it came")


def _published_coco(root: Path, archive: zipfile.ZipFile) -> None:
    for path in [root / "annotations/instances_train2017.json", *root.glob("train2017/*.jpg")]:
        archive.writestr(f"c/{path.relative_to(root).as_posix()}", path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "folder", "publish"), [
    ("isbi2012", "isbi2012-em", _published_isbi), ("cwfid", "cwfid", _published_cwfid), ("camvid", "camvid", _published_camvid),
    ("coco-sample", "native/coco", _published_coco),
])
def test_the_real_content_has_the_hash_on_record(
    name: str, folder: str, publish: Callable[[Path, zipfile.ZipFile], None], site: Site, tmp_path: Path
) -> None:
    """The published archives' labels, laid out again as published, from copies of the data that were packed independently."""
    root = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[2] / "../shared/datasets")).resolve() / folder
    if not root.is_dir():
        pytest.skip(f"{root} is absent; set EDGESEG_DATASETS to the folder that holds it")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        publish(root, archive)
    site.payload = stream.getvalue()
    out = get_dataset(name, tmp_path / name, accept_license=True, source=replace(SOURCES[name], url=site.url))
    assert (out / "SOURCE.json").is_file()
