"""Every constant of both scripts and every option of the commands, with values that cannot be."""

import re
import runpy

import pytest

from leae.analysis import bench
from leae.data import prepare as prep_data
from leae.errors import run_command
from leae.training.settings import constants_of
from tests.conftest import ROOT, assert_refused

# By constant, lines with a value that cannot be, and what the answer has to say: the range, or the nearest that works.
COMMON = {
    "DATASET": [("--dataset nothing", "'nothing'; choose auto, celeba")],
    "IMAGE_SIZE": [
        ("--image-size 0", "at least 1"),
        ("--image-size 100", "96 and 104"),
        ("--image-size 4096", "at most 2048"),
        (f"--image-size {10**15}", "at most"),
    ],
    "FACES": [("--faces 0", "at least 1"), (f"--faces {10**7}", "at most 1000000")],
    "HELD_OUT": [("--held-out 0", "at least 1"), (f"--held-out {10**12}", "at most 1000000000")],
    "MODEL": [("--model large", "residual or conv")],
    "LATENT": [("--latent round", "'pooled' or 'spatial'")],
    "LATENT_DIM": [("--latent-dim 0", "at least 1"), (f"--latent-dim {10**6}", "at most 65536")],
    "SPATIAL_DIM": [
        ("--latent spatial --spatial-dim 0", "at least 1"),
        ("--latent spatial --spatial-dim 30 --hidden-dim 32", "16, 32"),
    ],
    "HIDDEN_DIM": [
        ("--hidden-dim -1", "at least 1"),
        (f"--hidden-dim {10**6}", "at most 65536"),
        ("--hidden-dim 32768", "parameters; it may have 1,073,741,824: lower HIDDEN_DIM"),
    ],
    "MAP_CHANNELS": [("--map-channels 0", "at least 1"), ("--hidden-dim 32 --map-channels 30", "16, 32")],
    "CONV_LATENT_DIM": [
        ("--model conv --conv-latent-dim 0", "at least 1"),
        (f"--model conv --conv-latent-dim {10**6}", "at most 65536"),
    ],
    "MASK_RATIO": [
        ("--mask-ratio 0", "between 0 and 1, say 0.35"),
        ("--mask-ratio nan", "a number"),
        ("--image-size 64 --mask-ratio 0.999", "between 6.1e-05 and 0.98"),
    ],
    "BATCH_SIZE": [
        ("--batch-size 1", "at least 2"),
        ("--dataset faces --faces 64 --batch-size 65", "at most the number of training images, 64"),
    ],
    "EPOCHS": [("--epochs 0", "at least 1"), (f"--epochs {10**400}", "at most 1000000000|digits")],
    "MAX_STEPS": [("--max-steps -1", "at least 0")],
    "LEARNING_RATE": [("--learning-rate 0", "say 0.001"), ("--learning-rate inf", "a number")],
    "WARMUP": [("--warmup 1", "below 1, say 0.02")],
    "SCHEDULE": [("--schedule stepwise", "cosine or constant")],
    "WEIGHT_DECAY": [("--weight-decay -0.1", "at least 0 and below 1")],
    "SEED": [("--seed -1", "at least 0"), (f"--seed {2**63}", "below 2..63")],
    "DEVICE": [("--device abacus", "choose")],
    "LOG_EVERY": [("--log-every 0", "at least 1")],
    "GRID_EVERY": [("--grid-every 0", "at least 1")],
    "GRID_IMAGES": [("--grid-images 0", "at least 1"), ("--grid-images 1000", "at most 100")],
    "SAVE_MINUTES": [("--save-minutes -1", "at least 0"), ("--save-minutes nan", "a number")],
    "RESUME": [("--resume nowhere", "not a run's folder")],
    "COMPILE": [("--compile 5", "no option 5")],
}
OWN = {
    "main.py": {
        "OBJECTIVE": [("--objective pixels", "symmetric, crop")],
        "CROP_RATIOS": [
            ("--crop-ratios 0", "at most 1, say 0.15"),
            ("--crop-ratios nan", "say 0.15"),
            ("--crop-ratios 0.5 0.5", "different"),
            ("--image-size 64 --crop-ratios 0.01", "at least 0.031"),
        ],
        "SIGREG_WEIGHT": [("--sigreg-weight -1", "at least 0, say 0.03"), ("--sigreg-weight inf", "a number")],
        "JUDGE_DECAY": [("--judge-decay 1", "below 1, say 0.99"), ("--judge-decay nan", "a number")],
        "JUDGE_RULER": [("--judge-ruler inch", "shared, own")],
    },
    "main_regular.py": {
        "OBJECTIVE": [("--objective pixels", "masked, plain, denoising or variational")],
        "OUTPUT": [("--output square", "sigmoid or linear")],
        "RECONSTRUCTION_LOSS": [
            ("--reconstruction-loss mae", "mse or bce"),
            ("--reconstruction-loss bce --output linear", "needs output sigmoid"),
        ],
        "NOISE": [("--objective denoising --noise 0", "at most 1, say 0.2")],
        "BETA": [
            ("--objective variational --beta -1", "at least 0"),
            ("--objective variational --beta inf", "a number"),
        ],
    },
}
LINES = [
    (script, name, line, says)
    for script, own in OWN.items()
    for name, lines in {**COMMON, **own}.items()
    for line, says in lines
]


@pytest.mark.parametrize("script", OWN)
def test_the_table_has_every_constant(script):
    constants = constants_of(runpy.run_path(str(ROOT / script), run_name="not main"))
    assert constants.keys() == {**COMMON, **OWN[script]}.keys()


@pytest.mark.parametrize(
    ("script", "name", "line", "says"), LINES, ids=[f"{s}: {line[:40]}" for s, _, line, _ in LINES]
)
def test_a_value_that_cannot_be_is_refused_with_name_value_and_what_can(
    workplace, monkeypatch, capsys, script, name, line, says
):
    assert_refused(monkeypatch, capsys, script, line, says)


@pytest.mark.parametrize(
    ("module", "line", "says"),
    [
        (prep_data, "", "dataset"),
        (prep_data, "nothing", "no data set 'nothing'; choose auto"),
        (prep_data, "faces --faces 0", "--faces is 0; it must be a whole number, at least 1"),
        (prep_data, "faces --faces many", "--faces.*'many'"),
        (prep_data, f"faces --faces {10**9}", "--faces is 1000000000; it must be at most 1000000"),
        (prep_data, "faces --image-size -1", "--image-size is -1; it must be a whole number, at least 1"),
        (prep_data, "faces --image-size 5000", "--image-size is 5000; it must be at most 2048"),
        (prep_data, "faces --size 64", "no option --size"),
        (bench, "--steps 0", "--steps is 0; it must be a whole number, at least 1"),
        (bench, f"--steps {10**12}", "--steps is 1000000000000; it must be at most"),
        (bench, "--only slow", "--only.*slow"),
        (bench, "--device abacus", "'abacus'.*choose"),
    ],
)
def test_an_option_of_a_command_that_cannot_be_is_refused(workplace, monkeypatch, capsys, module, line, says):
    name = module.__name__.split(".")[-1] + ".py"
    monkeypatch.setattr("sys.argv", [name, *line.split()])
    with pytest.raises(SystemExit) as end:
        run_command(module.main)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert re.match(rf"{name}: .*{says}", printed.err)
    assert (printed.out + printed.err).count("\n") == 1
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 8 TiB"), RuntimeError("[...] DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_is_one_line(monkeypatch, capsys, error):
    def main():
        raise error

    monkeypatch.setattr("sys.argv", ["main.py"])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"main.py: {error}; lower BATCH_SIZE, IMAGE_SIZE or HIDDEN_DIM\n"


def test_another_runtime_error_is_a_bug_and_keeps_its_traceback():
    def main():
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError):
        run_command(main)
