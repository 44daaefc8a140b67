"""The latents command: what its pictures show, against plain computations, and what it refuses."""

import argparse
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leae.analysis import latents
from leae.analysis.latents import WALK, LatentSpace, pictures
from leae.analysis.trained import TrainedRun
from leae.autoencoder import Autoencoder, VariationalAutoencoder
from leae.codes import sigreg_statistics
from leae.conv_autoencoder import ConvAutoencoder
from leae.data.batches import to_float
from leae.data.prepare import Dataset
from leae.errors import UsageError
from leae.training.evaluation import psnr, reconstruct
from leae.training.pictures import save_picture
from tests.conftest import CPU, TINY, assert_one_line, gaussian, run_leae, run_script, write_image

PICTURES = ["map-pca", "map-tsne", "interpolations", "attribute-walks", "neighbours", "samples", "extremes"]
MODELS = {
    "pooled": lambda: Autoencoder(16, 3, 4, "pooled", 8, 4),
    "spatial": lambda: Autoencoder(16, 3, 4, "spatial", 4),
    "variational, spatial": lambda: VariationalAutoencoder(16, 3, 4, "spatial", 4),
    "grey": lambda: ConvAutoencoder(1, 5, batch_norm=True),
}
OPTIONS = argparse.Namespace(attribute=None, map=None, images=4, seed=0)


def data_for(model) -> Dataset:
    """Noise around a brightness, with the attributes whether it is bright, and whether its number is even."""
    channels, size, _ = model.image_shape
    images, attributes = {}, {}
    for number, (split, count) in enumerate((("train", 60), ("test", 20))):
        random = np.random.default_rng(number)
        bright = np.arange(count) % 3 == 0
        noise = random.integers(0, 100, (count, size, size, channels), dtype=np.uint8)
        images[split] = noise + (100 * bright[:, None, None, None]).astype(np.uint8)
        attributes[split] = np.stack([bright, np.arange(count) % 2 == 0], axis=1)
    return Dataset("noise", "noise", "", images, attributes, ("Bright", "Even"))


def space_of(model, dataset=None, kind=LatentSpace) -> LatentSpace:
    place = Path("runs") / "plain-001"
    trained = TrainedRun(place, "plain", {}, {}, "100", 3, model.eval())
    return kind(trained, dataset or data_for(model), 0, CPU)


@pytest.fixture(params=MODELS)
def space(request) -> LatentSpace:
    torch.manual_seed(0)
    return space_of(MODELS[request.param]())


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """What is drawn in the latest grid: rows, what is said of them, columns, captions."""
    seen, grid = {}, LatentSpace.grid

    def spy(self, rows, said, **options):
        seen.update(rows=rows, said=said, **options)
        return grid(self, rows, said, **options)

    monkeypatch.setattr(LatentSpace, "grid", spy)
    return seen


def images_of(space, split="test"):
    return to_float(space.dataset.images[split])


def test_lines_go_evenly_from_the_reconstruction_of_one_original_beside_them_to_that_of_the_other(space, drawn):
    latents.draw_interpolations(space, 4)
    assert len(drawn["rows"]) == 4
    for row in drawn["rows"].values():
        assert len(row) == len(drawn["columns"])
        with torch.no_grad():
            first, last = space.run.model.encode(torch.stack([row[0], row[-1]]))
            line = [space.run.model.decode((first + k / 8 * (last - first))[None])[0] for k in range(9)]
        torch.testing.assert_close(row[1:-1], torch.stack(line), rtol=0, atol=1e-5)


def test_walks_go_along_the_difference_between_training_class_means(space, drawn):
    latents.draw_walks(space, ["Bright"], 4)
    model = space.run.model
    with torch.no_grad():
        training = model.encode(images_of(space, "train"))
        bright = torch.from_numpy(space.dataset.attributes["train"][:, 0])
        direction = training[bright].mean(dim=0) - training[~bright].mean(dim=0)
        for row in drawn["rows"].values():
            expected = [model.decode(model.encode(row[:1]) + step * direction)[0] for step in WALK]
            torch.testing.assert_close(row[1:], torch.stack(expected), rtol=0, atol=1e-5)
    assert len(drawn["rows"]) == 4


def test_nothing_held_out_reaches_directions_components_or_the_choice_of_attributes(monkeypatch, drawn):
    torch.manual_seed(0)
    model = MODELS["pooled"]()
    dataset = data_for(model)
    space = space_of(model, dataset)
    test = dataset.images["test"].copy()
    others = space.order[2:].numpy()
    test[others] = 255 - test[others]  # all but those that are shown first
    turned = {**dataset.attributes, "test": ~dataset.attributes["test"]}
    changed = space_of(model, replace(dataset, images={**dataset.images, "test": test}, attributes=turned))
    walks, maps, best = [], [], []
    make_map = latents.make_map
    monkeypatch.setattr(latents, "make_map", lambda *args: maps.append(make_map(*args)) or maps[-1])
    for one in (space, changed):
        best.append(latents.separations(one))
        latents.draw_walks(one, list(best[-1]), 2)
        walks.append(torch.stack(list(drawn["rows"].values())))
        latents.draw_codes_map(one, "pca", 0, *latents.colours_of(one, None, list(best[-1])))
    assert best[0] == best[1]
    assert next(iter(best[0].items())) == ("Bright", 1)
    torch.testing.assert_close(walks[0], walks[1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(maps[0][0][:2], maps[1][0][:2], atol=1e-5)
    assert not np.allclose(maps[0][0][2:], maps[1][0][2:], atol=1e-2)


def test_neighbours_are_the_nearest_other_held_out_images(space, drawn):
    space.held_out = 1000 + space.held_out  # far from the origin, near each other
    latents.draw_neighbours(space, 4)
    exact = space.held_out.double()
    for query, (label, row) in zip(space.order[:4], drawn["rows"].items(), strict=True):
        distances, nearest = (exact - exact[query]).norm(dim=1).sort()
        assert torch.equal(row, space.images(nearest[: len(row)]))  # the first is the query
        said = [float(caption) for caption in drawn["captions"][label][1:]]
        np.testing.assert_allclose(said, distances[1 : len(row)], rtol=0.006)


def test_extremes_are_those_of_a_plain_ranking_with_their_psnr(space, drawn):
    latents.draw_extremes(space, 4)
    images = images_of(space)
    values = psnr(reconstruct(space.run.model, images), images)
    order = values.argsort(descending=True)
    shown = (order[:4], order.flip(0)[:4])
    for which, originals, results in zip(shown, *[iter(drawn["rows"].values())] * 2, strict=True):
        assert torch.equal(originals, images[which])
        torch.testing.assert_close(results, reconstruct(space.run.model, originals), rtol=0, atol=1e-5)
    said = [f"{value:.1f} dB" for value in values[torch.cat(shown)]]
    assert [caption for row in drawn["captions"].values() for caption in row] == said


def test_samples_are_decoded_and_their_title_tells_how_gaussian_the_codes_are(space, drawn):
    latents.draw_samples(space, 4, 0)
    first, *others = drawn["rows"].values()
    shown = images_of(space)[space.order[:4]]
    torch.testing.assert_close(first, reconstruct(space.run.model, shown), rtol=0, atol=1e-5)
    assert len(others) == 2 * latents.ROWS_OF_EACH
    said = [float(figure) for figure in re.findall(r"(\S+) of (?:[\d,]+ held-out|as many)", drawn["said"])]
    with torch.no_grad():
        assert said == pytest.approx(sigreg_statistics(space.run.model.encode(images_of(space)))[:2], rel=0.05)


def test_separation_ranks_codes_along_the_direction_of_others():
    labels = torch.arange(600) % 3 == 0
    codes = gaussian(600, 4) + labels[:, None] * torch.tensor([1.0, 0, 0, 0])
    fitted, judged = codes[::2].double().numpy(), codes[1::2].double().numpy()
    have, fitted_have = labels[1::2].numpy(), labels[::2].numpy()
    ranked = judged @ (fitted[fitted_have].mean(0) - fitted[~fitted_have].mean(0))
    pairs = ranked[have][:, None] - ranked[~have][None]  # the AUROC is the share of pairs in the right order
    assert latents.separation(codes, labels) == pytest.approx((pairs > 0).mean(), abs=1e-4)


def test_noise_is_not_separated_though_it_has_as_many_dimensions_as_samples():
    assert latents.separation(gaussian(800, 800), torch.arange(800) % 4 < 2) == pytest.approx(0.5, abs=0.1)
    assert math.isnan(latents.separation(gaussian(800, 3), torch.arange(800) == 5))  # one half has none of it


def test_codes_of_the_fitted_gaussian_have_the_training_codes_mean_and_covariance():
    training = 3 + gaussian(300, 5) @ gaussian(5, 5, seed=1)
    codes = latents.draw_fitted(training, 50_000, 0)
    torch.testing.assert_close(codes.mean(dim=0), training.mean(dim=0), rtol=0, atol=0.05)
    torch.testing.assert_close(codes.T.cov(), training.T.cov(), rtol=0, atol=0.2)


def test_a_map_is_coloured_by_the_best_attribute_or_by_classes():
    model = MODELS["pooled"]()
    dataset = data_for(model)
    labels, names = latents.colours_of(space_of(model, dataset), None, ["Even", "Bright"])
    assert (labels == dataset.attributes["test"][:, 1]).all()
    assert names == ["not Even", "Even"]
    classes = {split: np.arange(len(images)) % 5 for split, images in dataset.images.items()}
    names = {"attributes": {}, "attribute_names": (), "class_names": tuple("abcde")}
    space = space_of(model, replace(dataset, classes=classes, **names))
    labels, names = latents.colours_of(space, None, [])
    assert (labels == np.arange(20) % 5).all()
    assert names == list("abcde")
    labels, names = latents.colours_of(space, "c", ["c"])
    assert (labels == (np.arange(20) % 5 == 2)).all()
    assert names == ["not c", "c"]


def test_every_picture_can_be_drawn_of_every_model_and_the_same_seed_draws_the_same(space, tmp_path):
    for name, picture in pictures(space, OPTIONS):
        save_picture(picture, tmp_path / name)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(PICTURES)
    first = (tmp_path / "samples.png").read_bytes()
    save_picture(latents.draw_samples(space, 4, 0), tmp_path / "samples.png")
    assert (tmp_path / "samples.png").read_bytes() == first


def test_collapsed_codes_are_drawn_and_codes_that_are_not_finite_refused():
    model = MODELS["pooled"]()
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    assert len(list(pictures(space_of(model), OPTIONS))) == len(PICTURES)
    with torch.no_grad():
        model.encoder.stem.weight.fill_(float("nan"))
    with pytest.raises(UsageError, match="not finite"):
        _ = space_of(model).training


def test_the_command_writes_the_pictures_but_no_walks_without_attributes(workplace, monkeypatch):
    for number in range(60):
        write_image(workplace / "mine" / f"{number}.png", number)
    run_script(monkeypatch, "main.py", *TINY, "--max-steps", "1", "--dataset", "mine")
    run_leae(monkeypatch, "latents", "runs/self-teaching-001", "--device", "cpu", "--map", "pca")
    names = sorted(path.stem for path in (workplace / "runs/self-teaching-001/latents").iterdir())
    assert names == sorted(set(PICTURES) - {"attribute-walks", "map-tsne"})


def test_a_class_of_which_no_image_is_looked_at_is_refused(trained, monkeypatch, capsys):
    monkeypatch.setattr("leae.analysis.latents.TRAINING_CODES", 1)
    says = "--attribute is '3'.* of the 1 training images that are looked at"
    assert_one_line(monkeypatch, capsys, "latents", "runs/plain-001", "--device", "cpu", "--attribute", "3", says=says)
