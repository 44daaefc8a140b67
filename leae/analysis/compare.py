"""One picture of what several runs make of the same held-out images and the same masks.

    uv run -m leae compare runs/self-teaching-001 runs/masked-001
    uv run -m leae compare runs/*-001 --images 6 --checkpoint 040 --output faces.png

Rows: the originals, their masked views, then for each run the reconstructions of the masked and of the clean views. The
square is outlined in every row.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from leae.analysis.trained import TrainedRun, add_run_arguments, open_runs, require_file
from leae.data.batches import to_float
from leae.errors import require_whole
from leae.randomness import generator
from leae.training.device import find_device
from leae.training.evaluation import MaskedViews, reconstruct
from leae.training.pictures import draw_grid, save_picture
from leae.training.run import RUNS
from leae.training.settings import Parser


def comparison_rows(runs: list[TrainedRun], images: Tensor, views: MaskedViews) -> dict[str, Tensor]:
    """The picture's rows: label → float [N, C, S, S] in [0, 1], for images of that shape."""
    masked = views(images)
    rows = {"original": images, "masked input": masked}
    for run in runs:
        label = f"{run.name}\n{run.method}\n{run.size}, step {run.step:,}\nfrom the"
        rows[f"{label} masked view"] = reconstruct(run.model, masked)
        rows[f"{label} clean view"] = reconstruct(run.model, images)
    return rows


def add_arguments(parser: Parser) -> None:
    add_run_arguments(parser, nargs="+")
    parser.add_argument("--images", type=int, default=8, help="images in the picture [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="for the choice of images and squares [%(default)s]")
    parser.add_argument("--output", type=Path, default=RUNS / "comparison.png", help="the picture [%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, **{"--images": options.images})
    require_whole(0, **{"--seed": options.seed})
    require_file(options.output, "--output", ".png")
    device = find_device(options.device)
    runs = open_runs(options.runs, options.checkpoint, device)
    views = runs[0].views(options.mask_ratio, options.seed)
    dataset = runs[0].open_data()

    test = dataset.images["test"]
    drawn = torch.randperm(len(test), generator=generator(options.seed, "selection"))[: options.images]
    images = to_float(test[drawn.numpy()], device)
    boxes = [(row, column, views.side) for row, column in views.corners(len(images)).tolist()]
    title = f"{dataset.title}, held-out images, {views.image_size}×{views.image_size}; "
    title += f"mask ratio {views.mask_ratio:g}; checkpoint {options.checkpoint}"
    save_picture(draw_grid(comparison_rows(runs, images, views), title, boxes), options.output)
    print(f"comparison: {options.output}")
