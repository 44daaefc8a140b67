"""A script's upper-case constants as its settings, which the command line or a resumed run may set.

The constants are the only list of settings there is. `CROP_RATIOS = (0.15, 1.0)  # sides of the crop boxes` becomes the
option `--crop-ratios 0.15 1.0` with that comment as its help, under the heading that it has in the source. RANGES has
the values that each may have. What depends on several of them, the method refuses where it is built.
"""

import argparse
import ast
import os
import re
import sys
import tokenize
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from leae import conv_autoencoder
from leae.autoencoder import LARGEST_IMAGE, LARGEST_SIZE, LATENTS, OUTPUTS
from leae.data.sources import MAX_FACES
from leae.distributed import world_size
from leae.errors import (
    LARGEST_WHOLE,
    UsageError,
    did_you_mean,
    is_installed,
    require,
    require_choice,
    require_in,
    require_whole,
)
from leae.judge import NORMS
from leae.masking import crop_side, mask_side
from leae.objective import OBJECTIVES
from leae.reconstruction import LOSSES
from leae.training.device import PRECISIONS
from leae.training.run import CHANGEABLE, Run, require_new, tuples

SCRIPTS = Path(__file__).parents[2]  # the folder of main.py and main_regular.py
COUNT = (1, LARGEST_WHOLE)
SIZE = (1, LARGEST_SIZE)
# By constant: the ends of a range of whole numbers, an interval of real ones (in brackets: for each entry of a tuple),
# choices, or a type.
RANGES = {
    "DATASET": str,
    "CLASSES": bool,
    "CHANNELS": (0, 3),
    "UPSCALE": bool,
    "IMAGE_SIZE": (8, LARGEST_IMAGE),
    "FACES": (1, MAX_FACES),
    "HELD_OUT": COUNT,
    "MODEL": ("residual", "conv"),
    "LATENT": LATENTS,
    "LATENT_DIM": SIZE,
    "SPATIAL_DIM": SIZE,
    "HIDDEN_DIM": SIZE,
    "MAP_CHANNELS": SIZE,
    "CONV_LATENT_DIM": SIZE,
    "OBJECTIVE": (*OBJECTIVES, "masked", "plain", "denoising", "variational"),
    "RECONSTRUCTION_LOSS": LOSSES,
    "OUTPUT": OUTPUTS,
    "MASK_RATIO": "(0, 1)",
    "CROP_RATIOS": ["(0, 1]"],
    "NOISE": "(0, 1]",
    "SIGREG_WEIGHT": "[0, inf)",
    "BETA": "[0, inf)",
    "JUDGE_DECAY": "[0, 1)",
    "JUDGE_LIVE": bool,
    "JUDGE_NORM": NORMS,
    "WHITENING_EPSILON": "(0, inf)",
    "BATCH_SIZE": (2, LARGEST_WHOLE),  # a batch norm needs a batch
    "EPOCHS": COUNT,
    "MAX_STEPS": (0, LARGEST_WHOLE),
    "LEARNING_RATE": "(0, 1)",
    "WARMUP": "[0, 1)",
    "SCHEDULE": ("cosine", "constant"),
    "WEIGHT_DECAY": "[0, 1)",
    "SEED": (0, 2**63 - 1),
    "DEVICE": str,
    "PRECISION": PRECISIONS,
    "COMPILE": bool,
    "LOG_EVERY": COUNT,
    "GRID_EVERY": COUNT,
    "GRID_IMAGES": (1, 100),
    "SAVE_MINUTES": "[0, inf)",
    "TRACKER": ("tensorboard", "wandb", ""),
    "NAME": str,
    "INIT": str,
    "RESUME": str,
}
# Constants that have no effect under another one's value.
WITHOUT_EFFECT = {
    ("MODEL", "conv"): ("LATENT", "LATENT_DIM", "SPATIAL_DIM", "HIDDEN_DIM", "MAP_CHANNELS"),
    ("MODEL", "residual"): ("CONV_LATENT_DIM",),
    ("LATENT", "pooled"): ("SPATIAL_DIM",),
    ("LATENT", "spatial"): ("LATENT_DIM", "MAP_CHANNELS"),
    ("JUDGE_NORM", "shared"): ("WHITENING_EPSILON",),
    ("JUDGE_NORM", "own"): ("WHITENING_EPSILON",),
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
            message = f"there is no option {option}{did_you_mean(option, self._option_string_actions)}"
        raise UsageError(f"{message.rstrip('; ')}; --help lists the options")


def configure(namespace: dict, *kinds: str) -> Run:
    """Set a script's constants, in its `globals()`, from the command line, and give the run that they describe.

    With RESUME that is the run in that folder, of one of these kinds, and the constants are its settings; otherwise it
    is a new run, which has no folder yet. Where there are several kinds, OBJECTIVE says which. `UsageError` for a wrong
    command line, a value outside its range, a run that cannot be resumed like this, or several tasks of SLURM's srun
    that no torchrun has started.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "WORLD_SIZE" not in os.environ:
        advice = f"to share one, start a single task: torchrun --nproc-per-node {tasks} {sys.argv[0]}"
        raise UsageError(f"srun has started {tasks} tasks, and each would train a run of its own; {advice}")
    written = constants_in(Path(namespace["__file__"]))
    defaults, chosen = constants_of(namespace, written), parse_command_line(namespace, written)
    namespace.update(chosen)
    for name in ("INIT", "RESUME"):
        require(chosen.get(name) != "", option_of(name), "", "a path; was a variable of the shell not set?")
    run = None
    if namespace["RESUME"]:
        run = Run.resume(namespace["RESUME"], *kinds)
        namespace.update({**resumed_settings(run, defaults, chosen), **chosen})
    elif namespace["NAME"]:
        require_new(namespace["NAME"])
    if namespace["MODEL"] == "conv":
        size = chosen.get("IMAGE_SIZE", conv_autoencoder.IMAGE_SIZE)
        require(size == conv_autoencoder.IMAGE_SIZE, "IMAGE_SIZE", size, "32 where MODEL is conv")
        namespace["IMAGE_SIZE"] = size
    for (name, value), others in WITHOUT_EFFECT.items():
        idle = [other for other in others if other in chosen and namespace.get(name) == value]
        if idle:
            raise UsageError(f"{idle[0]} has no effect where {name} is {value}; leave it out")
    settings = {name: namespace[name] for name in defaults if name != "RESUME"}
    require_ranges(settings, kinds if len(kinds) > 1 else OBJECTIVES)
    run = run or Run(settings, kinds[0] if len(kinds) == 1 else settings["OBJECTIVE"], defaults)
    run.tracker = tracker = settings["TRACKER"]
    if tracker and not is_installed(tracker):
        raise UsageError(f"TRACKER is {tracker}, which is not installed; uv run --extra {tracker} {sys.argv[0]} has it")
    return run


def resumed_settings(run: Run, constants: dict, chosen: dict) -> dict:
    """The settings of a run that is resumed with a script of these constants; `UsageError` if `chosen` differ."""
    differing = run.settings.keys() ^ (constants.keys() - {"RESUME"})
    if differing:
        said = f"{min(differing)} is not in both the script and {run.folder}/settings.json"
        raise UsageError(f"{said}; use the version of leae that started it")
    for name, value in chosen.items():
        if name not in ("RESUME", *CHANGEABLE) and run.settings[name] != value:
            kept = f"{name} is {run.settings[name]} in {run.folder}, not {value}"
            advice = f"leave the option out, or start a new run, from its weights if they fit: --init {run.folder}"
            raise UsageError(f"{kept}; a resumed run keeps its settings: {advice}")
    return run.settings


def require_ranges(settings: dict, objectives: tuple[str, ...]) -> None:
    """Refuse settings outside RANGES, or that do not go together: `UsageError`."""
    for name, value in settings.items():
        match objectives if name == "OBJECTIVE" else RANGES.get(name, object):
            case int(low), int(high):
                require_whole(low, high, **{name: value})
            case str(interval):
                require_in(interval, **{name: value})
            case [str(interval)]:
                require(isinstance(value, tuple) and value, name, value, f"a tuple of numbers in {interval}")
                for entry in value:
                    require_in(interval, **{name: entry})
            case type() as kind:
                require(isinstance(value, kind), name, value, "a text" if kind is str else "True or False")
            case choices:
                require_choice(choices, **{name: value})
    mask_side(settings["IMAGE_SIZE"], settings["MASK_RATIO"])
    for ratio in settings.get("CROP_RATIOS", ()):
        crop_side(settings["IMAGE_SIZE"], ratio)
    size, processes = settings["BATCH_SIZE"], world_size()
    require(size % processes == 0, "BATCH_SIZE", size, f"a multiple of {processes}, the number of processes")
    if settings["OBJECTIVE"] == "alternating":  # every process has images of either view
        expected = f"a multiple of {2 * processes}, above 2, for alternating"
        require(size > 2 and size % (2 * processes) == 0, "BATCH_SIZE", size, expected)


class Constant(NamedTuple):
    """An upper-case name that a script assigns outside of functions and classes."""

    value: ast.expr | None  # as it stands in the source; None if that is no single assignment
    heading: str  # that it stands under, "data" of "# --- data", say
    comment: str  # behind it


def constants_in(script: Path) -> dict[str, Constant]:
    """A script's constants by name, in their order."""
    with tokenize.open(script) as file:  # in its encoding
        source = file.read()
    found, lines = {}, source.split("\n")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            continue
        nodes = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
        names = [node.id for node in nodes if isinstance(node.ctx, ast.Store)]
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) and len(names) == 1 else None
        headings = (line[6:] for line in reversed(lines[: statement.lineno]) if line.startswith("# --- "))
        behind = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        for name in filter(str.isupper, names):
            above = found.get(name) or Constant(value, next(headings, "others"), behind.partition("#")[2].strip())
            found[name] = above._replace(value=value)
    return found


def constants_of(namespace: dict, written: Collection[str]) -> dict:
    """The constants among a script's `globals()`, by name: numbers, texts, bools, tuples of numbers.

    They are those that are `written` in it, and those of RANGES wherever they come from. A value of another type is a
    `UsageError`.
    """
    constants = {name: value for name, value in namespace.items() if name in written or name in RANGES}
    for name, value in constants.items():
        numbers = isinstance(value, tuple) and all(isinstance(entry, int | float) for entry in value)
        expected = "a number, a string in quotes, True, False, or a tuple of numbers like (0.15,)"
        require(numbers or isinstance(value, bool | int | float | str), name, value, expected)
    return constants


def script_constants(script: str | Path, gpu: bool) -> dict:
    """The constants of "main.py", say, by name, as they come out with or without a GPU.

    A `UsageError` where the scripts are not, as leae was installed without them, or where one takes more to compute
    than `gpu` and those above it.
    """
    path, constants = SCRIPTS / script, {}
    if not path.is_file():
        raise UsageError(f"{path} is not there; clone the repository, and run this command in the clone")
    for name, (value, *_) in constants_in(path).items():
        try:
            constants[name] = eval(compile(ast.Expression(value), path, "eval"), {"gpu": gpu}, constants)
        except Exception as error:
            expected = "computed from gpu and the constants above it alone, as this command reads no more"
            raise UsageError(f"{name} in {path} must be {expected}; give it a value") from error
    return constants


def option_of(name: str) -> str:
    """The option that sets a constant: CROP_RATIOS is --crop-ratios."""
    return "--" + name.lower().replace("_", "-")


def arguments_of(name: str, value) -> list[str]:
    """What sets a constant to a value on the command line."""
    if isinstance(value, bool):
        return [option_of(name if value else f"no_{name}")]
    return [option_of(name), *map(str, value if isinstance(value, tuple) else [value])]


def parse_command_line(namespace: dict, written: dict[str, Constant]) -> dict:
    """The constants that the command line sets, by name, each of its type, or a `UsageError`."""
    groups, unknown = {}, Constant(None, "others", "")
    options = {"formatter_class": argparse.RawDescriptionHelpFormatter, "argument_default": argparse.SUPPRESS}
    parser = Parser(description=namespace["__doc__"], allow_abbrev=False, **options)
    for name, default in constants_of(namespace, written).items():
        _, heading, comment = written.get(name, unknown)
        group = groups[heading] = groups.get(heading) or parser.add_argument_group(heading)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text = (f"{comment} [{shown}]" if shown else comment).strip().replace("%", "%%")
        if isinstance(default, bool):
            group.add_argument(option_of(name), dest=name, action=argparse.BooleanOptionalAction, help=text)
            continue
        nargs = "+" if isinstance(default, tuple) else None
        kind = float if nargs or isinstance(RANGES.get(name), str) else type(default)  # 0 may stand for 0.0
        metavar = kind.__name__.upper()
        group.add_argument(option_of(name), dest=name, nargs=nargs, type=kind, metavar=metavar, help=text)
    return {name: tuples(value) for name, value in vars(parser.parse_args()).items()}
