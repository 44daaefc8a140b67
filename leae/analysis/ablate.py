"""Train named variants with several seeds, and compare them: the ablations behind the README's results.

    uv run -m leae ablate --dry-run                          the plan, and how long it takes
    uv run -m leae ablate                                    an evening on two cores, at 32×32
    uv run -m leae ablate --only masked plain --seeds 5
    uv run -m leae ablate --image-size 64 --steps 2000

Existing runs with the same constants are reused, stopped ones are resumed. Each is evaluated as by `leae evaluate`,
unless its evaluation.json has these figures. The table and the picture are runs/ablation.md, .csv and .png.
"""

import argparse
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from leae.analysis.evaluate import HELD_OUT_IMAGES, LABEL_SHARE, TRAIN_IMAGES, evaluate, read_evaluation
from leae.analysis.measure import Measured, Sample
from leae.analysis.table import CSV_HEAD, INCIDENTAL, SUMMARY, Column, csv_rows, markdown, star, text_of
from leae.analysis.trained import TrainedRun, open_runs
from leae.errors import UsageError, require, require_whole
from leae.files import atomic_write, write_csv
from leae.training.device import find_device
from leae.training.pictures import save_picture
from leae.training.run import RUNS, Run
from leae.training.settings import Parser, arguments_of, script_constants

SOURCE = Path(__file__).parents[2]
MAIN, REGULAR = "main.py", "main_regular.py"
MASK_RATIO = 0.35  # of the views that all variants are evaluated on
SAME_TIME = 3.125  # baseline steps that take as long as one self-teaching step, at 32×32 on a CPU
ALTERNATING_SAME_TIME = 1.67  # the same of the alternating objective

PUBLISHED = {"JUDGE_DECAY": 0.0, "JUDGE_NORM": "own", "CROP_RATIOS": (0.15,), "SIGREG_WEIGHT": 0.03}
PUBLISHED |= {"SCHEDULE": "constant", "WARMUP": 0.0, "LEARNING_RATE": 1e-3}

# By name: the script, how many times --steps, and the constants that differ from the script's. All are compared with
# the first one.
VARIANTS = {
    "self-teaching": (MAIN, 1, {}),
    "crops 0.15 alone": (MAIN, 1, {"CROP_RATIOS": (0.15,)}),
    "crops 1.0 alone": (MAIN, 1, {"CROP_RATIOS": (1.0,)}),
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
    "alternating, same time": (MAIN, ALTERNATING_SAME_TIME, {"OBJECTIVE": "alternating"}),
    "norm shared, λ 0.03": (MAIN, 1, {"JUDGE_NORM": "shared", "SIGREG_WEIGHT": 0.03}),
    "as published": (MAIN, 1, PUBLISHED),
    "masked": (REGULAR, 1, {}),
    "masked, same time": (REGULAR, SAME_TIME, {}),
    "masked, SIGReg λ 0.001": (REGULAR, 1, {"SIGREG_WEIGHT": 0.001}),
    "masked, SIGReg λ 0.01": (REGULAR, 1, {"SIGREG_WEIGHT": 0.01}),
    "plain": (REGULAR, 1, {"OBJECTIVE": "plain"}),
    "plain, same time": (REGULAR, SAME_TIME, {"OBJECTIVE": "plain"}),
}
SPEED = {MAIN: 195, REGULAR: 610}  # images a second at 32×32 on one core of a 2.5 GHz Xeon


def defaults_of(variant: str) -> dict:
    """The constants of a variant's script."""
    return script_constants(SOURCE / VARIANTS[variant][0], torch.cuda.is_available())


def wanted(variant: str, seed: int, options: argparse.Namespace) -> dict:
    """The constants of a variant's run, by name."""
    (_, times, differing), constants = VARIANTS[variant], defaults_of(variant)
    steps = round(times * options.steps)
    least = constants["FACES"] if options.dataset == "faces" else constants["BATCH_SIZE"]  # images in an epoch
    epochs = max(constants["EPOCHS"], -(-steps * constants["BATCH_SIZE"] // least))
    sizes = {"DATASET": options.dataset, "IMAGE_SIZE": options.image_size, "MAX_STEPS": steps, "EPOCHS": epochs}
    return constants | sizes | {"SEED": seed, "DEVICE": options.device} | differing


def find_run(constants: dict, defaults: dict) -> Run | None:
    """The run in runs/ with these constants of its script, finished or not.

    One that the run lacks counts as the script's default; a run with one that the script lacks is another version's.
    """
    for path in sorted(RUNS.glob("*/settings.json")):
        with suppress(UsageError):  # it is damaged
            run = Run.read(path.parent)
            settings, compared = defaults | run.settings, constants.keys() - set(INCIDENTAL)
            if settings.keys() == constants.keys() and all(settings[name] == constants[name] for name in compared):
                return run
    return None


def is_finished(run: Run | None) -> bool:
    return run is not None and (run.folder / "checkpoints" / "100.safetensors").is_file()


def minutes_of(constants: dict, script: str) -> float:
    """About how long a run takes, by SPEED."""
    scale = (constants["IMAGE_SIZE"] / 32) ** 2
    return constants["MAX_STEPS"] * constants["BATCH_SIZE"] * scale / SPEED[script] / 60


def train(variant: str, constants: dict, run: Run | None) -> Run:
    """Make a run, or go on with it, by its script, in a process of its own; a `UsageError` if that fails."""
    script = SOURCE / VARIANTS[variant][0]
    defaults, line = defaults_of(variant), []
    asked = {"RESUME": run.folder, "DEVICE": constants["DEVICE"]} if run else constants
    for name, value in asked.items():
        if value != defaults[name]:
            line += arguments_of(name, value)
    print(f"{variant}, seed {constants['SEED']}: {script.name} {' '.join(line)}", flush=True)
    if subprocess.run([sys.executable, script, *line], check=False).returncode:
        raise UsageError(f"{variant}: the run did not finish; run the same command again to continue")
    return find_run(constants, defaults)


def measured(run: TrainedRun, sample: Sample, device: torch.device) -> Measured:
    """The figures in a run's evaluation.json, without their intervals over images; evaluates it if there are none."""
    figures = read_evaluation(run, sample)
    if figures is None:
        evaluate([Measured(run.name, run.model, run)], sample, device)
        figures = read_evaluation(run, sample)
    return Measured(run.name, None, values={name: np.array([value]) for name, value in figures.items()})


def table(columns: list[Column]) -> str:
    """In Markdown a row for each variant, with its figures' means over seeds ± half of their 95 % intervals.

    A star marks a paired difference from the first variant whose interval excludes zero.
    """
    by_figure = [[column.title for column in columns], [str(len(column.models)) for column in columns]]
    for name, (_, form) in SUMMARY.items():
        marks = [star(column.difference_from(columns[0], name)) for column in columns]
        by_figure.append([text_of(c.estimate(name), form, m) for c, m in zip(columns, marks, strict=True)])
    return markdown(["", "seeds", *(title for title, _ in SUMMARY.values())], zip(*by_figure, strict=True))


def draw(columns: list[Column], title: str) -> Figure:
    """Every figure of every variant with its interval, beside the first variant's."""
    figure = Figure(figsize=(18, 2 + 0.55 * len(columns)), layout="constrained")
    panels, titles = figure.subplots(2, 5, sharey=True), [column.title for column in columns]
    for axes, (name, (title_of, _)) in zip(panels.flat, SUMMARY.items(), strict=True):
        estimates = [column.estimate(name) for column in columns]
        values = np.array([one or 3 * [np.nan] for one in estimates]).T  # value, low and high of each variant
        axes.axvspan(values[1, 0], values[2, 0], color="C0", alpha=0.15, linewidth=0)
        axes.errorbar(values[0], titles, xerr=np.nan_to_num(abs(values[1:] - values[0])), fmt="o", capsize=3)
        axes.set(title=title_of)
        axes.margins(y=0.5 / len(columns))
        if name == "sigreg_statistic":
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0, 0].invert_yaxis()
    figure.suptitle(title)
    return figure


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"variants: {'; '.join(VARIANTS)} [all]")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant [%(default)s]")
    parser.add_argument("--steps", type=int, default=640, help="steps of each run [%(default)s]")
    parser.add_argument("--image-size", type=int, default=32, help="side in pixels [%(default)s]")
    parser.add_argument("--dataset", default="faces", help="as in the scripts, except auto [%(default)s]")
    parser.add_argument("--dry-run", action="store_true", help="print the plan")
    parser.add_argument("--device", default="auto", help="cuda, mps, cpu, or the first available [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, **{"--seeds": options.seeds, "--steps": options.steps, "--image-size": options.image_size})
    require(options.dataset != "auto", "--dataset", "auto", "the data set's own name, by which its runs are found")
    chosen = options.only or list(VARIANTS)
    for name in chosen:
        require(name in VARIANTS, "--only", name, f"one of {'; '.join(VARIANTS)}")
    device, runs, plan, minutes = find_device(options.device), {}, [], 0.0
    for variant in chosen:
        script, times, differing = VARIANTS[variant]
        constants = [wanted(variant, seed, options) for seed in range(options.seeds)]
        found = [find_run(one, defaults_of(variant)) for one in constants]
        runs |= {(variant, seed): run for seed, run in enumerate(found)}
        there = sum(map(is_finished, found))
        minutes += (options.seeds - there) * minutes_of(constants[0], script)
        told = ", ".join(f"{name} {value}" for name, value in differing.items()) or "its defaults"
        text = f"{there} of {options.seeds} there; {script}, {times * options.steps:,.0f} steps, {told}"
        plan.append(f"  {variant:32} {text}")
    missing = sum(not is_finished(run) for run in runs.values())
    print(f"{len(runs)} runs, {missing} of them to be trained: {minutes:,.0f} minutes on one core of a 2.5 GHz Xeon")
    print("\n".join(plan))
    if options.dry_run:
        return

    sample, by_seed = None, {variant: {} for variant in chosen}
    title = f"{options.dataset} at {options.image_size}×{options.image_size}, {options.steps:,} steps, by seeds"
    for (variant, seed), run in runs.items():
        if not is_finished(run):
            run = train(variant, wanted(variant, seed, options), run)
        [trained] = open_runs([str(run.folder)], "100", device)
        if sample is None:
            views = trained.views(MASK_RATIO)
            sample = Sample(trained.open_data(), views, TRAIN_IMAGES, HELD_OUT_IMAGES, LABEL_SHARE)
        by_seed[variant][seed] = measured(trained, sample, device)
        columns = [Column(name, models) for name, models in by_seed.items() if models]
        with atomic_write(RUNS / "ablation.md") as file:
            file.write(f"{title}\n\n{table(columns)}")
    rows = [row for column in columns for row in csv_rows(column, columns[0], SUMMARY)]
    write_csv(RUNS / "ablation.csv", CSV_HEAD, rows)
    save_picture(draw(columns, title), RUNS / "ablation.png")
    print(f"{table(columns)}\ntable and picture: {RUNS / 'ablation.md'}, .csv and .png")
