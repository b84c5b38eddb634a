"""`BUNDLE.tuned.json`: used where everything fits, refused with words where not, an error where it is no such file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import ConfigError, NoPermissionError
from targets.boards import Plan
from targets.machine import Machine, describe_machine
from targets.runtimes import RUNTIMES, RuntimeOptions
from targets.tuned import Entry, fingerprint, load_tuned, prepare_tuned, save_tuned, settings_for, tuned_path

HOW = Plan("null", RuntimeOptions(num_threads=1, cache_dir="kept"))
HERE = replace(describe_machine(), cores=8)  # whatever this process may use


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path, "null")


def entry(machine: Machine | None = None, **changed: Any) -> Entry:
    plain = Entry(
        machine=fingerprint(machine or HERE), target="host", runtime="null", provider="cpu",
        version=RUNTIMES["null"].version() or "", purpose="latency", fields={"num_threads": 3}, default={"num_threads": 1}, gain=1.4,
        low=1.3, high=1.5, same_answers=1.0, quick=True,
    )
    return replace(plain, **changed)


def load(bundle: Bundle, **changed: Any) -> tuple[Plan | None, str]:
    return load_tuned(bundle, **{"machine": HERE, "how": HOW, **changed})


def settings(bundle: Bundle, **changed: Any) -> tuple[Plan, str]:
    return settings_for(bundle, **{"how": HOW, "untuned": False, "asked": "", "machine": HERE, **changed})


def test_no_file_nothing_to_say(bundle: Bundle) -> None:
    assert load(bundle) == (None, "")
    assert settings(bundle) == settings(bundle, asked="--threads") == (HOW, "")


def test_lies_beside_the_bundle_which_stays_as_it_was(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save_tuned(bundle, entry())
    assert kept == bundle.folder.parent / "null.tuned.json"
    open_bundle(bundle.folder)
    monkeypatch.chdir(bundle.folder)
    assert tuned_path(Path()) == kept


def test_changes_what_was_tuned_and_nothing_else(bundle: Bundle) -> None:
    save_tuned(bundle, entry())
    how, words = load(bundle)
    assert how == Plan("null", RuntimeOptions(num_threads=3, cache_dir="kept"))
    assert words == ("tuned for latency (num_threads=3; 1.40 times as fast as the target's own, 95 % interval 1.30 to 1.50; QUICK)")
    save_tuned(bundle, entry(gain=1.0, low=1.0, high=1.0, same_answers=0.99951, quick=False))
    assert "nothing was clearly faster than the target's own; 99.9510% of the answers as before)" in load(bundle)[1]


def test_what_was_asked_for_goes_first(bundle: Bundle) -> None:
    save_tuned(bundle, entry())
    assert settings(bundle)[0].options.num_threads == 3
    assert settings(bundle, untuned=True) == (HOW, "")
    two = Plan("null", RuntimeOptions(num_threads=2))
    assert settings(bundle, how=two, asked="--threads") == (two, "not the tuned ones: --threads was given")


@pytest.mark.parametrize(("changed", "said"), [
    ({"machine": {**fingerprint(HERE), "cores": 99}}, "it is of a machine with cores = 99, here it is 8"),
    ({"machine": {**fingerprint(HERE), "cpu": "4x Cortex-A76"}}, "cpu = 4x Cortex-A76, here it is "),
    ({"version": "0.0.1"}, r"it is for version 0\.0\.1, here it is \d"),
    ({"runtime": "litert"}, "it is for runtime litert, here it is null"),
    ({"provider": "gpu"}, "it is for provider gpu, here it is cpu"),
    ({"target": "raspberry-pi-4", "default": {"num_threads": 4}},
     "it was found against raspberry-pi-4 with num_threads=4, here the target's own are num_threads=1"),
    ({"purpose": "throughput"}, "null.tuned.json does not hold here: it has nothing for latency"),
])
def test_what_was_tuned_for_something_else_is_not_used(bundle: Bundle, changed: dict[str, Any], said: str) -> None:
    save_tuned(bundle, replace(entry(), **changed))
    how, words = load(bundle)
    assert how is None
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(words)
    assert words.endswith(f"type: edgeseg tune {bundle.folder}")


def test_of_another_bundle_is_not_used_and_goes_when_tuned_again(bundle: Bundle, tmp_path: Path) -> None:
    other = tiny_bundle(tmp_path / "other", "null", height=32)
    save_tuned(other, entry())
    tuned_path(other.folder).rename(tuned_path(bundle.folder))
    how, words = load(bundle)
    assert how is None
    assert words.startswith("null.tuned.json is for another bundle (the hashes differ)")
    save_tuned(bundle, entry(fields={"num_threads": 2}))
    assert [one["fields"] for one in json.loads(tuned_path(bundle.folder).read_text())["entries"]] == [{"num_threads": 2}]


def test_an_entry_for_each_machine_and_purpose(bundle: Bundle) -> None:
    pi = replace(HERE, cpu="4x Cortex-A76", board="Raspberry Pi 5 Model B Rev 1.0", cores=4)
    save_tuned(bundle, entry())
    save_tuned(bundle, entry(pi, fields={"num_threads": 4}))
    save_tuned(bundle, entry(purpose="throughput", fields={"num_threads": 5}))
    save_tuned(bundle, entry(version="0.0.1", fields={"num_threads": 6}))  # another version takes the place of the one there
    save_tuned(bundle, entry(fields={"num_threads": 7}))
    save_tuned(bundle, entry(default={"num_threads": 4}, fields={"num_threads": 8}))
    four = Plan("null", RuntimeOptions(num_threads=4))
    found = [load(bundle), load(bundle, machine=pi), load(bundle, purpose="throughput"), load(bundle, how=four)]
    assert [how and how.options.num_threads for how, _ in found] == [7, 4, 5, 8]
    assert len(json.loads(tuned_path(bundle.folder).read_text())["entries"]) == 4
    assert load(bundle, version="9.9")[0] is None


def spoilt(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def spoil(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return spoil


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda text: text[:-20], "not JSON"),
    (lambda text: "[]", "not a file of tuned settings of schema 2"),
    (spoilt(lambda raw: raw.update(schema=3)), "not a file of tuned settings of schema 2"),
    (spoilt(lambda raw: raw.pop("entries")), "bundle_sha256 or entries is missing"),
    (spoilt(lambda raw: raw["entries"][0].update(command="rm")), r"entries\[0\] has other keys than default, fields, gain"),
    (spoilt(lambda raw: raw["entries"][0].update(gain="fast")), r"entries\[0\] holds a value of the wrong kind"),
    (spoilt(lambda raw: raw["entries"][0].update(fields=[1])), r"entries\[0\] holds a value of the wrong kind"),
    (spoilt(lambda raw: raw["entries"][0]["machine"].pop("cpu")), r"entries\[0\] holds a value of the wrong kind"),
    (spoilt(lambda raw: raw["entries"][0]["fields"].update(num_threads=-1)), "num_threads cannot be -1"),
    (spoilt(lambda raw: raw["entries"][0]["fields"].update(num_threads=9)), "num_threads cannot be 9"),
    (spoilt(lambda raw: raw["entries"][0].update(default=4)), r"entries\[0\] holds a value of the wrong kind"),
    (spoilt(lambda raw: raw["entries"][0]["fields"].update(provider="gpu")), "null on cpu has no 'provider' to set"),
])
def test_a_file_that_is_not_ours_is_an_error_but_for_untuned(bundle: Bundle, spoil: Callable[[str], str], said: str) -> None:
    path = save_tuned(bundle, entry())
    path.write_text(spoil(path.read_text()), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}: {said}.*; type edgeseg tune again after removing it, or add --untuned"):
        settings(bundle)
    assert settings(bundle, untuned=True) == (HOW, "")


def of_before(raw: dict[str, Any]) -> None:
    raw.update(schema=1)
    for one in raw["entries"]:
        del one["default"]


def test_a_file_of_an_older_edgeseg_is_not_used_and_goes_when_tuned_again(bundle: Bundle) -> None:
    path = save_tuned(bundle, entry())
    path.write_text(spoilt(of_before)(path.read_text()), encoding="utf-8")
    words = f"null.tuned.json was written by an older edgeseg; type: edgeseg tune {bundle.folder}"
    assert load(bundle) == (None, words)
    prepare_tuned(bundle)
    save_tuned(bundle, entry())
    assert load(bundle)[0] is not None


def test_entries_for_another_bundle_may_be_whatever_they_are(bundle: Bundle) -> None:
    path = save_tuned(bundle, entry())
    path.write_text(spoilt(lambda raw: raw.update(bundle_sha256="0" * 64, entries=[{}]))(path.read_text()), encoding="utf-8")
    assert "is for another bundle" in load(bundle)[1]
    prepare_tuned(bundle)
    save_tuned(bundle, entry())
    assert load(bundle)[0] is not None


def test_whether_it_can_be_kept_is_known_before(bundle: Bundle) -> None:
    before = set(bundle.folder.parent.iterdir())
    prepare_tuned(bundle)
    assert set(bundle.folder.parent.iterdir()) == before
    path = save_tuned(bundle, entry())
    prepare_tuned(bundle)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path}: not a file of tuned settings of schema 2"):
        prepare_tuned(bundle)
    with pytest.raises(NoPermissionError, match=r"no permission while writing /sys/kernel\.tuned\.json"):
        prepare_tuned(replace(bundle, folder=Path("/sys/kernel")))  # where not even root can write
