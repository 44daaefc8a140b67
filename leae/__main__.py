"""Every command that is not training: `uv run -m leae COMMAND`.

A command is a module with `add_arguments(parser)` and `main(options)`, imported only when it is asked for; its
docstring is its help.
"""

import argparse
import difflib
import importlib
import sys
from pathlib import Path

COMMANDS = {
    "prepare": "leae.data.prepare",
    "compare": "leae.analysis.compare",
    "evaluate": "leae.analysis.evaluate",
    "ablate": "leae.analysis.ablate",
    "latents": "leae.analysis.latents",
    "score": "leae.analysis.score",
    "embed": "leae.analysis.embed",
    "export": "leae.analysis.export",
    "bench": "leae.analysis.bench",
}


def run(command: str, arguments: list[str]) -> None:
    """Run a command; a `UsageError` if there is none of that name."""
    from leae.errors import UsageError
    from leae.training.settings import Parser

    if command not in COMMANDS:
        advice = "".join(f", did you mean {close}?" for close in difflib.get_close_matches(command, COMMANDS, n=1))
        raise UsageError(f"there is no command {command}{advice}; choose one of {', '.join(COMMANDS)}")
    module = importlib.import_module(COMMANDS[command])
    layout = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=f"leae {command}", description=module.__doc__, formatter_class=layout)
    module.add_arguments(parser)
    module.main(parser.parse_args(arguments))


def main() -> None:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print("usage: uv run -m leae COMMAND ..., one of these; each has a --help of its own\n")
        for name, module in COMMANDS.items():
            source = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
            first_line = source.read_text(encoding="utf-8").splitlines()[0].strip('"')
            print(f"    {name:<10}{first_line}")
        return
    from leae.errors import run_command  # imports torch, which the overview does without

    run_command(lambda: run(command, arguments), name=f"leae {command}" if command in COMMANDS else "leae")


if __name__ == "__main__":
    main()
