"""The verbs in the order people use them, and what becomes of what they return or raise.

A verb prints for people and returns its JSON document; whether that is written is decided here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

import edgeseq
from edgeseq.cli.bench import bench
from edgeseq.cli.catalogue import datasets, models
from edgeseq.cli.compress import compress
from edgeseq.cli.demo import demo
from edgeseq.cli.devices import devices
from edgeseq.cli.distill import distill
from edgeseq.cli.doctor import doctor
from edgeseq.cli.export import export, verify
from edgeseq.cli.look import inspect
from edgeseq.cli.output import Document, Failed
from edgeseq.cli.prune import prune
from edgeseq.cli.quantize import quantize
from edgeseq.cli.report import report
from edgeseq.cli.retime import retime
from edgeseq.cli.stream import stream
from edgeseq.cli.train import train
from edgeseq.cli.tune import tune
from edgeseq.errors import EdgeseqError, unknown

VERBS = {
    "Make a model": (train, distill, retime, prune, quantize, compress, tune, export, verify),
    "Run and measure it": (stream, bench, report),
    "Look": (inspect, models, datasets, doctor),
    "See it all work": (demo,),
}
GROUPS = {"devices": (devices, "Run and measure it")}  # verbs with verbs of their own, and the panel they stand in
NAMES = (*(verb.__name__ for verbs in VERBS.values() for verb in verbs), *GROUPS)
RESUMABLE = ("train", "distill", "prune", "quantize", "compress", "demo")
INTERRUPTED = 130
EXIT_CODES = (
    "Exit codes: 0 ok; 1 a bug of ours; 2 usage or bad input; 3 something is not installed; 4 not supported; "
    "5 a proof failed; 6 device unreachable; 7 a budget missed."
)
# What the parser raises, by way of a public name: typer has carried a click of its own since 0.2x.
UsageError: type[Any] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="edgeseq",
    help="Take a sequence model from training to a small computer, and prove that it is still the same model.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, verbs in VERBS.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(verb)
for name, (group, panel) in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=panel)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(edgeseq.__version__)
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return its exit code; with ``--json`` exactly one document goes to standard output."""
    as_json = "--json" in arguments
    # Whatever a library prints must not get between the user's program and the document.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        code, document = _call(arguments)
    try:
        if as_json and document is not None:
            print(msgspec.json.encode(document).decode())
        sys.stdout.flush()
    except BrokenPipeError:  # `edgeseq models | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _call(arguments: Sequence[str]) -> tuple[int, Any]:
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    command: Any = typer.main.get_command(app)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="edgeseq")
            warnings.showwarning = _show_warning
            if name and name not in NAMES:
                raise unknown("verb", name, NAMES)
            if name in GROUPS:
                arguments = _within(command.commands[name], name, arguments)
            with command.make_context("edgeseq", list(arguments) or ["--help"]) as context:
                return 0, command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code, None
    except (KeyboardInterrupt, typer.Abort):
        goes_on = f"; the same command goes on after the last finished {_part(name)}" if name in RESUMABLE else ""
        return _failed("Interrupted", f"interrupted{goes_on}", INTERRUPTED, prefix="")
    except Failed as failed:
        error = failed.error
        return _failed(type(error).__name__, str(error), error.exit_code, more=failed.document)
    except EdgeseqError as error:
        return _failed(type(error).__name__, str(error), error.exit_code)
    except BrokenPipeError:
        return 0, None
    except UsageError as error:
        return _failed("UsageError", _usage(error), 2)
    except Exception as error:
        traceback.print_exc()
        return _failed(type(error).__name__, f"this is a bug of edgeseq: {error}", 1)


def _within(group: Any, name: str, arguments: Sequence[str]) -> Sequence[str]:
    """The arguments of a group: its help where they name no verb of it.

    Raises:
        InputError: they name one that it does not have.
    """
    named = [argument for argument in arguments if not argument.startswith("-")][1:2]
    if named and named[0] not in group.commands:
        raise unknown(f"verb of {name}", named[0], group.commands)
    return arguments if named else [name, "--help"]


def _part(name: str) -> str:
    """What an interrupted verb goes on after."""
    return "chain" if name == "compress" else "round"


def _failed(
    kind: str, message: str, code: int, prefix: str = "error: ", more: Document | None = None
) -> tuple[int, Document]:
    print(f"{prefix}{message}", file=sys.stderr)
    return code, {"error": {"type": kind, "message": message, "exit_code": code}, **(more or {})}


def _usage(error: Any) -> str:
    context = error.ctx
    where = context.command_path if context is not None else "edgeseq"
    option = getattr(error, "option_name", None)
    if context is not None and type(error).__name__ == "NoSuchOption":
        known = (name for parameter in context.command.params for name in parameter.opts if name.startswith("--"))
        return str(unknown(f"option of {where}", option or "", known))
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}. See: {where} --help"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
