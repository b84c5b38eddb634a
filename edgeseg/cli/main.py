"""The `edgeseg` command. The only place that prints errors and decides the exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Final

import typer

from edgeseg import __version__
from edgeseg.cli import bundle_commands, chain_commands, device_commands, fact_commands, import_commands, search_commands, tune_commands
from edgeseg.core.errors import EdgesegError, explain_os_error

app = typer.Typer(
    name="edgeseg",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Image segmentation onto devices: train, prune, quantize, export, verify and measure in one tool.",
)
for module in (chain_commands, search_commands, import_commands, bundle_commands, tune_commands, device_commands, fact_commands):
    module.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"edgeseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and exit")] = False,
) -> None:
    pass


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived; unwinds like Ctrl-C, so that temporary files go."""


def _on_signal(number: int, _frame: FrameType | None) -> None:
    raise _Terminated(number)


_GO_ON: Final = {
    "demo": "the same command goes on from here",
    "run": "the same command goes on from here",
    "search": "the same command goes on from here",
    "prune": "the same command goes on from here",
    "train": "type the same command with --resume to go on from here",
    "predict": "type the same command with --force to do it again",
}
"""What to type after an interruption, where it is more than the same command from the start."""


def _how_to_go_on(arguments: Sequence[str]) -> str:
    verb = next((argument for argument in arguments if not argument.startswith("-")), "")
    return _GO_ON.get(verb, "nothing half-written was left; type the same command to do it again")


def _fail(text: str) -> None:
    print(f"edgeseg: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _reader_gone() -> int:
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - nothing more to say
    return 141


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code; every failure is one line on stderr."""
    try:
        result = app(list(arguments), prog_name="edgeseg", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except EdgesegError as error:
        _fail(str(error))
        return error.exit_code
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # Typer turns a closed pipe into SystemExit(1), which would read as a missed goal
            return _reader_gone()
        _fail(f"something that was called ended the program (sys.exit({stop.code!r})); this is a bug in edgeseg or in code it was given")
        return 70
    except OSError as error:
        known = explain_os_error(error, doing="using")
        _fail(str(known))
        return known.exit_code
    except KeyboardInterrupt:
        return 130
    except _Terminated as stop:
        _fail(f"stopped by a signal; {_how_to_go_on(arguments)}")
        return 128 + int(stop.args[0])
    except Exception as error:  # the last resort: one line in place of a traceback
        if hasattr(error, "format_message"):  # a usage error of the option parser
            command = getattr(getattr(error, "ctx", None), "command_path", "edgeseg")
            _fail(f"{str(error.format_message()).rstrip('. ')}. Type: {command} --help")
            return 2
        if os.environ.get("EDGESEG_DEBUG"):
            raise
        _fail(f"internal error: {type(error).__name__}: {error}; this is a bug in edgeseg; EDGESEG_DEBUG=1 shows where")
        return 70


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # LANG=C must not turn a name into a crash
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    code = run(sys.argv[1:])
    if code == 130:
        _fail(f"interrupted; {_how_to_go_on(sys.argv[1:])}")
    sys.exit(code)


if __name__ == "__main__":
    main()
