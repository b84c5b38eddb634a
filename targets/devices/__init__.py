"""How a board is reached, one way a file. To add one: a file with a class that satisfies `base.Device`, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeseg.core.errors import ConfigError
from targets.devices.base import Device, DeviceOptions, Job, Progress
from targets.devices.emulated import open_emulated
from targets.devices.local import LocalDevice, open_local
from targets.devices.ssh import open_ssh

__all__ = ["DEVICES", "Device", "DeviceOptions", "Job", "LocalDevice", "Progress", "open_device"]

DEVICES: Final[dict[str, Callable[[str, str, DeviceOptions], Device]]] = {
    "local": open_local,
    "ssh": open_ssh,
    "emulated": open_emulated,
}
"""What an address begins with (up to the first `:`) -> what makes a device of address, name and options. Nothing is contacted."""


def open_device(address: str, name: str = "", options: DeviceOptions | None = None) -> Device:
    """Give the device at an address. Nothing is contacted before it is given a job.

    Raises:
        ConfigError: the address is not one; says what would do.
        MissingExtraError: a package is needed for this way that is not installed here.
    """
    scheme = address.partition(":")[0]
    if scheme not in DEVICES:
        raise ConfigError(f"device '{address}' is no address; it begins with {' or '.join(DEVICES)}, such as ssh://pi@192.168.1.20")
    return DEVICES[scheme](address, name, options or DeviceOptions())
