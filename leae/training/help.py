"""Answers a script's --help, when it is imported, from the script's source: PyTorch takes seconds to import.

A script imports it before anything else. Where it cannot tell, `configure` answers, later.
"""

import ast
import sys
from contextlib import suppress
from pathlib import Path

from leae.training.settings import parse_command_line, script_constants

script = Path(sys.argv[0])
if {"-h", "--help"} & set(sys.argv[1:]) and script.suffix == ".py":
    with suppress(Exception):  # a wrong constant, say, or one that needs what the script imports
        source = script.read_text(encoding="utf-8")
        if f"import {__name__}" in source:
            about = {"__file__": script, "__doc__": ast.get_docstring(ast.parse(source))}
            constants, others = (script_constants(script, gpu) for gpu in (True, False))
            parse_command_line(about | constants, ["--help"], others)
