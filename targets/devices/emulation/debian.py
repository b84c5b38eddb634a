"""Packages of Debian and its kin for another architecture, fetched by apt and unpacked, with nothing installed and no root needed.

apt works on lists, a status file and a cache of its own, all in a temporary folder; the machine's are not touched. Mirrors, proxies and
keys are those the machine has, and apt checks what it fetches as always: the release file's signature, then hash by hash to the package.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from edgeseg.core.errors import DeviceError, DownloadError

_LONGEST_S: Final = 900.0
_PORTS: Final = "http://ports.ubuntu.com/ubuntu-ports"
_UBUNTU_KEYS: Final = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
_CONFIG: Final = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Get::AllowUnauthenticated "false";
APT::Install-Recommends "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
"""


def suite() -> str:
    """What this machine's distribution calls itself: `debian bookworm`."""
    known = _os_release()
    return f"{known.get('ID', '?')} {known.get('VERSION_CODENAME', '?')}"


def require_apt(why: str) -> None:
    """Refuse where packages cannot be fetched.

    Raises:
        DeviceError: apt-get or dpkg-deb is not here; says `why` it would be needed.
    """
    missing = [name for name in ("apt-get", "dpkg-deb", "dpkg") if shutil.which(name) is None]
    if missing:
        raise DeviceError(f"{why}, and {missing[0]} is not on this machine; emulation needs Debian, Ubuntu or Raspberry Pi OS: elsewhere, "
                          "verify on a board: --device ssh://USER@BOARD")


def host_architecture() -> str:
    """This machine's own, as Debian calls it."""
    return _call(["dpkg", "--print-architecture"], doing="asking dpkg").strip()


def fetch_packages(packages: Sequence[str], *, arch: str, work: Path) -> list[Path]:
    """Fetch packages of an architecture with all they depend on; give the .deb files, below `work`.

    Raises:
        DownloadError: no mirror has them, none can be reached, or what it sent is not what was signed.
    """
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    config = work / "apt.conf"
    config.write_text(_CONFIG.format(arch=arch, work=work) + _sources(arch, work) + _own_user(), encoding="utf-8")
    _call(["apt-get", "-qq", "-c", str(config), "update"], doing=f"fetching the list of {arch} packages")
    _call(["apt-get", "-qq", "-y", "-c", str(config), "--download-only", "install", *packages], doing=f"fetching {', '.join(packages)}")
    return sorted((work / "cache/archives").glob("*.deb"))


def unpack(packages: Collection[Path], root: Path) -> None:
    """Unpack .deb files into `root`; none of their scripts is run."""
    for package in packages:
        _call(["dpkg-deb", "-x", str(package), str(root)], doing=f"unpacking {package.name}")
    for name in ("bin", "lib", "sbin"):  # releases after Debian 12 ship files of usr/ alone, and a link that another package makes
        if not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")


def take_file(packages: Collection[Path], names: Collection[str], target: Path) -> bool:
    """Copy the first regular file of one of these names that a .deb holds to `target`, executable; tell whether there was one."""
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and member.name.rpartition("/")[2] in names:
                        content = archive.extractfile(member)
                        assert content is not None
                        with target.open("wb") as stream:
                            shutil.copyfileobj(content, stream)
                        target.chmod(0o755)
                        process.kill()
                        return True
    return False


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _sources(arch: str, work: Path) -> str:
    """Ubuntu keeps every architecture but the usual two on other mirrors; Debian's have all of them."""
    known = _os_release()
    if known.get("ID") != "ubuntu" or arch in ("amd64", "i386") or arch == host_architecture():
        return ""
    name = known.get("VERSION_CODENAME", "")
    lines = [f"deb [signed-by={_UBUNTU_KEYS}] {_PORTS} {name}{pocket} main universe" for pocket in ("", "-updates", "-security")]
    (work / "sources.list").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return f'Dir::Etc::sourcelist "{work}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'


def _own_user() -> str:
    """As root, apt would fetch as a user who may not write into our folder."""
    return 'APT::Sandbox::User "root";\n' if os.geteuid() == 0 else ""


def _call(command: Sequence[str], *, doing: str) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        raise DownloadError(f"{doing}: {command[0]} took more than {_LONGEST_S:.0f} s; check the network and try again") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        told = next((line for line in lines if line.startswith("E:")), lines[-1])
        raise DownloadError(f"{doing}: {command[0]} says: {told}; check the network and this machine's apt sources")
    return done.stdout
