"""The verdict on a run: a pure function of the rows of metrics.csv."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leae.training.evaluation import health, report
from tests.training.test_run import make_run


def rows_of(psnr, rank=(53.0,), dead=(0,), size=128, view="masked", of_view=None, mean=13.0):
    """Rows of evaluations at steps 0, 100, …, whose figures are these; the last of each is repeated."""
    rows = []
    for number, value in enumerate(psnr):
        figures = {"psnr_clean": value, f"psnr_{view}": (of_view or [value - 1 for value in psnr])[number]}
        figures |= {f"psnr_{view}_input": 18.0, "psnr_mean_image": mean, "encoder_dimensions": size}
        figures["encoder_effective_rank"] = rank[min(number, len(rank) - 1)]
        figures["encoder_dead_dimensions"] = dead[min(number, len(dead) - 1)]
        rows.append({"split": "test", "step": str(100 * number), "epoch": str(number / 2)})
        rows[-1] |= {name: f"{figure:.6g}" for name, figure in figures.items()}
    return rows


@pytest.mark.parametrize(
    ("rows", "verdict", "reason"),
    [
        (rows_of([12.8, 17.4, 18.7, 19.4, 19.9]), "healthy", "rank 53.0 of 128, .*rising.*19.90 dB .*400.*1.20 .*200"),
        (rows_of([12.8, 19.0, 20.5, 20.5, 20.5]), "healthy", "no longer rising"),
        (rows_of([12.8, 14.0, 13.9], of_view=[12.8, 17.0, 19.0]), "healthy", r"19\.00 dB"),  # of a masked baseline
        (rows_of([12.8, 17.0, 19.0], view="noisy"), "healthy", "rising"),
        (rows_of([12.8, 15.0, 15.2], rank=[9.8, 2.7, 1.6]), "collapsed", "rank 1.6 of 128, 0 dead, after step 200"),
        (rows_of([12.8, 15.0, 15.2], rank=[3.9]), "collapsed", "rank 3.9 of 128"),
        (rows_of([12.8, 15.0, 15.2], rank=[6.1]), "healthy", "rank 6.1 of 128"),
        (rows_of([12.8, 15.0, 15.2], rank=[2.7], size=32), "healthy", "rank 2.7 of 32"),  # digits after 60 steps
        (rows_of([12.8, 15.0, 15.2], rank=[1.0], size=32), "collapsed", "rank 1.0 of 32"),  # black digits
        (rows_of([12.8, 15.0, 15.2], dead=[0, 3]), "collapsed", "3 dead"),
        (rows_of([12.8, 15.0, 15.2], rank=[1.6], size=4), "healthy", "rank 1.6 of 4"),
        (rows_of([12.8, 15.0, 15.2], rank=[1.0], size=1), "healthy", "rank 1.0 of 1"),
        (rows_of([11.3, 11.3, 11.3]), "stalled", "11.30 dB .*mean image 13.00"),
        (rows_of([12.8, 14.2, 13.5, 14.0, 13.1]), "stalled", "no longer rising"),  # 1.1 dB below its best
        (rows_of([4.9, 8.2, 9.6]), "too early to tell", "rising.*9.60 dB"),
        (rows_of([12.8]), "too early to tell", "rank 53.0 of 128"),
        (rows_of([10.77, 10.78], mean=10.73), "too early to tell", "rank 53.0 of 128"),
        (
            [{**row, "step": str(number)} for number, row in enumerate(rows_of([12.8] * 4))],
            "too early to tell",
            "step 3",
        ),
        (rows_of([12.8], rank=[1.0]), "collapsed", "rank 1.0"),
        ([], "too early to tell", ""),
        ([{"split": "train", "step": "10", "loss": "0.5"}], "too early to tell", ""),
        ([*rows_of([12.8, 15.0]), {"split": "train", "step": "110", "loss": "nan"}], "diverged", "loss is nan .*110"),
        ([*rows_of([12.8, 15.0]), {"split": "train", "step": "110", "kl": "-inf"}], "diverged", "kl is -inf"),
    ],
)
def test_a_verdict_is_one_line_with_its_reason(rows, verdict, reason):
    said = health(rows)
    assert said.startswith(f"{verdict}: ")
    assert re.search(reason, said)
    assert "\n" not in said


def test_a_run_whose_rows_are_older_or_have_no_codes_has_a_verdict_from_its_psnr():
    rows = [{name: row[name] for name in row if not name.startswith("encoder")} for row in rows_of([12.8, 17.0, 19.0])]
    assert re.search("^healthy: PSNR rising.*19.00 dB after step 200", health(rows))


@settings(max_examples=300)
@given(st.data())
def test_rows_that_lack_any_of_their_figures_have_a_verdict_as_well(data):
    crop = {
        "split": "train",
        "step": "150",
        "loss": "1",
        "latent": "1",
        "consistency": "1",
        "reconstruction": "1",
        "kl": "1",
    }
    rows = [{"split": row["split"], "step": row["step"]} for row in (*rows_of([12.8, 17.0, 19.0]), crop)]
    for row, whole in zip(rows, (*rows_of([12.8, 17.0, 19.0]), crop), strict=True):
        row |= {name: whole[name] for name in whole if data.draw(st.booleans())}
    assert health(rows).split(":")[0] in ("healthy", "stalled", "too early to tell")
    assert report(rows).startswith(health(rows))


def shares_in(text):
    return {name: int(share) / 100 for name, share in re.findall(r"([\w.]+) (\d+)%", text)}


@pytest.mark.parametrize(
    ("terms", "shares"),
    [
        ({"loss": 1.0, "latent": 0.8, "sigreg": 0.2, "consistency": 0.4, "clean_crop_1.0": 1.2}, (0.2, 0.2, 0.6)),
        ({"loss": 1.0, "latent": 0.5, "sigreg": 0.2, "clean_crop_1.0": 0.5, "pixels": 0.3}, (0.2, 0.5, 0.3)),
        ({"loss": 1.0, "reconstruction": 0.7, "sigreg": 0.3}, (0.7, 0.3)),
        ({"loss": 100.0, "reconstruction": 60.0, "kl": 20.0}, (0.6, 0.4)),  # β is 2
    ],
)
def test_the_shares_of_the_terms_add_up_to_the_loss(terms, shares):
    begun = dict.fromkeys(terms, "0.125")
    rows = [{"split": "train", "step": "10", "learning_rate": "0.1", "images_per_second": "9", **begun}]
    rows.append({**rows[0], "step": "20", **{name: str(value) for name, value in terms.items()}})
    said = report(rows)
    assert tuple(shares_in(said).values()) == shares
    assert sum(shares) == pytest.approx(1)
    assert ("consistency: 0.125 at first, 0.4 now" in said) == ("consistency" in terms)


def test_a_loss_of_one_term_has_no_shares_and_one_of_zero_none_that_fails():
    assert "\n" not in report([*rows_of([12.8, 17.0]), {"split": "train", "step": "10", "loss": "0.5"}])
    zero = {"loss": "0", "latent": "0", "sigreg": "0", "consistency": "0", "clean_crop_1.0": "0"}
    assert shares_in(report([{"split": "train", "step": "10", **zero}])) == dict.fromkeys(
        ("sigreg", "consistency", "clean_crop_1.0"), 0
    )


def test_a_collapse_is_told_once_when_it_begins_and_again_if_it_comes_back(workplace, capsys):
    run, said = make_run(), []
    for number, rank in enumerate((53, 1.2, 1.1, 53, 1.3, 1.3)):
        [row] = rows_of([15.0], rank=[rank])
        run.log("test", number, number, {name: float(row[name]) for name in list(row)[3:]})
        run.log("train", number + 1, number, {"loss": 0.5})
        said.append(capsys.readouterr().err.count("warning: collapsed"))
    assert said == [0, 1, 0, 0, 1, 0]
