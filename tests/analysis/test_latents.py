"""The latents command: what its pictures show, against plain computations, and what it refuses."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from leae.analysis import latents
from leae.analysis.latents import WALK, LatentSpace, draw_all, read_codes
from leae.analysis.trained import FinishedRun
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.conv_autoencoder import ConvAutoencoder
from leae.data.prepare import Dataset, to_float
from leae.errors import UsageError
from leae.training.evaluation import psnr, reconstruct
from leae.training.run import Run
from tests.conftest import TINY, run_module, run_script, write_image

CPU = torch.device("cpu")
BRIEF = [*TINY, "--max-steps", "1"]
PICTURES = ["map-pca", "map-tsne", "interpolations", "attribute-walks", "neighbours", "samples", "extremes"]
MODELS = {
    "pooled": lambda: Autoencoder(16, 3, 4, "pooled", 8, 4),
    "spatial": lambda: Autoencoder(16, 3, 4, "spatial", 4),
    "variational, spatial": lambda: VariationalAutoencoder(16, 3, 4, "spatial", 4),
    "grey": lambda: ConvAutoencoder(1, 5, batch_norm=True),
}


class Options:
    attribute, map, images, seed = None, None, 4, 0


def data_for(model, names=("Bright", "Even")) -> Dataset:
    """Noise around a brightness, with the attributes whether it is bright, and whether its number is even."""
    channels, size, _ = model.image_shape
    images, attributes = {}, {}
    for number, (split, count) in enumerate((("train", 60), ("test", 20))):
        random = np.random.default_rng(number)
        bright = np.arange(count) % 3 == 0
        noise = random.integers(0, 100, (count, size, size, channels), dtype=np.uint8)
        images[split] = noise + (100 * bright[:, None, None, None]).astype(np.uint8)
        attributes[split] = np.stack([bright, np.arange(count) % 2 == 0], axis=1)
    return Dataset("noise", images, attributes if names else {}, tuple(names))


def space_of(model, dataset=None, seed=0) -> LatentSpace:
    run = Run("plain", Path("runs") / "plain-001", {}, [], [], {})
    finished = FinishedRun(run, "plain-001", "100", 3, model.eval())
    return read_codes(finished, dataset or data_for(model), seed, CPU)


@pytest.fixture(params=MODELS)
def space(request) -> LatentSpace:
    torch.manual_seed(0)
    return space_of(MODELS[request.param]())


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """The arguments of the pictures that are drawn: rows, title, columns, captions."""
    seen = {}
    original = latents.draw_grid

    def draw_grid(rows, title, columns=None, captions=None):
        seen.update(rows=rows, title=title, columns=columns, captions=captions)
        return original(rows, title, columns=columns, captions=captions)

    monkeypatch.setattr(latents, "draw_grid", draw_grid)
    return seen


def images_of(space, split="test"):
    return to_float(space.dataset.images[split])


def draw(space, name, **options):
    chosen = Options()
    for option, value in options.items():
        setattr(chosen, option, value)
    return draw_all(space, chosen)[f"{name}.png"]()


def number_in(space, image) -> int:
    """Which held-out image a picture shows."""
    return int((images_of(space) - image).abs().flatten(1).amax(dim=1).argmin())


# --- what the pictures show ------------------------------------------------------------------------------------


def test_lines_end_at_the_reconstructions_of_the_originals_beside_them(space, drawn):
    draw(space, "interpolations")
    assert len(drawn["rows"]) == 4
    for row in drawn["rows"].values():
        assert len(row) == len(drawn["columns"])
        for original, end in ((row[0], row[1]), (row[-1], row[-2])):
            torch.testing.assert_close(end, reconstruct(space.finished.model, original[None])[0], rtol=0, atol=1e-5)
        ends = space.finished.model.encode(torch.stack([row[0], row[-1]])).detach()
        with torch.no_grad():
            middle = space.finished.model.decode(ends.mean(dim=0, keepdim=True))[0]
        torch.testing.assert_close(row[len(row) // 2], middle, rtol=0, atol=1e-5)


def test_walks_go_along_the_difference_between_training_class_means(space, drawn):
    draw(space, "attribute-walks", attribute="Bright")
    model = space.finished.model
    with torch.no_grad():
        training = model.encode(images_of(space, "train"))
        bright = torch.from_numpy(space.dataset.attributes["train"][:, 0])
        direction = training[bright].mean(dim=0) - training[~bright].mean(dim=0)
        for row in drawn["rows"].values():
            expected = [model.decode(model.encode(row[:1]) + step * direction)[0] for step in WALK]
            torch.testing.assert_close(row[1:], torch.stack(expected), rtol=0, atol=1e-5)
    assert len(drawn["rows"]) == 4


def test_no_held_out_label_reaches_directions_components_or_the_choice_of_attributes(drawn):
    torch.manual_seed(0)
    model = MODELS["pooled"]()
    dataset = data_for(model)
    turned = replace(dataset, attributes={**dataset.attributes, "test": ~dataset.attributes["test"]})
    rows, best = [], []
    for data in (dataset, turned):
        space = space_of(model, data)
        draw(space, "attribute-walks")
        rows.append(list(drawn["rows"].values()))
        best.append(latents.separations(space))
    assert all(torch.equal(first, second) for first, second in zip(*rows, strict=True))
    assert best[0] == best[1]
    assert next(iter(best[0])) == "Bright"
    assert best[0]["Bright"] == 1


def test_no_held_out_image_reaches_directions_or_components(monkeypatch, drawn):
    torch.manual_seed(0)
    model = MODELS["pooled"]()
    dataset = data_for(model)
    test = dataset.images["test"].copy()
    whole = space_of(model, dataset)
    shown = whole.order[:2]
    others = np.setdiff1d(np.arange(len(test)), shown.numpy())
    test[others] = 255 - test[others]  # all but those that are looked at
    changed = space_of(model, replace(dataset, images={**dataset.images, "test": test}))
    walks, points = [], []
    make_map = latents.make_map
    monkeypatch.setattr(latents, "make_map", lambda *args: points.append(make_map(*args)) or points[-1])
    for space in (whole, changed):
        draw(space, "attribute-walks")
        walks.append(torch.stack(list(drawn["rows"].values())))
        draw(space, "map-pca")
    torch.testing.assert_close(walks[0], walks[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(points[0].points[:2], points[1].points[:2], atol=1e-5)
    assert not np.allclose(points[0].points[2:], points[1].points[2:], atol=1e-2)


def test_neighbours_are_the_nearest_other_held_out_images(space, drawn):
    draw(space, "neighbours")
    with torch.no_grad():
        codes = space.finished.model.encode(images_of(space)).flatten(1).double().numpy()
    for label, row in drawn["rows"].items():
        query, *found = [number_in(space, image) for image in row]
        distances = np.linalg.norm(codes - codes[query], axis=1)
        expected = [number for number in np.argsort(distances) if number != query][: len(found)]
        assert found == expected
        said = [float(caption) for caption in drawn["captions"][label][1:]]
        np.testing.assert_allclose(said, distances[found], rtol=0.006)
    assert "19 other held-out images" in drawn["title"]


def test_extremes_are_those_of_a_plain_ranking_with_their_psnr(space, drawn):
    draw(space, "extremes")
    images = images_of(space)
    values = psnr(reconstruct(space.finished.model, images), images).numpy()
    order = np.argsort(-values)
    rows = list(drawn["rows"].values())
    assert [number_in(space, image) for image in rows[0]] == order[:4].tolist()
    assert [number_in(space, image) for image in rows[2]] == order[::-1][:4].tolist()
    torch.testing.assert_close(rows[1], reconstruct(space.finished.model, rows[0]), rtol=0, atol=1e-5)
    captions = [caption for row in drawn["captions"].values() for caption in row]
    shown = [values[number] for number in (*order[:4], *order[::-1][:4])]
    assert captions == [f"{value:.1f} dB" for value in shown]


def test_samples_are_decoded_and_their_title_tells_how_gaussian_the_codes_are(space, drawn):
    draw(space, "samples")
    first, *others = drawn["rows"].values()
    shown = images_of(space)[space.order[:4]]
    torch.testing.assert_close(first, reconstruct(space.finished.model, shown), rtol=0, atol=1e-5)
    assert len(others) == latents.SAMPLE_ROWS
    found, true = map(float, re.findall(r"codes (\d\S*)[,:]", drawn["title"]))
    far = replace(space, held_out=10 * space.held_out + 5)
    draw(far, "samples")
    farther, same = map(float, re.findall(r"codes (\d\S*)[,:]", drawn["title"]))
    assert ("means" in drawn["title"]) == space.finished.model.variational
    assert farther > found
    assert same == true


def test_a_map_is_coloured_by_classes_where_every_image_has_one(space):
    labels, names, said = latents.colours_of(space, None, {"Even": 0.9, "Bright": 0.8})
    assert (labels == space.dataset.attributes["test"][:, 1]).all()
    assert names == ["not Even", "Even"]
    assert said == "coloured by Even (best separated on training images, AUROC 0.900)"
    numbers = {split: np.arange(len(images)) % 5 for split, images in space.dataset.images.items()}
    classes = {split: np.eye(5, dtype=bool)[labels] for split, labels in numbers.items()}
    dataset = replace(space.dataset, attributes=classes, attribute_names=tuple("abcde"))
    classed = replace(space, dataset=dataset, training_labels=torch.from_numpy(classes["train"]))
    labels, names, said = latents.colours_of(classed, None, {})
    assert (labels == numbers["test"]).all()
    assert (names, said) == (list("abcde"), "coloured by class")
    assert latents.colours_of(classed, "c", {})[1] == ["not c", "c"]


def test_every_picture_can_be_drawn_of_every_model_and_the_same_seed_draws_the_same(space, tmp_path):
    for name, drawing in draw_all(space, Options()).items():
        latents.save(drawing(), tmp_path / name)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(PICTURES)
    first = (tmp_path / "samples.png").read_bytes()
    latents.save(draw(space, "samples"), tmp_path / "samples.png")
    assert (tmp_path / "samples.png").read_bytes() == first


def test_collapsed_codes_are_drawn_and_codes_that_are_no_numbers_refused(tmp_path):
    model = MODELS["pooled"]()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    for name, drawing in draw_all(space_of(model), Options()).items():
        latents.save(drawing(), tmp_path / name)
    with torch.no_grad():
        model.encoder.stem.weight.fill_(float("nan"))
    with pytest.raises(UsageError, match="not finite numbers"):
        space_of(model)


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def here(finished):
    """A folder with finished runs to work in, without what the command wrote before."""
    shutil.rmtree(finished / "runs" / "self-teaching-001" / "latents", ignore_errors=True)
    return finished


def run_latents(monkeypatch, *options):
    run_module(monkeypatch, "leae.analysis.latents", "runs/self-teaching-001", "--device", "cpu", *options)


def test_the_command_writes_the_pictures_into_the_runs_folder(here, monkeypatch, capsys):
    run_latents(monkeypatch, "--images", "3")
    folder = here / "runs" / "self-teaching-001" / "latents"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in PICTURES)
    for name in PICTURES[:2]:
        assert (np.asarray(Image.open(folder / f"{name}.png"))[:, -15:] == 255).all()  # no title runs out of a map
    assert "in runs/self-teaching-001/latents" in capsys.readouterr().out


def test_without_attributes_their_parts_are_left_out_and_it_says_why(workplace, monkeypatch, capsys):
    for number in range(60):
        write_image(workplace / "mine" / f"{number}.png", number)
    run_script(monkeypatch, "main.py", *BRIEF, "--dataset", "mine")
    run_latents(monkeypatch, "--map", "pca")
    names = sorted(path.stem for path in (workplace / "runs" / "self-teaching-001" / "latents").iterdir())
    assert names == sorted(set(PICTURES) - {"attribute-walks", "map-tsne"})
    assert "no attribute-walks.png, and maps of one colour: images in mine has no attributes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--images 0", "--images is 0; it must be a whole number, at least 1"),
        ("--images 51", "--images is 51; it must be at most 50"),
        ("--seed -1", "--seed is -1"),
        ("--map isomap", "invalid choice: 'isomap'"),
        ("--mask-ratio 0.3", "there is no option --mask-ratio"),
        ("--attribute smilling", "--attribute is smilling; it must be one of Bald, .*did you mean Smiling"),
        ("--checkpoint 050", "has no checkpoint 050"),
        ("--positive bad", "--positive is bad; it must be left out without --score"),
        ("--score nowhere", "--score is nowhere, which is not a folder"),
        ("--score empty", "empty has no images"),
        ("--score data --map pca", "--map is pca; it must be left out with --score"),
        ("--score mine --positive ugly", "--positive is ugly; it must be bad or good"),
        ("--device abacus", "DEVICE is 'abacus'"),
    ],
)
def test_refused_options_write_nothing(here, monkeypatch, capsys, options, says):
    (here / "empty").mkdir(exist_ok=True)
    write_image(here / "mine" / "good" / "1.png", 1)
    write_image(here / "mine" / "bad" / "2.png", 2)
    before = sorted(here.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        run_latents(monkeypatch, *options.split())
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert re.match(f"latents.py: .*{says}", printed.err)
    assert (printed.out + printed.err).count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_a_folder_that_cannot_be_written_to_is_named(here, monkeypatch, capsys):
    (here / "runs" / "self-teaching-001" / "latents").touch()  # a file in its place; root may write anywhere
    with pytest.raises(SystemExit):
        run_latents(monkeypatch)
    (here / "runs" / "self-teaching-001" / "latents").unlink()
    assert re.match("latents.py: runs/self-teaching-001/latents cannot be written to", capsys.readouterr().err)


def test_scores_of_two_sub_folders_come_with_their_auroc(here, monkeypatch, capsys):
    root = here / "to score"
    for number in range(5):
        write_image(root / "plain" / f"{number}.png", number)  # one colour: easy
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        (root / "noisy").mkdir(exist_ok=True)
        Image.fromarray(noise).save(root / "noisy" / f"a,\n{number}.png")
    run_latents(monkeypatch, "--score", "to score")
    printed = capsys.readouterr().out
    folder = here / "runs" / "self-teaching-001" / "latents"
    assert sorted(path.name for path in folder.iterdir()) == ["roc.png", "scores.csv", "scores.png"]
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    noisy = [row["file"].startswith("noisy/") for row in rows]
    expected = roc_auc_score(noisy, [float(row["score"]) for row in rows])
    [found, positive] = re.search(r"AUROC ([\d.]+) of '(\w+)' \(which has the higher mean score", printed).groups()
    assert positive == ("noisy" if expected > 0.5 else "plain")
    assert float(found) == pytest.approx(max(expected, 1 - expected), abs=1e-4)
    run_latents(monkeypatch, "--score", "to score", "--positive", "plain")
    assert f"AUROC {1 - expected:.4f} of 'plain' (as --positive says) against 'noisy'" in capsys.readouterr().out


def test_a_folder_without_labels_is_scored_without_a_curve(here, monkeypatch, capsys):
    for number in range(3):
        write_image(here / "unlabelled" / f"{number}.png", number)
    roc = here / "runs" / "self-teaching-001" / "latents" / "roc.png"
    roc.parent.mkdir()
    roc.touch()  # of a folder that was scored before
    run_latents(monkeypatch, "--score", "unlabelled")
    assert "no ROC curve: the folder has not two sub-folders" in capsys.readouterr().out
    assert not roc.exists()
