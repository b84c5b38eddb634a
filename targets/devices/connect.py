"""A connection to a board's sshd, and in one line why there is none. Needs asyncssh (extra `devices`); imported where it is used.

Host keys are always checked against known_hosts and never accepted on sight: whoever can answer in the board's place would get the
models, and could make up every number. Keys are the only way in; no password is ever asked for or sent.
"""

from __future__ import annotations

import logging
import os
import shlex
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncssh

from edgeseg.core.errors import DeviceError
from targets.devices.address import DEFAULT_PORT, SshAddress
from targets.devices.base import DeviceOptions
from targets.devices.times import Times, within
from targets.devices.words import plain

_GOODBYE_S: Final = 5.0
_KEEPALIVE_S: Final = 15
_KEEPALIVES: Final = 3
"""So many questions in a row may stay without an answer; then the connection is lost, whatever waits on it."""
_SYSTEM_KNOWN_HOSTS: Final = Path("/etc/ssh/ssh_known_hosts")

logging.getLogger("asyncssh").addHandler(logging.NullHandler())  # what it would print is said in our one line


class _Client(asyncssh.SSHClient):
    """Remembers the key that a host showed and that nobody knows."""

    offered: asyncssh.SSHKey | None = None
    asked: tuple[str, str, int] = ("", "", DEFAULT_PORT)
    """Host (as `~/.ssh/config` has it), IP address and port that showed it."""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse every key that is not in known_hosts."""
        self.offered, self.asked = key, (host, addr, port)
        return False


@asynccontextmanager
async def connected(
    address: SshAddress, options: DeviceOptions, *, name: str, timeout_s: float = Times.connect_s,
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Yield a connection whose host key was checked and which a key of the user's opened; it is closed at the end.

    Args:
        address: where.
        options: `identity` and `known_hosts` are used.
        name: what the user calls the board, for messages.
        timeout_s: for all of name, TCP, handshake and login.

    Raises:
        DeviceError: no connection; says why and what to type.
    """
    known_hosts = _known_hosts(options, name)
    client = _Client()
    try:
        connection = await within(
            timeout_s,
            asyncssh.connect(
                address.host, () if address.port is None else address.port, username=address.user or (), known_hosts=known_hosts,
                client_factory=lambda: client, preferred_auth=("publickey",), x509_trusted_certs=None,
                keepalive_interval=_KEEPALIVE_S, keepalive_count_max=_KEEPALIVES,
                client_keys=[str(Path(options.identity).expanduser())] if options.identity else (),
                ignore_encrypted=True,  # a key with a passphrase is then asked of the agent, which may hold it
            ),
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise _host_key_error(address, options, name, known_hosts, client, error) from error
    except asyncssh.PermissionDenied as error:
        file = shlex.quote(options.identity)
        key, chosen = (f"the key {options.identity} was", f"-i {file} ") if options.identity else ("your keys were", "")
        raise DeviceError(f"{name}: {key} refused for {address.login}; type: ssh-copy-id {chosen}{address.ssh_words}, or, if the key has a "
                          f"passphrase: ssh-add{f' {file}' if options.identity else ''}") from error
    except TimeoutError as error:
        raise DeviceError(f"{name}: no answer within {timeout_s:.0f} s; is the board on, and is {address.host} its address?") from error
    except socket.gaierror as error:
        raise DeviceError(f"{name}: no host is called {address.host}; check the spelling, or use the board's IP address") from error
    except ConnectionRefusedError as error:
        port = address.port or DEFAULT_PORT
        raise DeviceError(f"{name}: {address.host} refuses connections to port {port}; is sshd running there?") from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        raise DeviceError(f"{name}: not reached ({what}); type: ssh {address.ssh_words}") from error
    except (asyncssh.Error, ValueError) as error:  # ValueError: a key or a line of ~/.ssh/config that cannot be read
        raise DeviceError(f"{name}: no SSH connection ({_first_line(error)}); type: ssh -v {address.ssh_words}") from error
    try:
        yield connection
    finally:
        connection.close()
        try:
            await within(_GOODBYE_S, connection.wait_closed())
        except TimeoutError:
            connection.abort()


def _known_hosts(options: DeviceOptions, name: str) -> list[str] | bytes:
    """Files of host keys; `b""` where there is none: then no host is known. Never `None`, with which asyncssh would check nothing."""
    if options.known_hosts:
        path = Path(options.known_hosts).expanduser()
        if not os.access(path, os.R_OK):
            raise DeviceError(f"{name}: the file of host keys {path} cannot be read; check its name")
        return [str(path)]
    usual = (Path("~/.ssh/known_hosts").expanduser(), _SYSTEM_KNOWN_HOSTS)
    return [str(path) for path in usual if os.access(path, os.R_OK)] or b""


def _host_key_error(
    address: SshAddress, options: DeviceOptions, name: str, known_hosts: list[str] | bytes, client: _Client, error: Exception,
) -> DeviceError:
    """Say whether the key is not known, or another one than was known."""
    offered, (host, ip_address, port) = client.offered, client.asked
    if offered is None:
        return DeviceError(f"{name}: its host key cannot be trusted ({_first_line(error)}); type: ssh -v {address.ssh_words}")
    shown = f"{offered.get_algorithm()} {offered.get_fingerprint()}"
    file = f" -f {shlex.quote(options.known_hosts)}" if options.known_hosts else ""
    if _knows(known_hosts, host, ip_address, port):
        noted = host if port == DEFAULT_PORT else f"[{host}]:{port}"
        holders = [path for path in known_hosts if _knows(path, host, ip_address, port)] if isinstance(known_hosts, list) else []
        if str(_SYSTEM_KNOWN_HOSTS) in holders:
            file = f" -f {_SYSTEM_KNOWN_HOSTS}"
        return DeviceError(
            f"{name}: its host key CHANGED (now {shown}): another machine answers, or the board was set up anew; only if you know that "
            f"it was, type: {'sudo ' if str(_SYSTEM_KNOWN_HOSTS) in holders else ''}ssh-keygen{file} -R '{noted}'"
        )
    option = f"-o {shlex.quote(f'UserKnownHostsFile={options.known_hosts}')} " if options.known_hosts else ""
    return DeviceError(
        f"{name}: its host key is not known ({shown}); if the board says the same (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
        f"type once: ssh {option}{address.ssh_words}"
    )


def _knows(known_hosts: str | list[str] | bytes, host: str, ip_address: str, port: int) -> bool:
    """Tell whether files of host keys hold one of this host."""
    return bool(asyncssh.match_known_hosts(known_hosts, host, ip_address, None if port == DEFAULT_PORT else port)[0])


def _first_line(error: BaseException) -> str:
    return plain((str(error).strip() or type(error).__name__).splitlines()[0])
