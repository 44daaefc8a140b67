"""Train named variants with several seeds, and compare them: the ablations behind RESULTS.md.

    uv run -m leae ablate --dry-run                          what would be trained, and for how long
    uv run -m leae ablate                                    an evening on two cores, at 32×32
    uv run -m leae ablate --only masked plain --seeds 5
    uv run -m leae ablate --image-size 64 --steps 2000

Existing runs with the same constants are reused, stopped ones are resumed. Each is evaluated as by `leae evaluate`,
unless its evaluation.json has these figures. Table and picture are runs/ablation.md (or ablation-2.md), .csv and .png.
"""

import argparse
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from itertools import chain

import numpy as np
import torch
from matplotlib.figure import Figure

from leae.analysis.curves import summary_panels
from leae.analysis.evaluate import HELD_OUT_IMAGES, LABEL_SHARE, TRAIN_IMAGES, write_evaluations
from leae.analysis.measure import Measured, Sample, measure
from leae.analysis.table import CSV_HEAD, FIGURES, INCIDENTAL, Column, csv_rows, markdown, summary_of, text_of
from leae.analysis.trained import EVALUATION, TrainedRun, open_runs, output_path, require_own, require_same_images
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write, write_csv
from leae.training.device import PRECISIONS, find_device
from leae.training.loop import StopSignal
from leae.training.pictures import save_picture
from leae.training.run import RUNS, Run
from leae.training.settings import SCRIPTS, Parser, arguments_of, script_constants

MAIN, REGULAR = "main.py", "main_regular.py"
MASK_RATIO = 0.35  # of the views that all variants are evaluated on
SAME_TIME = 3.125  # baseline steps that take as long as one self-teaching step, at 32×32 on a CPU
ALTERNATING_SAME_TIME = 1.67  # the same of the alternating objective
CROP_SAME_TIME = 1.85  # and of the crop objective
MOST_SEEDS = 1000
SPEED = {MAIN: 195, REGULAR: 610}  # images a second at 32×32 on one core of a 2.5 GHz Xeon

PUBLISHED = {"JUDGE_DECAY": 0.0, "JUDGE_NORM": "own", "CROP_RATIOS": (0.15,), "SIGREG_WEIGHT": 0.03}
PUBLISHED |= {"SCHEDULE": "constant", "WARMUP": 0.0, "LEARNING_RATE": 1e-3}
SPATIAL = {"LATENT": "spatial", "SPATIAL_DIM": 8}  # at 32×32 as many numbers a code as pooled
ONE_VIEW = {"OBJECTIVE": "alternating"}
RECIPE = {"OBJECTIVE": "crop", "LATENT": "spatial", "JUDGE_DECAY": 0.0}  # its author's for the best reconstruction

# By name: the script, how many times --steps, and the constants that differ from the script's. All are compared with
# the first one.
VARIANTS = {
    "self-teaching": (MAIN, 1, {}),
    "crops 0.15 alone": (MAIN, 1, {"CROP_RATIOS": (0.15,)}),
    "crops 1.0 alone": (MAIN, 1, {"CROP_RATIOS": (1.0,)}),
    "crops 0.35 and 1.0": (MAIN, 1, {"CROP_RATIOS": (0.35, 1.0)}),
    "live judge": (MAIN, 1, {"JUDGE_LIVE": True}),
    "judge frozen within a step": (MAIN, 1, {"JUDGE_DECAY": 0.0}),
    "judge decay 0.999": (MAIN, 1, {"JUDGE_DECAY": 0.999}),
    "norm own": (MAIN, 1, {"JUDGE_NORM": "own"}),
    "norm shared": (MAIN, 1, {"JUDGE_NORM": "shared"}),
    "norm whitened, ε 0.3": (MAIN, 1, {"WHITENING_EPSILON": 0.3}),
    "half the rate": (MAIN, 1, {"LEARNING_RATE": 1e-3}),
    "half the rate, norm own": (MAIN, 1, {"LEARNING_RATE": 1e-3, "JUDGE_NORM": "own"}),
    "half the rate, norm shared": (MAIN, 1, {"LEARNING_RATE": 1e-3, "JUDGE_NORM": "shared"}),
    "λ 0": (MAIN, 1, {"SIGREG_WEIGHT": 0.0}),
    "λ 0.03": (MAIN, 1, {"SIGREG_WEIGHT": 0.03}),
    "λ 0.3": (MAIN, 1, {"SIGREG_WEIGHT": 0.3}),
    "λ 1": (MAIN, 1, {"SIGREG_WEIGHT": 1.0}),
    "mask ratio 0.6": (MAIN, 1, {"MASK_RATIO": 0.6}),
    "no masked view (crop objective)": (MAIN, 1, {"OBJECTIVE": "crop"}),
    "alternating, same time": (MAIN, ALTERNATING_SAME_TIME, ONE_VIEW),
    "alternating, λ 0.03, same time": (MAIN, ALTERNATING_SAME_TIME, {**ONE_VIEW, "SIGREG_WEIGHT": 0.03}),
    "crop objective, same time": (MAIN, CROP_SAME_TIME, {"OBJECTIVE": "crop"}),
    "crop objective, spatial, same time": (MAIN, CROP_SAME_TIME, {**SPATIAL, "OBJECTIVE": "crop"}),
    "best reconstruction, same time": (MAIN, CROP_SAME_TIME, RECIPE),
    "best reconstruction, crops 0.15 alone, same time": (MAIN, CROP_SAME_TIME, {**RECIPE, "CROP_RATIOS": (0.15,)}),
    "best reconstruction, norm own, same time": (MAIN, CROP_SAME_TIME, {**RECIPE, "JUDGE_NORM": "own"}),
    "norm shared, λ 0.03": (MAIN, 1, {"JUDGE_NORM": "shared", "SIGREG_WEIGHT": 0.03}),
    "as published": (MAIN, 1, PUBLISHED),
    "masked": (REGULAR, 1, {}),
    "masked, same time": (REGULAR, SAME_TIME, {}),
    "masked, SIGReg λ 0.001": (REGULAR, 1, {"SIGREG_WEIGHT": 0.001}),
    "masked, SIGReg λ 0.01": (REGULAR, 1, {"SIGREG_WEIGHT": 0.01}),
    "plain": (REGULAR, 1, {"OBJECTIVE": "plain"}),
    "plain, spatial, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain", "LATENT": "spatial"}),
    "plain, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain"}),
    "masked, SIGReg λ 0.003, same time": (REGULAR, SAME_TIME, {"SIGREG_WEIGHT": 0.003}),
    "masked, SIGReg λ 0.01, same time": (REGULAR, SAME_TIME, {"SIGREG_WEIGHT": 0.01}),
    "masked, SIGReg λ 0.03, same time": (REGULAR, SAME_TIME, {"SIGREG_WEIGHT": 0.03}),
    "plain, SIGReg λ 0.003, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain", "SIGREG_WEIGHT": 0.003}),
    "plain, SIGReg λ 0.01, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain", "SIGREG_WEIGHT": 0.01}),
    "plain, SIGReg λ 0.03, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain", "SIGREG_WEIGHT": 0.03}),
}


def defaults_of(variant: str) -> dict:
    """The constants of a variant's script."""
    return script_constants(VARIANTS[variant][0], torch.cuda.is_available())


def wanted(variant: str, seed: int, options: argparse.Namespace) -> dict:
    """The constants of a variant's run, by name."""
    _, times, differing = VARIANTS[variant]
    steps = round(times * options.steps)
    sizes = {"DATASET": options.dataset, "IMAGE_SIZE": options.image_size}
    length = {"MAX_STEPS": steps, "EPOCHS": steps}  # an epoch has a step at least
    computing = {"DEVICE": options.device, "PRECISION": options.precision}
    return {**defaults_of(variant), **sizes, **length, **computing, "SEED": seed, **differing}


def find_run(constants: dict) -> Run | None:
    """A run in runs/ with these constants, a finished one if there is any."""

    def experiment(settings: dict) -> dict:
        return {name: value for name, value in settings.items() if name not in ("RESUME", *INCIDENTAL)}

    found = []
    for path in sorted(RUNS.glob("*/settings.json")):
        with suppress(UsageError):  # it is damaged
            run = Run.read(path.parent)
            if experiment(run.settings) == experiment(constants) and not run.is_exported:
                found.append(run)
    return max(found, key=is_finished, default=None)


def is_finished(run: Run | None) -> bool:
    return run is not None and (run.folder / "checkpoints" / "100.safetensors").is_file()


def minutes_of(constants: dict, script: str) -> float:
    """About how long a run takes, by SPEED."""
    pixels = (constants["IMAGE_SIZE"] / 32) ** 2
    return constants["MAX_STEPS"] * constants["BATCH_SIZE"] * pixels / SPEED[script] / 60


def command_for(variant: str, constants: dict, run: Run | None) -> list[str]:
    """The script and its options that make a run, or go on with it."""
    defaults = defaults_of(variant)
    asked = {"RESUME": str(run.folder), "DEVICE": constants["DEVICE"]} if run else constants
    options = [arguments_of(name, value) for name, value in asked.items() if value != defaults[name]]
    return [str(SCRIPTS / VARIANTS[variant][0]), *chain(*options)]


def train(command: list[str]) -> int:
    """Run a script; its exit status. A first signal to end is passed on, so that it saves; a second one kills it."""
    with StopSignal() as stop:
        child = subprocess.Popen([sys.executable, *command], process_group=0)  # a terminal sends it no Ctrl-C
        try:
            while child.poll() is None and stop.received is None:
                time.sleep(0.1)
            if stop.received is not None:
                child.send_signal(stop.received)
            child.wait()
        finally:
            child.kill()
    if stop.received is not None:
        raise KeyboardInterrupt(stop.received)
    return child.returncode


def read_evaluation(run: TrainedRun, sample: Sample) -> dict[str, np.ndarray] | None:
    """The figures in a run's evaluation.json, NaN where undefined; None if there are none of this step and sample."""
    content = run.evaluation()
    if not content or (content["data"].get("identity"), content["options"]) != (run.data["identity"], sample.options):
        return None
    return {name: np.array([value], float) for name, (value, *_) in content["figures"].items()}


def measured(run: TrainedRun, sample: Sample, device: torch.device) -> Measured:
    """The figures in a run's evaluation.json, without their intervals over images; evaluates it if there are none."""
    values = read_evaluation(run, sample)
    if values is None:
        require_own(run.folder / EVALUATION)
        one = Measured(run.name, run.model, run)
        measure(one, sample, device)
        write_evaluations([one], sample)
        values = read_evaluation(run, sample)
    return Measured(run.name, None, values=values)


def table(columns: list[Column]) -> str:
    """In Markdown a row for each variant, with its figures' means over seeds ± half of their 95 % intervals.

    A star marks a paired difference from the first variant whose interval excludes zero.
    """
    rows, names = [], summary_of(columns)
    for column in columns:
        stars = [column.difference_from(columns[0], name).star for name in names]
        texts = [text_of(column.estimate(name), FIGURES[name][1]) for name in names]
        rows.append([column.title, str(len(column.by_seed)), *map("".join, zip(texts, stars, strict=True))])
    return markdown(["", "seeds", *(FIGURES[name][0] for name in names)], rows)


def draw(columns: list[Column], title: str) -> Figure:
    """Every figure of every variant with its interval, beside the first variant's."""
    figure, panels = summary_panels(columns, 2 + 0.55 * len(columns), sharey=True)
    titles = [column.title for column in columns]
    for name, axes in panels.items():
        values, low, high = np.transpose([column.estimate(name) for column in columns])
        axes.axvspan(low[0], high[0], alpha=0.15, linewidth=0)
        axes.errorbar(values, titles, xerr=(values - low, high - values), fmt="o", capsize=3)
        axes.margins(y=0.1)
    axes.invert_yaxis()  # which all panels share
    figure.suptitle(title)
    return figure


def add_arguments(parser: Parser) -> None:
    names = f"variants: {'; '.join(VARIANTS)} [all]"
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=VARIANTS, default=list(VARIANTS), help=names)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant [%(default)s]")
    parser.add_argument("--steps", type=int, default=640, help="steps of each run [%(default)s]")
    parser.add_argument("--image-size", type=int, default=32, help="side in pixels [%(default)s]")
    parser.add_argument("--dataset", default="faces", help="as in the scripts, except auto [%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="print what would be trained, and for how long")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="as in the scripts [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, **{"--steps": options.steps, "--image-size": options.image_size})
    require_whole(1, MOST_SEEDS, **{"--seeds": options.seeds})
    require(options.dataset != "auto", "--dataset", "auto", "the data set's own name, by which its runs are found")
    device = find_device(options.device)
    planned = {(name, seed): wanted(name, seed, options) for name in options.only for seed in range(options.seeds)}
    missing = [key for key, constants in planned.items() if not is_finished(find_run(constants))]
    minutes = sum(minutes_of(planned[variant, seed], VARIANTS[variant][0]) for variant, seed in missing)
    said = "" if device.type == "cuda" else f", about {minutes:,.0f} minutes on one core of a 2.5 GHz Xeon in float32"
    print(f"{len(planned)} runs, {len(missing)} of them to be trained{said}")
    for variant, seed in missing:
        constants = planned[variant, seed]
        command = command_for(variant, constants, find_run(constants))
        print(f"{variant}, seed {seed}: uv run {shlex.join(command)}", flush=True)
        if not options.dry_run and train(command):
            raise UsageError(f"{variant}: the run did not finish, as said above; the same command continues with it")
    if options.dry_run:
        return

    sample, first, columns = None, None, [Column(variant, {}) for variant in options.only]
    for column in columns:
        for seed in range(options.seeds):
            [run] = open_runs([str(find_run(planned[column.title, seed]).folder)], "100", device)
            first = first or run
            require_same_images([first, run])
            if sample is None:
                sample = Sample(run.open_data(), run.views(MASK_RATIO), TRAIN_IMAGES, HELD_OUT_IMAGES, LABEL_SHARE)
            column.by_seed[seed] = measured(run, sample, device)
    title = f"{options.dataset} at {options.image_size}×{options.image_size}, {options.steps:,} steps, by seeds"
    with output_path(None, "ablation", ".md", ".csv", ".png") as output:
        with atomic_write(output) as file:
            file.write(f"{title}\n\n{table(columns)}\n")
        write_csv(output.with_suffix(".csv"), CSV_HEAD, csv_rows(columns, summary_of(columns)))
        save_picture(draw(columns, title), output.with_suffix(".png"))
    print(f"{table(columns)}\ntable and picture: {output}, .csv and .png")
