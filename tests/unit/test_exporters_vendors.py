"""Converters are silent, and report to nobody."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from edgeseg.core.vendors import quiet, versions


def test_quiet_holds_back_everything(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("from Python")
        print("an error", file=sys.stderr)
        os.write(1, b"from native code\n")
        os.write(2, b"from native code\n")
        warnings.warn("a warning", DeprecationWarning, stacklevel=1)
        logging.getLogger("vendor").critical("a log line")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    assert capfd.readouterr() == ("", "")
    print("heard again")
    os.write(2, b"and here\n")
    assert capfd.readouterr() == ("heard again\n", "and here\n")


def test_quiet_logs_what_it_held_back_when_the_block_fails(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG, logger="edgeseg.vendor"), pytest.raises(ValueError, match="bad"), quiet():
        print("the reason")
        raise ValueError("bad")
    assert "the reason" in caplog.text
    assert "the reason" not in capfd.readouterr().out
    assert logging.root.manager.disable == 0


def test_quiet_needs_no_file_in_memory(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with quiet():
        os.write(1, b"from native code\n")
    assert capfd.readouterr() == ("", "")


def test_versions_leave_out_what_is_not_installed() -> None:
    assert set(versions("numpy", "no-such-package")) == {"numpy"}


def test_openvino_cannot_reach_its_telemetry() -> None:
    code = (
        "from edgeseg.core.lazy import require; import sys; require('openvino', extra='export', converter=True); "
        "import openvino.tools.ovc.convert_impl as impl; assert impl.tm.__name__.endswith('telemetry_stub'), impl.tm"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_is_imported_by_one_thread_at_a_time() -> None:
    code = (
        "from edgeseg.core.lazy import require; from concurrent.futures import ThreadPoolExecutor\n"
        "def load(number): return require('openvino', extra='export', converter=number % 2 == 1)\n"
        "assert all(hasattr(ov, 'convert_model') for ov in list(ThreadPoolExecutor(6).map(load, range(6))))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_openvino_brings_its_converter_for_who_asks_alone() -> None:
    code = (
        "from edgeseg.core.lazy import require; import sys; "
        "assert not hasattr(require('openvino', extra='export'), 'convert_model') and 'openvino.tools.ovc' not in sys.modules; "
        "assert require('openvino', extra='export', converter=True).convert_model is sys.modules['openvino.tools.ovc'].convert_model"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
