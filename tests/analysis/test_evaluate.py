"""The evaluation's table and files, and that no held-out label or image reaches a fit."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from leae.analysis import curves
from leae.analysis.evaluate import write_evaluations
from leae.analysis.measure import Measured
from leae.analysis.table import Column
from leae.analysis.trained import TrainedRun, require_own
from leae.errors import UsageError
from tests.conftest import RUNS, assert_one_line, run_leae


@pytest.fixture
def other_data(monkeypatch):
    """Lets `evaluate` open the data set that a function makes of the run's."""
    original = TrainedRun.open_data
    return lambda change: monkeypatch.setattr(TrainedRun, "open_data", lambda run: change(original(run)))


def test_an_evaluation_json_that_a_person_wrote_is_not_replaced(trained, tmp_path):
    Path(tmp_path, "evaluation.json").write_text('{"mine": "notes"}')
    run = SimpleNamespace(folder=tmp_path, checkpoint="100", step=1, data={})
    with pytest.raises(UsageError, match=r"evaluation\.json was not written by this command"):
        write_evaluations([Measured("own", None, run)], SimpleNamespace(options={}))
    assert Path(tmp_path, "evaluation.json").read_text() == '{"mine": "notes"}'


def with_few_attributes(dataset):
    """Every sixth of them, as each is probed many times."""
    attributes = {split: labels[:, ::6] for split, labels in dataset.attributes.items()}
    return replace(dataset, attributes=attributes, attribute_names=dataset.attribute_names[::6])


def test_figures_of_runs_are_printed_and_kept(trained, monkeypatch, capsys, other_data):
    other_data(with_few_attributes)
    monkeypatch.setattr(curves, "CHECKPOINTS", ["000", "100"])  # for time
    options = ["--label-share", "0.3", "--csv", "table.csv", "--markdown", "table.md", "--output", "curves.csv"]
    run_leae(monkeypatch, "evaluate", *RUNS, *options, "--checkpoints", "all")
    require_own(*map(Path, ("table.csv", "table.md", "curves.csv", "curves-images.png")))  # it may replace them
    printed = capsys.readouterr().out
    assert printed.startswith(Path("table.md").read_text(encoding="utf-8").partition("\n")[0])
    psnr, auroc = (re.search(rf"^\| {label}, clean  .*", printed, re.M)[0] for label in ("PSNR .dB.", "AUROC"))
    contents = [json.loads((Path(run) / "evaluation.json").read_text()) for run in RUNS]
    for run, content in zip(RUNS, contents, strict=True):
        assert f"{content['figures']['psnr_clean'][0]:.2f}±" in psnr
        with (Path(run) / "metrics.csv").open(newline="") as file:
            logged = [row for row in csv.DictReader(file) if row["split"] == "test"][-1]
        for measure in ("psnr_clean", "psnr_masked"):  # training took them of the same images and masks
            assert content["figures"][measure][0] == pytest.approx(float(logged[measure]), abs=1e-4)
        assert list(content["beside"]) == ["untrained 8", "PCA 8", "chance"]
        assert content["figures"]["dimensions"] == [8, None, None]
        mean, low, high = content["figures"]["linear_clean_auroc"]
        assert mean == pytest.approx(np.mean(list(content["attributes"]["linear_clean_auroc"].values())))
        assert low <= mean <= high
        assert f" {mean:.3f}±{(high - low) / 2:.3f} " in auroc
    assert "neighbours_clean_balanced_accuracy" in contents[0]["figures"]
    assert contents[0]["options"]["held_out"] == 72
    assert psnr in Path("table.md").read_text(encoding="utf-8")
    texts = [Path(name).read_text(encoding="utf-8").splitlines() for name in ("table.csv", "curves.csv")]
    table, last = ({(row["column"], row["figure"]): row for row in csv.DictReader(text)} for text in texts)
    one, other = (content["figures"]["psnr_clean"] for content in contents)
    masked = "masked-001"
    row = table[masked, "psnr_clean"]
    assert [float(row[name]) for name in ("value", "low", "high")] == pytest.approx(other, rel=1e-5)
    assert float(row["difference"]) == pytest.approx(other[0] - one[0], rel=1e-3)
    assert float(row["difference low"]) < other[0] - one[0] < float(row["difference high"])
    row = last[masked, "sigreg_statistic"]  # of the last checkpoint, as rows are in order
    assert float(row["value"]) == pytest.approx(contents[1]["figures"]["sigreg_statistic"][0], rel=1e-5)
    assert (row["checkpoint"], float(last[masked, "images"]["value"])) == ("100", 9 * 16)
    assert Image.open("curves-images.png").size == Image.open("curves-minutes.png").size


def test_the_time_of_training_is_that_of_its_steps_at_their_usual_rate(tmp_path):
    def minutes_of(step):
        return curves.training_minutes(TrainedRun(tmp_path, "", {"BATCH_SIZE": 30}, {}, "", step, None))

    metrics = tmp_path / "metrics.csv"
    metrics.write_text(
        "split,step,epoch,images_per_second\ntest,0,0,\ntrain,1,1,5\ntrain,2,1,5.1\ntrain,3,1,0.1\ntrain,4,1,0\ntrain,5,1,nan\n"
    )
    assert [minutes_of(step) for step in (0, 5, 20)] == pytest.approx([0, 0.5, 2])
    metrics.write_text("split,step,epoch\ntest,0,0\n")
    with pytest.raises(UsageError, match="images_per_second"):
        minutes_of(1)


def test_the_table_and_the_curves_are_two_files(trained, monkeypatch, capsys):
    for same in ("one.csv", str(Path("one.csv").absolute())):
        options = ["--checkpoints", "all", "--csv", "one.csv", "--output", same]
        assert_one_line(monkeypatch, capsys, "evaluate", RUNS[0], *options, says="--output .*one.csv")


def test_curves_have_a_place_only_if_they_are_drawn(trained, monkeypatch, capsys):
    says = "--output is 'curves.csv'.*left out unless --checkpoints is all"
    assert_one_line(monkeypatch, capsys, "evaluate", RUNS[0], "--output", "curves.csv", says=says)


def test_a_table_is_printed_before_a_place_that_cannot_be_written_ends_the_command(trained, monkeypatch, capsys):
    def denied(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("leae.analysis.evaluate.write_json", denied)
    with pytest.raises(SystemExit):
        run_leae(monkeypatch, "evaluate", RUNS[0], "--train-images", "100", "--held-out", "100")
    said = capsys.readouterr()
    assert "PSNR (dB), clean" in said.out
    assert "evaluation.json: Permission denied" in said.err


def test_an_interval_that_reaches_below_zero_stays_beside_its_line_on_a_logarithmic_axis():
    def after(images, *statistics):
        values = [{"images": np.array([images]), "sigreg_statistic": np.array([one])} for one in statistics]
        return [Column("a run, 2 seeds", {seed: Measured("", None, values=each) for seed, each in enumerate(values)})]

    figure = curves.draw_curves([after(0, 90.0, 110.0), after(10, 4.0, 40.0)], "images", "")
    [panel] = [axes for axes in figure.axes if axes.get_title() == "SIGReg statistic"]
    [band] = panel.collections
    low = band.get_paths()[0].vertices[:, 1].min()
    assert panel.get_yscale() == "log"
    assert panel.get_ylim()[0] <= low
    assert 22 / 10 < low < 22  # the mean of the last two
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a run, 2 seeds"]


def test_what_is_undefined_is_an_empty_cell_and_null(trained, monkeypatch, capsys, other_data):
    def flattened(dataset):  # no gradient to compare with, no distance between codes
        images = {split: np.full_like(array, 90) for split, array in dataset.images.items()}
        return replace(dataset, images=images, attributes={}, attribute_names=())

    other_data(flattened)
    run_leae(monkeypatch, "evaluate", RUNS[0], "--train-images", "100")
    printed = capsys.readouterr().out
    assert "PSNR" in printed
    assert "AUROC" not in printed
    assert "sharpness" not in printed
    content = json.loads((Path(RUNS[0]) / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert content["figures"]["sharpness_square_masked"][0] is None
    assert content["figures"]["psnr_clean"][0] > 0
    assert content["figures"]["drift"][0] is None
    assert content["attributes"] == {}


def test_nothing_of_the_held_out_images_or_labels_reaches_a_fit(trained, monkeypatch, capsys, other_data):
    def with_other_held_out_images(dataset):
        dataset = with_few_attributes(dataset)
        draws = np.random.default_rng(1)
        noise = draws.integers(0, 256, dataset.images["test"].shape, dtype=np.uint8)
        labels = dataset.attributes["test"][draws.permutation(len(noise))]  # as many of each, on other images
        images, attributes = {**dataset.images, "test": noise}, {**dataset.attributes, "test": labels}
        return replace(dataset, images=images, attributes=attributes)

    fitted = []
    for kind in (PCA, StandardScaler, LogisticRegression, NearestNeighbors):

        def spy(self, data, *labels, fit=kind.fit, **options):
            fitted.append((type(self).__name__, np.asarray(data).tobytes(), *(np.asarray(x).tobytes() for x in labels)))
            return fit(self, data, *labels, **options)

        monkeypatch.setattr(kind, "fit", spy)
    other_data(with_few_attributes)
    run_leae(monkeypatch, "evaluate", RUNS[0])
    honest, fitted[:] = list(fitted), []
    other_data(with_other_held_out_images)
    run_leae(monkeypatch, "evaluate", RUNS[0])
    assert {name for name, *_ in honest} == {"PCA", "StandardScaler", "LogisticRegression", "NearestNeighbors"}
    assert fitted == honest
