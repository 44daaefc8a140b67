"""One table of what trained runs are worth: reconstruction, representation, health of the latent.

    uv run -m leae evaluate runs/self-teaching-001 runs/masked-001
    uv run -m leae evaluate runs/*-001 --label-share 0.01
    uv run -m leae evaluate runs/* --csv table.csv --markdown table.md
    uv run -m leae evaluate runs/* --checkpoints all                        learning curves, besides
    uv run --extra perceptual -m leae evaluate runs/*-001 --perceptual      LPIPS and FID, besides

Runs that differ in SEED alone share a column: means over seeds, with their intervals. All runs are given the same
held-out images and the same masks. Beside them stand the untrained encoder of the same shape, PCA of the pixels to as
many dimensions, and chance, which answers every image with the training set's mean image. Below are the differences to
the first column. Each run's folder gets its figures in evaluation.json.
"""

import argparse
import json
import math
from dataclasses import astuple
from pathlib import Path

from leae.analysis.curves import AXES, draw_curves, measure_curves, training_minutes, write_curves
from leae.analysis.measure import Measured, PerceptualFigures, Sample, measure, with_baselines
from leae.analysis.table import columns_of, over_images, print_table, table, write_csv, write_markdown
from leae.analysis.trained import add_run_arguments, find_checkpoint, open_runs, require_file
from leae.errors import require, require_whole
from leae.files import atomic_write
from leae.training.device import find_device
from leae.training.pictures import save_picture
from leae.training.run import CHECKPOINTS, RUNS, versions
from leae.training.settings import Parser


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs="+")
    parser.add_argument("--train-images", type=int, default=10_000, help="to fit probes to [%(default)s]")
    parser.add_argument("--held-out", type=int, default=20_000, help="images of the test split [%(default)s]")
    parser.add_argument("--label-share", type=float, default=0.05, help="of labels, for few-label probes [%(default)s]")
    parser.add_argument("--perceptual", action="store_true", help="LPIPS and FID as well")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table there, with interval bounds")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    besides = "also draw learning curves; fewer --train-images make this faster"
    parser.add_argument("--checkpoints", choices=["all"], help=besides)
    curves = "learning curves as CSV; the pictures go beside it [%(default)s]"
    parser.add_argument("--output", type=Path, default=RUNS / "curves.csv", help=curves)


def figures_of(one: Measured) -> dict:
    """Every figure with the ends of its interval, null where undefined, and those of the probes by attribute."""
    estimates = {name: astuple(over_images(values)) for name, values in one.values.items()}
    figures = {name: [x if math.isfinite(x) else None for x in estimate] for name, estimate in estimates.items()}
    return {"figures": figures, "attributes": one.attributes}


def main(options: argparse.Namespace) -> None:
    require_whole(100, **{"--train-images": options.train_images, "--held-out": options.held_out})
    require(0 < options.label_share <= 1, "--label-share", options.label_share, "above 0 and at most 1, say 0.05")
    require_file(options.csv, "--csv", ".csv")
    require_file(options.markdown, "--markdown", ".md")
    device = find_device(options.device)
    runs = open_runs(options.runs, options.checkpoint, device)
    if options.checkpoints:
        require_file(options.output, "--output", ".csv")
        for run in runs:  # what is missing is said now, not after hours of work
            training_minutes(run.run, run.step)
            for name in CHECKPOINTS:
                find_checkpoint(run.run, name)
    views = runs[0].views(options.mask_ratio)
    perceptual = PerceptualFigures(device) if options.perceptual else None
    dataset = runs[0].open_data()

    sample = Sample(dataset, options.train_images, options.held_out, options.label_share, views)
    counts = f"{len(sample.train):,} training and {len(sample.test):,} held-out images"
    title = f"{dataset.title}: {counts}; mask ratio {views.mask_ratio:g}"
    print(title)
    models = with_baselines(runs, sample.train, device)
    for model in sorted(models, key=lambda model: model.pca is not None):  # what others have to beat comes first
        measure(model, sample, perceptual, device)
    columns = columns_of(models)
    lines = table(columns, sample)
    print_table(columns, lines)
    if options.csv:
        write_csv(columns, lines, options.csv)
    if options.markdown:
        write_markdown(columns, lines, options.markdown)

    beside = {model.name: figures_of(model) for model in models if model.run is None}
    for model, run in zip(models, runs, strict=False):
        folder = run.run.folder
        about = {"run": folder.name, "checkpoint": run.checkpoint, "step": run.step, "data": run.run.data}
        measured = {"mask_ratio": views.mask_ratio, "train_images": len(sample.train), "held_out": len(sample.test)}
        about["options"] = {**measured, "label_share": options.label_share}
        content = {**about, **figures_of(model), "beside": beside, "versions": versions()}
        with atomic_write(folder / "evaluation.json") as file:
            json.dump(content, file, indent=2)
    print(f"figures: evaluation.json in {', '.join(str(run.run.folder) for run in runs)}")
    if options.checkpoints:
        curves = measure_curves(options.runs, sample, device)
        write_curves(curves, options.output)
        pictures = [options.output.with_name(f"{options.output.stem}-{axis}.png") for axis in AXES]
        for axis, picture in zip(AXES, pictures, strict=True):
            save_picture(draw_curves(curves, axis, title), picture)
        print(f"curves: {options.output}, {' and '.join(map(str, pictures))}")
