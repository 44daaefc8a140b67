"""Which runs share a column, its intervals against scipy's and against what they promise, and the Markdown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from leae.analysis.measure import Measured
from leae.analysis.probes import resample_weights
from leae.analysis.table import Column, Estimate, columns_of, markdown, over_images, over_seeds, report, text_of
from leae.analysis.trained import TrainedRun


def measured(values, name="", kind="", defaults=None, **settings):
    """A run of these settings, or a baseline, and its "psnr"."""
    run = TrainedRun(Path(name), kind, settings, {}, "100", 1, None, defaults or {}) if settings else None
    return Measured(name, None, run, values={"psnr": np.atleast_1d(values).astype(float)})


def column(values):
    return Column("1", {seed: measured(value) for seed, value in enumerate(values)})


def test_seeds_have_students_interval_and_differences_are_paired_by_them():
    draws = np.random.default_rng(0)
    one, other = draws.standard_normal((2, 3))
    for estimate, reference in (
        (column(one).estimate("psnr"), stats.ttest_1samp(one, 0)),
        (column(one).difference_from(column(other), "psnr"), stats.ttest_rel(one, other)),
        # By the seeds of both.
        (column([*one, 9, 9]).difference_from(column(other), "psnr"), stats.ttest_rel(one, other)),
        (column(one).difference_from(Column("PCA", {None: measured(2)}), "psnr"), stats.ttest_1samp(one - 2, 0)),
    ):
        low, high = reference.confidence_interval(0.95)
        assert (estimate.low, estimate.high) == pytest.approx((low, high))
        assert estimate.value == pytest.approx((low + high) / 2)
    assert np.isnan(column([128, 128]).estimate("psnr").low)
    assert np.isnan(column([128, 128]).difference_from(column([64, 64]), "psnr").low)
    assert np.isnan(column(one).difference_from(column(other), "ssim")).all()


def test_the_interval_over_three_seeds_covers_the_truth_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(20, 3, (400, 3))
    covered = np.mean([estimate.low < 20 < estimate.high for estimate in map(over_seeds, draws)])
    assert covered == pytest.approx(0.95, abs=0.033)  # three standard errors of 400 draws


def test_a_star_marks_an_interval_on_one_side_of_zero():
    ends = {(-2, -1): "*", (-1, 1): "", (1, 2): "*", (np.nan, np.nan): ""}
    assert [Estimate(1.5, *of).star for of in ends] == list(ends.values())


def test_without_common_seeds_a_difference_is_that_of_the_means_on_the_same_resamples():
    images = np.random.default_rng(0).standard_normal((3, 50)) + 5 * np.arange(50)  # the same images are hard for all
    first, second, third = images @ resample_weights(50).T / 50
    pair = Column("1", {0: measured(first), 1: measured(second)})
    difference = Column("2", {1: measured(third)}).difference_from(pair, "psnr")
    expected = third - (first + second) / 2
    assert difference.value == pytest.approx(expected[0])
    assert (difference.low, difference.high) == pytest.approx(np.quantile(expected[1:], (0.025, 0.975)))
    assert difference.high - difference.low < 1 < np.diff(over_images(third)[1:]).item()


def test_the_interval_over_images_is_that_of_a_known_distribution():
    _, low, high = over_images(resample_weights(400) @ np.random.default_rng(0).standard_normal(400) / 400)
    assert high - low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.1)
    assert np.isnan(over_images(np.array([1.0]))[1:]).all()


def test_runs_that_differ_in_seed_alone_share_a_column_named_by_the_constants_that_distinguish_it():
    teaching = {
        "defaults": {"OBJECTIVE": "symmetric"},
        "OBJECTIVE": "symmetric",
        "JUDGE_NORM": "own",
        "LEARNING_RATE": 0.1,
        "FACES": 64,
        "LATENT": "pooled",
    }
    same = {"SEED": 1, "LOG_EVERY": 5, "DEVICE": "cuda", "FACES": 65}  # changes nothing of its column
    masked = {"OBJECTIVE": "masked", "LEARNING_RATE": 0.1, "SEED": 0}
    models = [
        measured(0, "a-1", "self-teaching", **teaching, SEED=0),
        measured(0, "b-1", "masked", **masked),
        measured(0, "a-2", "self-teaching", **teaching | same),
        measured(0, "a-3", "self-teaching", **teaching | {"JUDGE_NORM": "shared", "SEED": 0}),
        measured(0, "b-2", "masked", **masked),
        measured(0, "PCA 8"),
    ]
    columns = columns_of(models)
    assert [one.title for one in columns] == [
        "a-1, 2 seeds",
        "b-1",
        "a-3",
        "b-2",
        "PCA 8",
    ]
    assert [one.about for one in columns] == [
        "self-teaching, JUDGE_NORM=own: a-1, a-2",
        "masked: b-1",
        "self-teaching, JUDGE_NORM=shared: a-3",
        "masked: b-2",
        "",
    ]
    assert columns[0].by_seed == {0: models[0], 1: models[2]}


def test_a_constant_is_said_among_runs_of_a_kind_and_beside_others_where_somebody_set_it():
    own = {"SIGREG_WEIGHT": 0.1, "MAX_STEPS": 640, "SEED": 0}
    others = {"SIGREG_WEIGHT": 0.0, "MAX_STEPS": 640, "SEED": 0}
    models = [
        measured(0, "x/a", "self-teaching", own, **own),
        measured(0, "y/a", "masked", others, **others | {"MAX_STEPS": 2000}),
        measured(0, "c\nd", "self-teaching", own, **own | {"SIGREG_WEIGHT": 0.3}),
    ]
    columns = columns_of(models)
    assert [(one.title, one.about) for one in columns] == [
        ("x/a", "self-teaching, SIGREG_WEIGHT=0.1: x/a"),
        ("y/a", "masked, MAX_STEPS=2000: y/a"),  # not λ, which is its script's
        (r"c\nd", r"self-teaching, SIGREG_WEIGHT=0.3: c\nd"),
    ]
    assert report(columns).startswith("- x/a: self-teaching, SIGREG_WEIGHT=0.1: x/a\n- y/a: masked, ")


def test_markdown_is_as_wide_as_its_cells_and_what_is_undefined_is_empty():
    half = stats.t.ppf(0.975, 2) / 3**0.5
    figure = text_of(column([19, 20, 21]).estimate("psnr"), ".2f")
    assert figure == f"20.00±{half:.2f}"
    assert text_of(column([1]).estimate("ssim"), ".2f") == ""
    assert markdown(["", "a", "b"], [["PSNR", figure, ""]]).splitlines() == [
        "|      |          a |  b |",
        "| ---- | ---------: | -: |",
        "| PSNR | 20.00±2.48 |    |",
    ]


def test_runs_that_differ_in_their_step_share_no_column():
    same = {"SIGREG_WEIGHT": 0.1}
    models = [measured(0, name, "masked", **same, SEED=seed) for seed, name in enumerate("ab")]
    assert [one.title for one in columns_of(models)] == ["a, 2 seeds"]
    models[1] = replace(models[1], run=replace(models[1].run, step=2))
    columns = columns_of(models)
    assert [(one.title, one.about) for one in columns] == [("a", "masked, step 1: a"), ("b", "masked, step 2: b")]


def test_a_bar_in_a_run_s_name_does_not_end_its_cell():
    assert markdown(["", "a|b"], [["x", "1"]]).splitlines()[0] == r"|    | a\|b |"
