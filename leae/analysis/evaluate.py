"""One table of what trained runs are worth: reconstruction, representation, health of the latent.

    uv run -m leae evaluate runs/self-teaching-001 runs/masked-001
    uv run -m leae evaluate runs/*-001 --label-share 0.01
    uv run -m leae evaluate runs/* --csv table.csv --markdown table.md
    uv run -m leae evaluate runs/* --checkpoints all                        learning curves, besides
    uv run --extra perceptual -m leae evaluate runs/*-001 --perceptual      LPIPS and FID, besides

Runs that differ in SEED alone, after as many steps, share a column: means over seeds, with their intervals. All runs
are given the same held-out images and the same masks. Beside them stand an untrained encoder and PCA of the pixels to
as many dimensions, and chance, which answers every image with the training set's mean image. Below are the differences
from the first column. Each run's folder gets its figures in evaluation.json.
"""

import argparse
import math
from pathlib import Path

from leae.analysis.curves import open_curves, pictures_beside, write_curves
from leae.analysis.measure import CODES_FILE, Measured, PerceptualFigures, Sample, measure, read_codes, with_baselines
from leae.analysis.table import CSV_HEAD, columns_of, csv_rows, over_images, report
from leae.analysis.trained import EVALUATION, add_run_arguments, require_file, require_own, runs_of
from leae.errors import require, require_whole
from leae.files import atomic_write, write_csv, write_json
from leae.training.run import versions

TRAIN_IMAGES = 10_000  # to which probes are fitted
HELD_OUT_IMAGES = 20_000  # of the split "test"
LABEL_SHARE = 0.05  # of the training images' labels, for probes by few labels


def write_evaluations(models: list[Measured], sample: Sample) -> None:
    """Write evaluation.json for the measured models that are runs, with the figures of the baselines among them.

    Raises what `require_own` does.
    """
    beside = {model.name: figures_of(model) for model in models if model.run is None}
    for model in models:
        if run := model.run:
            about = {"run": run.folder.name, "checkpoint": run.checkpoint, "step": run.step, "data": run.data}
            content = {**about, "options": sample.options, **figures_of(model), "beside": beside}
            require_own(run.folder / EVALUATION)
            write_json(run.folder / EVALUATION, {**content, "versions": versions()})


def figures_of(model: Measured) -> dict:
    """Every figure with the ends of its interval, null where undefined; those by attribute, and recall by class."""
    estimates = {name: over_images(values) for name, values in model.values.items()}
    figures = {name: [x if math.isfinite(x) else None for x in estimate] for name, estimate in estimates.items()}
    return {"figures": figures, "attributes": model.attributes, "recall": model.recall}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs="+")
    parser.add_argument("--train-images", type=int, default=TRAIN_IMAGES, help="to fit probes to [%(default)s]")
    parser.add_argument("--held-out", type=int, default=HELD_OUT_IMAGES, help="images of the test split [%(default)s]")
    parser.add_argument("--label-share", type=float, default=LABEL_SHARE, help="for probes by few labels [%(default)s]")
    parser.add_argument("--codes", nargs="+", default=[], metavar="NAME=FILE", help="another encoder's codes, .npz")
    parser.add_argument("--save-codes", action="store_true", help=f"write each run's, for --codes, to its {CODES_FILE}")
    parser.add_argument("--perceptual", action="store_true", help="LPIPS and FID as well")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write figures and intervals there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table there")
    besides = "also draw learning curves; fewer --train-images make this faster"
    parser.add_argument("--checkpoints", choices=["all"], help=besides)
    curves = "learning curves as CSV; the pictures go beside it [runs/curves.csv, or -2, …]"
    parser.add_argument("--output", type=Path, help=curves)


def main(options: argparse.Namespace) -> None:
    require_whole(100, **{"--train-images": options.train_images, "--held-out": options.held_out})
    require(0 < options.label_share <= 1, "--label-share", options.label_share, "above 0 and at most 1, say 0.05")
    require_file(options.csv, "--csv", ".csv")
    require_file(options.markdown, "--markdown", ".md")
    runs, device = runs_of(options)
    require_own(*(run.folder / EVALUATION for run in runs))
    require_own(*(run.folder / CODES_FILE for run in runs if options.save_codes))
    if options.output:
        require(options.checkpoints, "--output", str(options.output), "left out unless --checkpoints is all")
        require_file(options.output, "--output", ".csv")
        require_own(*pictures_beside(options.output))
        same = options.csv and options.output.resolve() == options.csv.resolve()
        require(not same, "--output", str(options.output), "another file than --csv")
    curves = open_curves(options.runs, device) if options.checkpoints else []
    views = runs[0].views(options.mask_ratio)
    perceptual = PerceptualFigures(device) if options.perceptual else None
    dataset = runs[0].open_data()

    sample = Sample(dataset, views, options.train_images, options.held_out, options.label_share)
    given = []
    for text in options.codes:
        given.append(read_codes(text, sample, ["chance", *(one.name for one in (*runs, *given))]))
    counts = f"{len(sample.train):,} training and {len(sample.test):,} held-out images"
    probed, few = dataset.label_count, f"by {len(sample.few):,} labels"
    if dataset.class_names:
        probed += f", also {few}"
    elif dataset.attribute_names:
        probed = f"{len(sample.attributes)} attributes, {sample.probed_by_few.sum()} of them {few}"
    title = f"{dataset.title}: {counts}; {probed}; mask ratio {views.mask_ratio:g}"
    print(title)
    models = [*with_baselines(runs, sample.train, device), *given]
    for model in models:
        measure(model, sample, device, perceptual, options.save_codes)
    columns = columns_of(models)
    print(report(columns))
    require_own(options.csv, options.markdown)  # still
    if options.csv:
        write_csv(options.csv, CSV_HEAD, csv_rows(columns, models[0].values))
    if options.markdown:
        with atomic_write(options.markdown) as file:
            file.write(f"{title}\n\n{report(columns)}\n")
    if curves:
        written = write_curves(curves, sample, device, options.output, title)
        print(f"curves: {', '.join(map(str, written))}")
    write_evaluations(models, sample)  # last, as a run's folder may be read-only
    print(f"figures: {EVALUATION} in {', '.join(str(run.folder) for run in runs)}")
