"""A script's upper-case constants as its settings, which the command line or a resumed run may set.

The constants are the only list of settings there is. `CROP_RATIOS = (0.15, 1.0)  # sides of the crop boxes` becomes the
option `--crop-ratios 0.15 1.0` with that comment as its help, under the heading that it has in the source. Ranges are
checked where a value is used for the first time; what only the training loops use is checked here.
"""

import argparse
import ast
import difflib
import re
from pathlib import Path

from leae.errors import UsageError, require, require_choice, require_in, require_whole
from leae.training.folder import CHANGEABLE, require_new

MODELS = ("residual", "conv")
MOST_SHOWN = 100  # images in a grid

# Constants that have no effect under another one's value.
WITHOUT_EFFECT = {
    ("MODEL", "conv"): ("LATENT", "LATENT_DIM", "SPATIAL_DIM", "HIDDEN_DIM", "MAP_CHANNELS"),
    ("MODEL", "residual"): ("CONV_LATENT_DIM",),
    ("LATENT", "pooled"): ("SPATIAL_DIM",),
    ("LATENT", "spatial"): ("LATENT_DIM", "MAP_CHANNELS"),
    ("JUDGE_RULER", "shared"): ("RULER_EPSILON",),
    ("JUDGE_RULER", "own"): ("RULER_EPSILON",),
    ("JUDGE_LIVE", True): ("JUDGE_DECAY",),
    ("OBJECTIVE", "masked"): ("NOISE", "BETA"),
    ("OBJECTIVE", "plain"): ("NOISE", "BETA"),
    ("OBJECTIVE", "denoising"): ("MASK_RATIO", "BETA"),
    ("OBJECTIVE", "variational"): ("NOISE", "SIGREG_WEIGHT"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that says what to do."""

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            option = unknown[1].split("=")[0]
            close = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.75)
            message = f"there is no option {option}" + (f", did you mean {close[0]}?" if close else "")
        raise UsageError(f"{message.rstrip('; ')}; --help lists the options")


def configure(namespace: dict, *kinds: str):
    """Give a script's constants, in its `globals()`, the values of this run.

    They are those of the command line or, where RESUME names the folder of a run of one of these kinds, those that it
    began with. Where there are several kinds, OBJECTIVE is one of them. The run is the one that is resumed, or a new
    one, which has no folder yet. A wrong command line, or a run that cannot be resumed like this, is a `UsageError`.
    """
    from leae.conv_autoencoder import IMAGE_SIZE  # with PyTorch, which the rest of this module does without
    from leae.distributed import world_size
    from leae.training.run import Run

    chosen = parse_command_line(namespace)
    namespace.update(chosen)
    run = Run.resume(namespace["RESUME"], *kinds) if namespace["RESUME"] else None
    if run:
        differing = run.settings.keys() ^ (constants_of(namespace).keys() - {"RESUME"})
        if differing:
            said = f"{min(differing)} is not in both the script and {run.folder}/settings.json"
            raise UsageError(f"{said}; use the version of leae that started it")
        if chosen.get("INIT"):
            raise UsageError("--init starts a new run, --resume continues one; leave one of them out")
        for name, value in chosen.items():
            if name not in ("RESUME", *CHANGEABLE) and run.settings[name] != value:
                kept = f"{name} is {run.settings[name]} in {run.folder}, not {value}"
                advice = f"leave the option out, or start a new run from its weights: --init {run.folder}"
                raise UsageError(f"{kept}; a resumed run keeps its settings: {advice}")
        namespace.update({**run.settings, **chosen})

    elif namespace["NAME"]:
        require_new(namespace["NAME"])

    if namespace["MODEL"] == "conv":
        size = chosen.get("IMAGE_SIZE", IMAGE_SIZE)
        require(size == IMAGE_SIZE, "IMAGE_SIZE", size, "32 where MODEL is conv")
        namespace["IMAGE_SIZE"] = size
    for (name, value), others in WITHOUT_EFFECT.items():
        idle = [other for other in others if other in chosen and namespace.get(name) == value]
        if idle:
            raise UsageError(f"{idle[0]} has no effect where {name} is {value}; leave it out")
    require_choice(MODELS, MODEL=namespace["MODEL"])
    if len(kinds) > 1:
        require_choice(kinds, OBJECTIVE=namespace["OBJECTIVE"])
    require(isinstance(namespace["COMPILE"], bool), "COMPILE", namespace["COMPILE"], "True or False")
    require_whole(1, **{name: namespace[name] for name in ("HELD_OUT", "LOG_EVERY", "GRID_EVERY")})
    require_whole(2, BATCH_SIZE=namespace["BATCH_SIZE"])  # a batch norm needs a batch
    if namespace.get("OBJECTIVE") == "alternating":  # of each of two views, in every process
        size, views = namespace["BATCH_SIZE"], 2 * world_size()
        require(size > 2 and size % views == 0, "BATCH_SIZE", size, f"a multiple of {views}, above 2, for alternating")
    require_whole(1, MOST_SHOWN, GRID_IMAGES=namespace["GRID_IMAGES"])
    require_in("[0, inf)", SAVE_MINUTES=namespace["SAVE_MINUTES"])
    settings = {name: value for name, value in constants_of(namespace).items() if name != "RESUME"}
    return run or Run(settings)


def constants_of(namespace: dict) -> dict:
    """The upper-case names of a script's namespace, with their values: numbers, texts, bools, tuples of numbers.

    A value of another type is a `UsageError`.
    """
    constants = {name: value for name, value in namespace.items() if name.isupper()}
    for name, value in constants.items():
        numbers = isinstance(value, tuple) and all(isinstance(entry, int | float) for entry in value)
        expected = "a number, a string in quotes, True, False, or a tuple of numbers like (0.15,)"
        require(numbers or isinstance(value, bool | int | float | str), name, value, expected)
    return constants


def script_constants(script: Path, gpu: bool) -> dict:
    """The top-level upper-case assignments of a script, by name, as they come out with or without a GPU."""
    constants = {}
    for statement in ast.parse(script.read_text(encoding="utf-8")).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name.isupper():
                constants[name] = eval(compile(ast.Expression(value), script, "eval"), {"gpu": gpu}, constants)
    return constants


def comments_of(script: Path) -> dict[str, tuple[str, str]]:
    """The heading that each constant of a script stands under, "# --- data" say, and the comment behind it."""
    found, heading = {}, "others"
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith("# --- "):
            heading = line[6:]
        elif match := re.match(r"([A-Z][A-Z0-9_]*) = (?:.*?  # (.*))?", line):
            found[match[1]] = heading, match[2] or ""
    return found


def option_of(name: str) -> str:
    """The option that sets a constant: CROP_RATIOS is --crop-ratios."""
    return "--" + name.lower().replace("_", "-")


def arguments_of(name: str, value) -> list[str]:
    """What sets a constant to a value on the command line."""
    if isinstance(value, bool):
        return [option_of(name if value else f"no_{name}")]
    return [option_of(name), *map(str, value if isinstance(value, tuple) else [value])]


def parse_command_line(namespace: dict, arguments: list[str] | None = None, without_gpu: dict | None = None) -> dict:
    """The constants that the command line sets, by name, each with the type of its default, or a `UsageError`.

    Help says what the defaults are and, where that is given by name, what they would be `without_gpu`.
    """
    comments, groups = comments_of(Path(namespace["__file__"])), {}
    options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "argument_default": argparse.SUPPRESS}
    parser = Parser(description=namespace["__doc__"], allow_abbrev=False, **options)
    for name, default in constants_of(namespace).items():
        heading, comment = comments.get(name, ("others", ""))
        group = groups[heading] = groups.get(heading) or parser.add_argument_group(heading)
        option = option_of(name)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        other = (without_gpu or {}).get(name, default)
        shown += f", without a GPU {other}" * (other != default)
        text = (f"{comment} [{shown}]" if shown else comment).strip().replace("%", "%%")
        if isinstance(default, bool):
            group.add_argument(option, dest=name, action=argparse.BooleanOptionalAction, help=text)
            continue
        several = isinstance(default, tuple)
        kind = type(default[0]) if several and default else float if several else type(default)
        nargs = "+" if several else None
        quoted = list(dict.fromkeys(re.findall('"([^"]+)"', comment)))
        metavar = f"{{{','.join(quoted)}}}" if default in quoted else kind.__name__.upper()
        group.add_argument(option, dest=name, nargs=nargs, type=kind, metavar=metavar, help=text)
    chosen = vars(parser.parse_args(arguments))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
