"""Every constant of both scripts with a value that cannot be: one line with name, value and range, before any work."""

import re
import runpy
import sys

import pytest

from leae.training.settings import constants_of
from tests.conftest import ROOT, assert_one_line

# By constant, a line with a value that cannot be, and what the answer says; `test_ranges` has more for the method's.
COMMON = {
    "DATASET": ("--dataset mnits", "no data set 'mnits'.*auto, celeba"),
    "IMAGE_SIZE": ("--hidden-dim 4 --map-channels 4 --latent-dim 1 --image-size 4096", "at most 2048"),
    "FACES": (f"--faces {10**7}", "at most 1000000"),
    "HELD_OUT": (f"--held-out {10**12}", "at most 1000000000"),
    "MODEL": ("--model large", "residual or conv"),
    "LATENT": ("--latent round", "pooled or spatial"),
    "LATENT_DIM": ("--latent-dim 0", "at least 1"),
    "SPATIAL_DIM": ("--latent spatial --spatial-dim 30 --hidden-dim 32", "16, 32"),
    "HIDDEN_DIM": ("--hidden-dim 32768", "parameters; it may have 1,073,741,824: lower HIDDEN_DIM"),
    "MAP_CHANNELS": ("--hidden-dim 32 --map-channels 30", "16, 32"),
    "CONV_LATENT_DIM": ("--model conv --conv-latent-dim 0", "at least 1"),
    "MASK_RATIO": ("--image-size 64 --mask-ratio 0.999", "between 6.1e-05 and 0.98"),
    "BATCH_SIZE": ("--batch-size 1", "at least 2"),
    "EPOCHS": ("--epochs 0", "at least 1"),
    "MAX_STEPS": ("--max-steps -1", "at least 0"),
    "LEARNING_RATE": ("--learning-rate 0", "a number in .0, 1."),
    "WARMUP": ("--warmup 1", "a number in .0, 1."),
    "SCHEDULE": ("--schedule stepwise", "cosine or constant"),
    "WEIGHT_DECAY": ("--weight-decay 1", "a number in .0, 1."),
    "SEED": ("--seed -1", "at least 0"),
    "DEVICE": ("--device abacus", "choose"),
    "PRECISION": ("--precision float16", "must be auto, float32 or bfloat16"),
    "COMPILE": ("--compile 5", "no option 5"),
    "LOG_EVERY": ("--log-every 0", "at least 1"),
    "GRID_EVERY": ("--grid-every 0", "at least 1"),
    "GRID_IMAGES": ("--grid-images 1000", "at most 100"),
    "SAVE_MINUTES": ("--save-minutes nan", "a number in .0, inf."),
    "NAME": ("--name a/b", "a folder's name"),
    "INIT": ("--init nowhere", "nowhere: No such file"),
    "RESUME": ("--resume runs/none", "runs.none is not a run's folder"),
}
OWN = {
    "main.py": {
        "OBJECTIVE": ("--objective pixels", "symmetric, alternating or crop"),
        "CROP_RATIOS": ("--image-size 64 --crop-ratios 0.01", "at least 0.031"),
        "SIGREG_WEIGHT": ("--sigreg-weight -1", "a number in .0, inf."),
        "JUDGE_DECAY": ("--judge-decay 1", "a number in .0, 1."),
        "JUDGE_LIVE": ("--judge-live 5", "no option 5"),
        "JUDGE_NORM": ("--judge-norm inch", "shared, own or whitened"),
        "WHITENING_EPSILON": ("--whitening-epsilon 0", "a number in .0, inf."),
    },
    "main_regular.py": {
        "OBJECTIVE": ("--objective pixels", "masked, plain, denoising or variational"),
        "OUTPUT": ("--output square", "sigmoid or linear"),
        "RECONSTRUCTION_LOSS": ("--reconstruction-loss bce --output linear", "sigmoid for .* bce"),
        "NOISE": ("--objective denoising --noise 0", "a number in .0, 1."),
        "SIGREG_WEIGHT": ("--sigreg-weight -1", "a number in .0, inf."),
        "BETA": ("--objective variational --beta -1", "a number in .0, inf."),
    },
}
LINES = [  # the common ones are checked by the same code for both scripts
    *[("main.py", *row) for row in (COMMON | OWN["main.py"]).values()],
    *[("main_regular.py", *row) for row in OWN["main_regular.py"].values()],
    ("main.py", f"--epochs {10**400}", "at most 1000000000|digits"),
    ("main.py", "--latent spatial --latent-dim 16", "LATENT_DIM has no effect where LATENT is spatial"),
    ("main.py", "--spatial-dim 16", "SPATIAL_DIM has no effect where LATENT is pooled; leave it out"),
    ("main.py", "--model conv --latent-dim 16", "LATENT_DIM has no effect where MODEL is conv"),
    ("main.py", "--conv-latent-dim 16", "CONV_LATENT_DIM has no effect where MODEL is residual"),
    (
        "main.py",
        "--judge-norm shared --whitening-epsilon 1",
        "WHITENING_EPSILON has no effect where JUDGE_NORM is shared",
    ),
    (
        "main.py",
        "--objective alternating --batch-size 5",
        "BATCH_SIZE is 5; it must be a multiple of 2, above 2, for alternating",
    ),
    ("main.py", "--judge-live --judge-decay 0.5", "JUDGE_DECAY has no effect where JUDGE_LIVE is True"),
    ("main_regular.py", "--noise 0.1", "NOISE has no effect where OBJECTIVE is masked"),
    ("main_regular.py", "--objective denoising --mask-ratio 0.5", "MASK_RATIO has no effect where OBJECTIVE is denoi"),
]


@pytest.mark.parametrize(("script", "line", "says"), LINES, ids=[f"{s}: {line[:40]}" for s, line, _ in LINES])
def test_a_value_that_cannot_be_is_refused(workplace, monkeypatch, capsys, script, line, says):
    assert_one_line(monkeypatch, capsys, script, *line.split(), says=says)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "edit",
    [
        *["CROP_RATIOS = (0.15)", "CROP_RATIOS = ()", "EPOCHS = 1e1", "EPOCHS = '5'", "IMAGE_SIZE = 64.0"],
        *["DATASET = 5", "LATENT = ['pooled']", "DEVICE = None", "COMPILE = 'yes'", "EXTRA = None"],
    ],
)
def test_a_constant_edited_to_another_type_is_refused_by_name(workplace, monkeypatch, capsys, edit):
    name = edit.split()[0]
    script = (ROOT / "main.py").read_text(encoding="utf-8")
    script = re.sub(rf"^{name} = .*", edit, script, flags=re.MULTILINE).replace("\nSEED = 0", f"\nSEED = 0\n{edit}")
    (workplace / "main.py").write_text(script, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["main.py"])
    with pytest.raises(SystemExit):
        runpy.run_path("main.py", run_name="__main__")
    assert re.match(rf"main.py: {name} is", capsys.readouterr().err)
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize("gpu", [False, True])
def test_the_table_has_every_constant_with_a_comment_and_those_of_both_scripts_are_the_same(monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    constants = {script: constants_of(runpy.run_path(str(ROOT / script), run_name="not main")) for script in OWN}
    for script, own in OWN.items():
        source = (ROOT / script).read_text(encoding="utf-8")
        explained = set(re.findall(r"^([A-Z_]+) = .*  # ", source, re.MULTILINE))
        assert constants[script].keys() == (COMMON | own).keys() == explained
    ours, theirs = constants.values()
    assert {name: ours[name] for name in COMMON} == {name: theirs[name] for name in COMMON}
