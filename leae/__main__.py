"""Every command that is not training: `uv run -m leae COMMAND`.

A command is a module with `add_arguments(parser)` and `main(options)`, imported only when there is work for it; its
docstring is its help.
"""

import argparse
import ast
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
    "play": "leae.analysis.play",
    "runs": "leae.analysis.runs",
    "bench": "leae.analysis.bench",
}


def source_of(module: str) -> Path:
    return Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")


def light(module: str, names: set[str]) -> dict:
    """Some names of a module and what they need, without other imports: PyTorch's above all, which is slow.

    It runs the statements that define them, and in turn those that these need, found from the last one to the first.
    """
    needed, kept, values = set(names), [], {"__file__": str(source_of(module)), "__name__": module}
    for node in reversed(ast.parse(source_of(module).read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in needed]
            if node.names and isinstance(node, ast.ImportFrom) and source_of(node.module).is_file():
                values |= light(node.module, {alias.name for alias in node.names})
            elif node.names:
                kept.append(node)
            continue
        stored = [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        if needed & ({node.name} if hasattr(node, "name") else set(stored)):
            kept.append(node)
            needed |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    exec(compile(ast.Module(kept[::-1], []), source_of(module), "exec"), values)
    return values


def run(command: str, arguments: list[str]) -> None:
    """Run a command; a `UsageError` if there is none of that name."""
    from leae.errors import UsageError
    from leae.training.settings import Parser

    if command not in COMMANDS:
        advice = "".join(f", did you mean {close}?" for close in difflib.get_close_matches(command, COMMANDS, n=1))
        raise UsageError(f"there is no command {command}{advice}; choose one of {', '.join(COMMANDS)}")
    module, layout = COMMANDS[command], argparse.RawDescriptionHelpFormatter
    about = ast.get_docstring(ast.parse(source_of(module).read_text(encoding="utf-8")))
    parser = Parser(prog=f"leae {command}", description=about, formatter_class=layout)
    light(module, {"add_arguments"})["add_arguments"](parser)
    options = parser.parse_args(arguments)
    importlib.import_module(module).main(options)


def main() -> None:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print("usage: uv run -m leae COMMAND ...; each command has a --help\n")
        for name, module in COMMANDS.items():
            first_line = source_of(module).read_text(encoding="utf-8").splitlines()[0].strip('"')
            print(f"    {name:<10}{first_line}")
        return
    from leae.errors import run_command

    run_command(lambda: run(command, arguments), name=f"leae {command}" if command in COMMANDS else "leae")


if __name__ == "__main__":
    main()
