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

from leae.analysis.trained import FinishedRun, add_options, open_data, open_runs, views_for
from leae.data.prepare import to_float
from leae.errors import UsageError, run_command
from leae.files import whole_file
from leae.masking import mask_side
from leae.randomness import generator
from leae.training.device import find_device
from leae.training.evaluation import MaskedViews, reconstruct
from leae.training.pictures import draw_grid
from leae.training.run import RUNS
from leae.training.settings import Parser, require_whole


def comparison_rows(runs: list[FinishedRun], images: Tensor, views: MaskedViews) -> dict[str, Tensor]:
    """The rows of the picture: label → float [N, C, S, S] in [0, 1].

    Args:
        runs: whose models reconstruct.
        images: float [N, C, S, S] in [0, 1], on the models' device.
        views: the masks; the first image is number 0.
    """
    masked = views(images)
    rows = {"original": images, "masked input": masked}
    for run in runs:
        label = f"{run.name}\n{run.method}\n{run.size}, step {run.step:,}\nfrom the"
        rows[f"{label} masked view"] = reconstruct(run.model, masked)
        rows[f"{label} clean view"] = reconstruct(run.model, images)
    return rows


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "RUN", nargs="+")
    parser.add_argument("--images", type=int, default=8, help="images in the picture [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of which images and where the squares are [%(default)s]")
    parser.add_argument("--output", default=str(RUNS / "comparison.png"), help="the picture's file [%(default)s]")
    chosen = parser.parse_args()
    require_whole(1, **{"--images": chosen.images})
    require_whole(0, **{"--seed": chosen.seed})
    output = Path(chosen.output)
    if output.suffix.lower() != ".png" or not output.parent.is_dir():
        raise UsageError(f"--output is {output}; it must be a .png file in a folder that exists")
    device = find_device(chosen.device)
    runs = open_runs(chosen.runs, chosen.checkpoint, device)
    views = views_for(runs[0], chosen.mask_ratio, chosen.seed)
    dataset = open_data(runs[0])

    held_out = dataset.images["test"]
    order = torch.randperm(len(held_out), generator=generator(chosen.seed, "selection"))[: chosen.images]
    images = to_float(held_out[order.numpy()], device)
    side = mask_side(images.shape[-1], views.mask_ratio)
    boxes = [(row, column, side) for row, column in views.corners(len(images), images.shape[-1]).tolist()]
    title = (
        f"{dataset.title}, held-out images, {images.shape[-1]}×{images.shape[-1]}; "
        f"mask ratio {views.mask_ratio:g}; checkpoint {chosen.checkpoint}"
    )
    with whole_file(output, "wb") as file:
        draw_grid(comparison_rows(runs, images, views), title, boxes).save(file, format="PNG", optimize=True)
    print(f"comparison: {output}")


if __name__ == "__main__":
    run_command(main)
