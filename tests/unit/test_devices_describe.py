"""A machine describes itself, and a plan made from that is the plan it would make."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import PIL
import pytest

from edgeseg import __version__
from edgeseg.core.errors import TargetError
from edgeseg.workflow.places import HERE, Place, find_place
from edgeseg.workflow.ui import Silent
from targets.boards import TARGETS, is_here, plan
from targets.devices import LocalDevice
from targets.devices.check import Site, describe
from targets.machine import describe_machine
from targets.own_code import code_sha256
from targets.runtimes import RUNTIMES


@pytest.fixture(scope="module")
def site() -> Site:
    return describe(LocalDevice(), lambda stage, done: None)


def test_it_says_what_is_here(site: Site) -> None:
    assert (site.edgeseg, site.code_sha256) == (__version__, code_sha256())
    assert (site.machine.cpu, site.machine.arch) == (describe_machine().cpu, describe_machine().arch)
    assert site.runtimes == {name: runtime.version() for name, runtime in RUNTIMES.items() if runtime.version() is not None}
    assert all(site.has(run) == is_here(run) for target in TARGETS.values() for run in target.runs)
    assert site.targets == tuple(name for name, target in TARGETS.items() if name != "host" and target.detect())
    assert site.resizers["pillow"] == PIL.__version__
    assert ("opencv" in site.resizers) is (importlib.util.find_spec("cv2") is not None)
    assert site.disk_free_bytes > 0
    assert site.sensors
    assert all(status.readings or status.why for status in site.sensors)


def test_a_plan_for_another_machine_takes_what_that_one_has(site: Site) -> None:
    there = Place(LocalDevice(), site)
    for format, precision in (("null", "fp32"), ("tflite", "int8")):
        here = plan("host", format, precision)
        assert plan("host", format, precision, machine=site.machine, here=site.has) == here
        assert there.version(here.runtime) == RUNTIMES[here.runtime].version()
    old = replace(site, ways=frozenset({("tflite", "tflite_runtime", "cpu")}), machine=replace(site.machine, cores=2))
    made = plan("raspberry-pi-5", "tflite", "int8", machine=old.machine, here=old.has)
    assert (made.runtime, made.options.num_threads) == ("tflite_runtime", 2)


def test_the_key_changes_with_the_machine_and_its_versions(site: Site) -> None:
    key = Place(LocalDevice(), site).key
    changes = ({"code_sha256": "0" * 64}, {"runtimes": {**site.runtimes, "null": "9"}}, {"resizers": {**site.resizers, "opencv": "9"}},
               {"machine": replace(site.machine, board="another")})
    for other in (replace(site, **change) for change in changes):
        assert Place(LocalDevice(), other).key != key
    assert HERE.key == {}


def test_this_machine_is_no_device_to_ask() -> None:
    assert find_place("", ui=Silent()) is find_place("local", ui=Silent()) is HERE
    with pytest.raises(TargetError):
        HERE.plan("jetson-orin-nano", _manifest("null"))


def _manifest(format: str) -> object:
    from types import SimpleNamespace

    return SimpleNamespace(format=format, precision="fp32")
