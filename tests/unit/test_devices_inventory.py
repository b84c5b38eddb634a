"""The inventory of boards: small TOML, clear refusals, whole files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeseg.core.errors import ConfigError, InputMissingError
from targets.devices.inventory import Entry, add_entry, find_device, inventory_path, load_inventory, remove_entry

PI = Entry(name="pi5", address="ssh://pi@192.168.1.20:2222", target="raspberry-pi-5", python="~/edge seg/bin/python")


def test_what_is_added_is_found_by_name_and_by_address(tmp_path: Path) -> None:
    path = tmp_path / "below" / "devices.toml"
    add_entry(PI, path)
    add_entry(Entry(name="lab.nuc", address="ssh://nuc"), path)
    inventory = load_inventory(path)
    assert list(inventory.entries) == ["pi5", "lab.nuc"]
    assert inventory.find("pi5") == inventory.find(PI.address) == PI
    assert find_device("pi5", path).name == "pi5"
    assert find_device("ssh://else@where", path).address == "ssh://else@where"
    assert inventory.find("local").open().address == "local"
    assert remove_entry("pi5", path).entries.keys() == {"lab.nuc"}


def test_no_file_is_an_empty_inventory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"device 'pi5' is unknown; .*names none; type: edgeseg devices add pi5 ssh://"):
        load_inventory(tmp_path / "devices.toml").find("pi5")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    assert inventory_path({"EDGESEG_DEVICES": str(tmp_path / "x.toml")}) == tmp_path / "x.toml"
    assert inventory_path({}).parts[-3:] == (".config", "edgeseg", "devices.toml")


@pytest.mark.parametrize(("text", "words"), [
    ("[pi5]\nadress = 'ssh://pi'", "unknown key 'adress'; did you mean 'address'?"),
    ("[pi5]\ntarget = 'raspberry-pi-5'", "has no address"),
    ("[pi5]\naddress = 5", "address = 5: expected a string"),
    ("[pi5]\naddress = 'ssh://pi'\ntarget = 'raspberry-pi-6'", "did you mean 'raspberry-pi-5'?"),
    ("[pi5]\naddress = 'ssh://pi'\npython = 'python3'", "'python3' is no path"),
    ("[pi5]\naddress = 'ssh://pi'\nidentity = 'keys/pi'", "identity 'keys/pi' depends on the current folder"),
    ("[pi5]\naddress = \"ssh://pi\\u0007\"", "cannot be printed"),
    ("pi5 = 'ssh://pi'", "'pi5' is a value"),
    ("['a b']\naddress = 'ssh://pi'", "device name 'a b'"),
    ("[local]\naddress = 'ssh://pi'", "'local' is this machine"),
    ("[pi5", "not valid TOML"),
])
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "devices.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_inventory(path)
    assert words in str(refused.value)


def test_what_cannot_be_added(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    add_entry(PI, path)
    before = path.read_bytes()
    for entry, words in (
        (PI, "is there already"),
        (Entry(name="x", address="pi@192.168.1.20"), "is no address"),
        (Entry(name="x", address="ssh://pi:secret@host"), "password"),
        (Entry(name="../x", address="ssh://pi"), "device name"),
    ):
        with pytest.raises(ConfigError, match=words):
            add_entry(entry, path)
    with pytest.raises(InputMissingError):
        add_entry(Entry(name="x", address="ssh://pi", identity=str(tmp_path / "no-key")), path)
    with pytest.raises(ConfigError, match="did you mean 'pi5'"):
        remove_entry("pi4", path)
    assert path.read_bytes() == before


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda who: _add_some(path, who), range(2)))
    assert len(load_inventory(path).entries) == 10


def _add_some(path: Path, who: int) -> None:
    for number in range(5):
        add_entry(Entry(name=f"board-{who}-{number}", address=f"ssh://{who}.{number}"), path)
