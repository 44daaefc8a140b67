"""A run's model as a folder that model hubs take: weights, configuration, a model card with its figures.

    uv run -m leae export runs/self-teaching-001 path/to/folder
    uv run --extra onnx -m leae export runs/self-teaching-001 path/to/folder --onnx

`leae.load("path/to/folder")` reads it, and `leae.load("owner/name")` once it is on a hub; where the run's data are, the
other commands accept it for the run, whose settings.json it has. --onnx adds encoder.onnx, images float32 [N, C, S, S]
in [0, 1] to codes, and decoder.onnx, codes to images, for any N.
"""

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from leae.analysis.table import FIGURES
from leae.analysis.trained import TrainedRun, add_run_arguments, require_extra, runs_of
from leae.autoencoder import BaseAutoencoder
from leae.checkpoints import CONFIG, SETTINGS, WEIGHTS, state_of, write_checkpoint
from leae.distributed import FunctionOf
from leae.errors import UsageError, require
from leae.files import as_utf8, atomic_write, read_bytes, write_json
from leae.training.run import read_metrics, read_settings

# The model card; hubs read the YAML on top.
CARD = """\
---
license: {license}
library_name: leae
pipeline_tag: image-feature-extraction
tags:
- autoencoder
- self-supervised
- representation-learning
---

# {name}

An autoencoder ({run.method}), step {run.step:,}. It maps images of {images} to
codes of {codes} numbers, {run.model.compression:.0f}× compression, and back. It was
trained on {data}, whose own terms apply as well.

    import leae         # pip install path/to/clone of its repository, or git+ and the repository's address
    model = leae.load("path/to/this/folder")            # or "owner/name", where a hub has it
    codes = leae.embed(model, "path/to/images")         # numpy, float32 [N, {columns}]
{picture}{figures}
## How it was trained

By leae's {script}, with these constants:

{constants}

Device: {device}. Versions: {versions}. Data, as a digest: {run.data[identity]}.
"""
PICTURE = "\n![held-out images and what the model makes of them](grid.png)\n"


def write_onnx(model: BaseAutoencoder, folder: Path) -> None:
    """encoder.onnx and decoder.onnx of a model on the CPU, in evaluation mode."""
    encoder = FunctionOf(type(model).encode, model), torch.rand(2, *model.image_shape), "images", "codes"
    decoder = FunctionOf(type(model).decode, model), torch.rand(2, *model.latent_shape), "codes", "images"
    for name, (graph, example, given, result) in (("encoder", encoder), ("decoder", decoder)):
        options = {"input_names": [given], "output_names": [result], "external_data": False, "verbose": False}
        shapes = (({0: torch.export.Dim("N")},),)
        with torch.no_grad():
            program = torch.onnx.export(graph.eval(), (example,), dynamo=True, dynamic_shapes=shapes, **options)
        with atomic_write(folder / f"{name}.onnx", "wb") as file:
            file.write(program.model_proto.SerializeToString())


def held_out_figures(run: TrainedRun) -> str:
    """A section in Markdown of what `evaluate` measured of this checkpoint, or else of what training did, if any."""
    evaluated = run.evaluation()
    ratio = evaluated.get("options", {}).get("mask_ratio")
    figures = {name: value for name, (value, *_) in evaluated.get("figures", {}).items() if value is not None}
    if not evaluated and (run.folder / "metrics.csv").exists():
        for row in read_metrics(run.folder):
            if row["split"] != "train" and int(row["step"]) == run.step:
                figures = {name: float(value) for name, value in row.items() if name not in ("split", "step", "epoch")}
    labels = {name: FIGURES.get(name, [name.replace("_", " ").replace("psnr", "PSNR (dB),")])[0] for name in figures}
    rows = "".join(f"| {labels[name]} | {value:.4g} |\n" for name, value in figures.items())
    said = f"Masked views were evaluated at a mask ratio of {ratio:g}.\n\n" if isinstance(ratio, int | float) else ""
    return f"\n## Figures on held-out images\n\n{said}| figure | value |\n|---|---|\n{rows}" if rows else ""


def model_card(run: TrainedRun, license: str, grid: bool) -> str:
    """CARD with what it says of a run's model; `grid` is whether grid.png lies beside it."""
    content, sizes = read_settings(run.folder), run.model.latent_shape
    script = "main.py" if run.kind == "self-teaching" else "main_regular.py"
    name = Path(run.data["name"]).name  # without its path, as all that is said
    said = run.settings | {"DATASET": name, "INIT": Path(str(run.settings.get("INIT", ""))).name}
    return CARD.format(
        run=run,
        license=license,
        data=run.data["title"].replace(str(Path(run.data["name"])), name),
        name=run.folder.resolve().name,
        images=" × ".join(map(str, run.model.image_shape)),
        codes=" × ".join(map(str, sizes)),
        columns=", ".join(map(str, sizes)),
        picture=PICTURE if grid else "",
        figures=held_out_figures(run),
        script=script,
        constants="\n".join(f"    {name} = {value!r}" for name, value in said.items()),
        device=content["device"],
        versions=", ".join(f"{name} {version}" for name, version in content["versions"].items()),
    )


def require_empty(folder: Path) -> None:
    """Refuse a folder that has anything but hidden files in it: `UsageError`."""
    if there := sorted(folder.glob("[!.]*"))[:1]:
        raise UsageError(f"{folder} has {there[0].name} in it, and an export replaces nothing; choose a new folder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs=1, masks=False)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a new one, or with hidden files alone")
    parser.add_argument("--license", default="mit", help="of the weights, by a hub's name for it [%(default)s]")
    parser.add_argument("--onnx", action="store_true", help="encoder.onnx and decoder.onnx as well")


def main(options: argparse.Namespace) -> None:
    folder = options.folder
    plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.license)
    require(plain is not None, "--license", options.license, "an identifier as in mit, cc-by-4.0 or other")
    require_empty(folder)
    if options.onnx:
        require_extra("--onnx", "onnx", "onnx", "onnxscript")
    [run], _ = runs_of(options)
    model = run.model.cpu()
    grids = [run.folder / "grids" / f"{name}-{run.step:06d}.png" for name in ("test", "valid")]
    exported = [run.folder / "grid.png"] if run.checkpoint == "model" else []
    grid = next((path for path in (*exported, *grids) if path.is_file()), None)
    card = model_card(run, options.license, grid is not None)
    config = {"library": "leae", "class": type(model).__name__, "settings": model.settings, "step": run.step}
    config |= {"image_shape": model.image_shape, "latent_shape": model.latent_shape}

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder) as place:
        new = Path(place)
        write_checkpoint(new / WEIGHTS, model, run.step, state_of(model))
        write_json(new / SETTINGS, read_settings(run.folder))
        write_json(new / CONFIG, config)
        if options.onnx:
            write_onnx(model, new)
        if grid:
            (new / "grid.png").write_bytes(read_bytes(grid))
        (new / "README.md").write_text(as_utf8(card), encoding="utf-8", newline="")
        require_empty(folder)  # still
        names = sorted(path.name for path in new.iterdir())
        for name in names:
            (new / name).rename(folder / name)
    print(f"exported: {', '.join(names)} in {folder}")
