"""A script's upper-case constants as command-line options.

The constants at the top of a script are its settings. The options are read off them, name, type, default and
comment, so that there is nothing to keep in step: `CROP_RATIOS = (0.15, 1.0)  # sides of the crop boxes` becomes
`--crop-ratios 0.15 1.0`.
"""

import argparse
import difflib
import io
import math
import re
import tokenize
from pathlib import Path
from types import SimpleNamespace

from leae.errors import UsageError
from leae.training.schedule import SCHEDULES

CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
MODELS = ("residual", "conv")
MOST = 10**9  # of anything that is counted
MOST_PIXELS = 2048  # along an image's side
MOST_FACES = 10**6
MOST_SHOWN = 100  # images in a row of a grid


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line that says what to do."""

    def error(self, message: str):
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            option = unknown[1].split("=")[0]
            close = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.75)
            message = f"there is no option {option}" + (f", did you mean {close[0]}?" if close else "")
        raise UsageError(f"{message.rstrip('; ')}; --help lists the options")


def comments_of(script: str | Path) -> dict[str, str]:
    """The comment behind each top-level upper-case assignment of a script, by the constant's name."""
    comments, name = {}, None
    for token in tokenize.generate_tokens(io.StringIO(Path(script).read_text(encoding="utf-8")).readline):
        if token.type == tokenize.NAME and token.start[1] == 0:
            name = token.string if CONSTANT.fullmatch(token.string) else None
        elif token.type == tokenize.COMMENT and name and token.start[1] > 0:
            comments[name] = token.string.lstrip("# ")
        elif token.type == tokenize.NEWLINE:
            name = None
    return comments


def constants_of(namespace: dict) -> dict:
    """The upper-case names of a script's namespace that have a comment in its source, with their values."""
    comments = comments_of(namespace["__file__"])
    return {name: namespace[name] for name in comments if name in namespace}


def read_command_line(namespace: dict, arguments: list[str] | None = None) -> dict:
    """The constants that this run's command line sets, by name, each with the type of its default.

    Args:
        namespace: the script's `globals()`.
        arguments: the command line without the script's name; the process's own by default.

    Raises:
        UsageError: an unknown option, or a value of another type than the constant's.
    """
    constants, comments = constants_of(namespace), comments_of(namespace["__file__"])
    parser = Parser(
        description=namespace["__doc__"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for name, default in constants.items():
        option = "--" + name.lower().replace("_", "-")
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{comments[name]} [{shown}]".replace("%", "%%")
        if isinstance(default, bool):
            parser.add_argument(option, dest=name, action=argparse.BooleanOptionalAction, help=text)
        elif isinstance(default, tuple):
            kind = type(default[0]) if default else float
            parser.add_argument(option, dest=name, nargs="+", type=kind, metavar=kind.__name__.upper(), help=text)
        else:
            kind = type(default)
            parser.add_argument(option, dest=name, type=kind, metavar=kind.__name__.upper(), help=text)
    chosen = vars(parser.parse_args(arguments))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}


def require(condition: bool, name: str, value, expected: str) -> None:
    """Refuse a setting: `require(EPOCHS >= 1, "EPOCHS", EPOCHS, "at least 1")`.

    Raises:
        UsageError: the condition does not hold.
    """
    if not condition:
        raise UsageError(f"{name} is {value}; it must be {expected}")


def require_whole(minimum: int, **values) -> None:
    """Refuse settings that are no whole numbers from `minimum` to a billion: `require_whole(1, EPOCHS=EPOCHS)`."""
    for name, value in values.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole and value >= minimum, name, repr(value), f"a whole number, at least {minimum}")
        require(value <= MOST, name, value, f"at most {MOST}")


def require_images(image_size: int, faces: int, names: tuple[str, str] = ("IMAGE_SIZE", "FACES")) -> None:
    """Refuse sizes of images, and numbers of faces to render, that no machine has the room for."""
    require_whole(1, **dict(zip(names, (image_size, faces), strict=True)))
    require(image_size <= MOST_PIXELS, names[0], image_size, f"at most {MOST_PIXELS}")
    require(faces <= MOST_FACES, names[1], faces, f"at most {MOST_FACES}")


def require_numbers(**values) -> None:
    """Refuse settings that are no finite numbers."""
    for name, value in values.items():
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        require(fine, name, repr(value), "a number")


def require_tuples(**values) -> None:
    """Refuse settings that are no tuples of numbers."""
    for name, value in values.items():
        fine = isinstance(value, tuple) and all(isinstance(entry, int | float) for entry in value)
        require(fine, name, repr(value), "numbers in parentheses with a comma behind a single one, as in (0.15,)")


def require_text(**values) -> None:
    """Refuse settings that are no strings."""
    for name, value in values.items():
        require(isinstance(value, str), name, repr(value), "a text in quotes")


def decide(namespace: dict, chosen: dict, reason: str, **values) -> None:
    """Set constants that another one decides: `decide(globals(), chosen, "MODEL conv", IMAGE_SIZE=32)`.

    Raises:
        UsageError: the command line, which set `chosen`, asks for another value.
    """
    for name, value in values.items():
        require(chosen.get(name, value) == value, name, chosen.get(name), f"{value} for {reason}")
        namespace[name] = value


def require_effect(constants: dict, chosen: dict, **idle: dict[str, tuple[str, ...]]) -> None:
    """Refuse options that another constant makes idle, so that nobody waits for an effect of theirs.

    Args:
        constants: the constants of this run.
        chosen: those of them that the command line sets.
        **idle: by constant and value, the names without effect: `LATENT={"pooled": ("SPATIAL_DIM",)}`.

    Raises:
        UsageError: an option has no effect.
    """
    for choice, names_by_value in idle.items():
        value = constants[choice]
        for name in names_by_value.get(value, ()):
            if name in chosen:
                raise UsageError(f"{name} has no effect where {choice} is {value}; leave it out, or choose another")


def require_common(constants: dict, chosen: dict) -> None:
    """Refuse wrong values of the constants that both training scripts have.

    What a room checks itself (the data set's name, the device, the sizes that a model can have) is left to it.

    Args:
        constants: the constants of this run.
        chosen: those of them that the command line sets.
    """
    c = SimpleNamespace(**constants)
    require_whole(0, MAX_STEPS=c.MAX_STEPS)
    whole = isinstance(c.SEED, int) and not isinstance(c.SEED, bool)
    require(whole and 0 <= c.SEED < 2**63, "SEED", repr(c.SEED), "a whole number, at least 0 and below 2**63")
    require_whole(1, HELD_OUT=c.HELD_OUT, EPOCHS=c.EPOCHS)
    require_images(c.IMAGE_SIZE, c.FACES)
    require_whole(1, LATENT_DIM=c.LATENT_DIM, SPATIAL_DIM=c.SPATIAL_DIM, CONV_LATENT_DIM=c.CONV_LATENT_DIM)
    require_whole(1, HIDDEN_DIM=c.HIDDEN_DIM, MAP_CHANNELS=c.MAP_CHANNELS)
    require_whole(1, LOG_EVERY=c.LOG_EVERY, GRID_EVERY=c.GRID_EVERY, GRID_IMAGES=c.GRID_IMAGES)
    require_whole(2, BATCH_SIZE=c.BATCH_SIZE)  # a batch norm needs a batch
    require_numbers(MASK_RATIO=c.MASK_RATIO, LEARNING_RATE=c.LEARNING_RATE, WARMUP=c.WARMUP)
    require_numbers(WEIGHT_DECAY=c.WEIGHT_DECAY, SAVE_MINUTES=c.SAVE_MINUTES)
    require_text(DATASET=c.DATASET, MODEL=c.MODEL, LATENT=c.LATENT, OBJECTIVE=c.OBJECTIVE)
    require_text(SCHEDULE=c.SCHEDULE, DEVICE=c.DEVICE)
    require(isinstance(c.COMPILE, bool), "COMPILE", repr(c.COMPILE), "True or False")
    require(c.MODEL in MODELS, "MODEL", c.MODEL, " or ".join(MODELS))
    require(c.GRID_IMAGES <= MOST_SHOWN, "GRID_IMAGES", c.GRID_IMAGES, f"at most {MOST_SHOWN}")
    require(0 < c.LEARNING_RATE < 1, "LEARNING_RATE", c.LEARNING_RATE, "above 0 and below 1, say 0.001")
    require(0 <= c.WEIGHT_DECAY < 1, "WEIGHT_DECAY", c.WEIGHT_DECAY, "at least 0 and below 1, say 0.01")
    require(c.SAVE_MINUTES >= 0, "SAVE_MINUTES", c.SAVE_MINUTES, "at least 0")
    require(0 <= c.WARMUP < 1, "WARMUP", c.WARMUP, "at least 0 and below 1, say 0.02")
    require(c.SCHEDULE in SCHEDULES, "SCHEDULE", c.SCHEDULE, " or ".join(SCHEDULES))
    require_effect(
        constants,
        chosen,
        MODEL={
            "conv": ("LATENT", "LATENT_DIM", "SPATIAL_DIM", "HIDDEN_DIM", "MAP_CHANNELS"),
            "residual": ("CONV_LATENT_DIM",),
        },
        LATENT={"pooled": ("SPATIAL_DIM",), "spatial": ("LATENT_DIM", "MAP_CHANNELS")},
    )
