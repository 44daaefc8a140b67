"""Every command except the two training scripts: `leae COMMAND`, or `python -m leae COMMAND`.

A command is a module with `add_arguments(parser)` and `main(options)`, imported when it is called; its docstring is its
help, of which the first line stands in the list of commands.
"""

import argparse
import importlib
import os
import re
import sys
from pathlib import Path

from leae.errors import ENDING, UsageError, did_you_mean, run_command
from leae.training.settings import Parser

COMMANDS = {
    "prepare": "leae.data.prepare",
    "compare": "leae.analysis.compare",
    "evaluate": "leae.analysis.evaluate",
    "ablate": "leae.analysis.ablate",
    "latents": "leae.analysis.latents",
    "score": "leae.analysis.score",
    "embed": "leae.analysis.embed",
    "export": "leae.analysis.export",
    "play": "leae.analysis.play",
    "runs": "leae.analysis.runs",
    "bench": "leae.analysis.bench",
}


def about(module: str) -> str:
    """The first line of a module's docstring, without importing it."""
    source = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    with source.open(encoding="utf-8") as file:
        return file.readline().strip('"\n')


def run(command: str, arguments: list[str], typed: str) -> None:
    """Run a command, of `typed` as its usage says, or list them; a `UsageError` if there is none of that name."""
    if command in ("-h", "--help"):
        print(f"usage: {typed} COMMAND ...; each command has a --help\n")
        for name, module in COMMANDS.items():
            print(f"    {name:<10}{about(module)}")
        return
    if command not in COMMANDS:
        advice = did_you_mean(command, COMMANDS)
        raise UsageError(f"there is no command {command}{advice}; choose one of {', '.join(COMMANDS)}")
    module, layout = importlib.import_module(COMMANDS[command]), argparse.RawDescriptionHelpFormatter
    if ENDING:
        return
    if any(argument == "" or re.fullmatch("--[a-z-]+=", argument) for argument in arguments):  # "" would mean "."
        raise UsageError("an argument is empty; was a variable of the shell not set?")
    parser = Parser(prog=f"{typed} {command}", description=module.__doc__, formatter_class=layout)
    module.add_arguments(parser)
    module.main(parser.parse_args(arguments))


def main() -> None:
    typed = "leae" if Path(sys.argv[0]).stem == "leae" else "python -m leae"
    command, *arguments = sys.argv[1:] or ["--help"]
    os.environ.pop("TORCHELASTIC_RUN_ID", None)  # only training is shared, though torchrun may have started the shell
    run_command(lambda: run(command, arguments, typed), name=f"leae {command}" if command in COMMANDS else "leae")


if __name__ == "__main__":
    main()
