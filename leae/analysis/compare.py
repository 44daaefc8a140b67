"""One picture of what several runs make of the same held-out images and the same masks.

    uv run -m leae compare runs/self-teaching-001 runs/masked-001
    uv run -m leae compare runs/*-001 --images 6 --checkpoint 040 --output faces.png

Rows: the originals, their masked views, then for each run the reconstructions of the masked and of the clean views,
each with its mean PSNR on the images shown. The square is outlined in every row.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from leae.analysis.trained import TrainedRun, add_run_arguments, distinct_names, output_path, require_file, runs_of
from leae.data.batches import to_float
from leae.errors import require_whole
from leae.randomness import generator
from leae.training.evaluation import MaskedViews, psnr, reconstruct
from leae.training.pictures import draw_grid, save_picture


def comparison_rows(runs: list[TrainedRun], images: Tensor, views: MaskedViews) -> dict[str, Tensor]:
    """The picture's rows: label → float [N, C, S, S] in [0, 1], for images of that shape; and their mean PSNR."""
    masked = views(images)
    shown = {"masked input": masked}
    for run, name in zip(runs, distinct_names(runs), strict=True):
        about = f"{name}\n{run.method}\n{run.size}, step {run.step:,}"
        shown[f"{about}\nfrom the masked view"] = reconstruct(run.model, masked)
        shown[f"{name}\nfrom the clean view"] = reconstruct(run.model, images)
    return {"original": images} | {f"{label}, {psnr(row, images).mean():.2f} dB": row for label, row in shown.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs="+")
    parser.add_argument("--images", type=int, default=8, help="images in the picture, at most 100 [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="for the choice of images and squares [%(default)s]")
    parser.add_argument("--output", type=Path, help="the picture [runs/comparison.png, or -2, …]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, 100, **{"--images": options.images})
    require_whole(0, **{"--seed": options.seed})
    require_file(options.output, "--output", ".png")
    runs, device = runs_of(options)
    views = runs[0].views(options.mask_ratio, options.seed)
    dataset = runs[0].open_data()

    test = dataset.images["test"]
    drawn = torch.randperm(len(test), generator=generator(options.seed, "selection"))[: options.images]
    images = to_float(test[drawn.numpy()], device)
    boxes = [(row, column, views.side) for row, column in views.corners(len(images)).tolist()]
    title = f"{dataset.title}, held-out images, {views.image_size}×{views.image_size}; "
    title += f"mask ratio {views.mask_ratio:g}"
    picture = draw_grid(comparison_rows(runs, images, views), title, boxes)
    with output_path(options.output, "comparison", ".png") as output:
        save_picture(picture, output)
    print(f"comparison: {output}")
