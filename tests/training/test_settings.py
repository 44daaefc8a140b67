"""Constants of a script as options, and what a resumed run keeps of them."""

import json
import re
import runpy
from pathlib import Path

import pytest

from leae.errors import UsageError
from leae.training.settings import configure, constants_in, constants_of, option_of, script_constants
from tests.conftest import ROOT
from tests.training.test_run import make_run


@pytest.fixture
def namespace(workplace):
    """The globals of main.py, to which somebody has added constants."""
    source = (ROOT / "main.py").read_text(encoding="utf-8")
    Path("main.py").write_text(f"{source}\nRATE = 0.5\nSHARE = 0.5  # 50 % of all\n", encoding="utf-8")
    return runpy.run_path("main.py", run_name="not main")


def constants(namespace):
    return constants_of(namespace, constants_in(Path("main.py")))


def configured(monkeypatch, namespace, line):
    monkeypatch.setattr("sys.argv", ["main.py", *line.split()])
    return configure(namespace, "self-teaching")


@pytest.mark.parametrize("value", [None, {}, ["pooled"], ("0.15",)])
def test_a_constant_is_a_number_a_text_a_bool_or_a_tuple_of_numbers(namespace, value):
    with pytest.raises(UsageError, match="SHARE"):
        constants({**namespace, "SHARE": value})


def test_help_lists_every_constant_with_its_comment_and_value(monkeypatch, namespace, capsys):
    namespace["CROP_RATIOS"] = (0.25, 0.5)
    with pytest.raises(SystemExit):
        configured(monkeypatch, namespace, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert all(option_of(name) in text for name in constants(namespace))
    assert all(" ".join(one.comment.split()) in text for one in constants_in(Path("main.py")).values())
    assert "[0.25 0.5]" in text
    assert "optimisation: --batch-size INT images per step" in text


def test_a_resumed_run_keeps_its_settings_but_for_those_that_change_no_number(monkeypatch, namespace):
    settings = {name: value for name, value in constants(namespace).items() if name != "RESUME"}
    begun = make_run(**{**settings, "EPOCHS": 7, "CROP_RATIOS": (0.5,), "COMPILE": True})
    begun.lock.release()
    resume = f"--resume {begun.folder}"
    with pytest.raises(UsageError, match=rf"EPOCHS is 7 in {begun.folder}, not 8"):
        configured(monkeypatch, dict(namespace), f"{resume} --epochs 8")
    run = configured(monkeypatch, namespace, f"{resume} --epochs 7 --no-compile --save-minutes 1")
    assert run.folder == begun.folder
    assert (namespace["EPOCHS"], namespace["CROP_RATIOS"]) == (7, (0.5,))
    assert (namespace["COMPILE"], namespace["SAVE_MINUTES"]) == (False, 1.0)
    assert json.loads((run.folder / "settings.json").read_text())["settings"]["COMPILE"] is True
    run.lock.release()
    with Path("main.py").open("a") as file:
        file.write("NEW_ONE = 1\n")
    with pytest.raises(UsageError, match=r"NEW_ONE.*settings\.json"):
        configured(monkeypatch, {**namespace, "NEW_ONE": 1}, resume)


def test_constants_are_found_wherever_a_script_sets_them(workplace, monkeypatch):
    source = (ROOT / "main.py").read_text(encoding="utf-8")
    source = re.sub(r"(?m)^(EPOCHS|WARMUP|SCHEDULE|WEIGHT_DECAY) = .*\n", "", source)
    source += "\nfrom conf import *\nif True:\n    WARMUP = 0.3\nEPOCHS, MINE = 3, 4\n"
    Path("main.py").write_text(source, encoding="utf-8-sig")  # as Windows' editors do
    Path("conf.py").write_text("SCHEDULE, WEIGHT_DECAY, OTHER = 'constant', 0.5, 6\n")
    monkeypatch.syspath_prepend(workplace)
    settings = configured(monkeypatch, runpy.run_path("main.py", run_name="not main"), "--warmup 0.2").settings
    found = [settings.get(name) for name in ("WARMUP", "EPOCHS", "MINE", "SCHEDULE", "WEIGHT_DECAY", "OTHER")]
    assert found == [0.2, 3, 4, "constant", 0.5, None]


def test_what_a_script_imports_or_defines_is_no_constant(namespace):
    before = constants(namespace)
    with Path("main.py").open("a") as file:
        file.write("import torch.nn.functional as F\nfrom leae.judge import WHOLE\nclass VAE:\n    SIZE = 3\n")
    assert constants(runpy.run_path("main.py", run_name="not main")) == before


def test_a_constant_may_be_annotated_and_one_that_was_edited_to_a_whole_number_still_takes_a_share(
    workplace, monkeypatch
):
    source = re.sub(r"(?m)^EPOCHS = (.*)  # ", r"EPOCHS: int = \1  # ", (ROOT / "main.py").read_text(encoding="utf-8"))
    Path("main.py").write_text(re.sub(r"(?m)^WARMUP = [\d.]+", "WARMUP = 0", source), encoding="utf-8")
    assert "EPOCHS: int" in Path("main.py").read_text()
    edited = runpy.run_path("main.py", run_name="not main")
    settings = configured(monkeypatch, edited, "--warmup 0.02 --epochs 3").settings
    assert (settings["WARMUP"], settings["EPOCHS"]) == (0.02, 3)
    assert constants_in(Path("main.py"))["EPOCHS"][1:] == constants_in(ROOT / "main.py")["EPOCHS"][1:]


def test_commands_that_read_a_script_say_which_constant_takes_more_to_compute(workplace):
    for line in ("EPOCHS = math.isqrt(9)", "EPOCHS, _ = 3, 0", "EPOCHS = 2\nif gpu:\n    EPOCHS = 3"):
        Path("main.py").write_text(f"import math\n{line}\n")
        with pytest.raises(UsageError, match=r"^EPOCHS in .*main\.py must be computed from gpu and "):
            script_constants(workplace / "main.py", gpu=False)


@pytest.mark.parametrize("option", ["--resume", "--init"])
def test_an_empty_path_begins_no_new_run(monkeypatch, namespace, option):
    with pytest.raises(UsageError, match=f"{option} is ''"):
        configured(monkeypatch, namespace, f"{option}=")


def test_the_small_model_decides_the_image_size_unless_the_command_line_asks_for_more(monkeypatch, namespace):
    assert configured(monkeypatch, dict(namespace), "--model conv").settings["IMAGE_SIZE"] == 32
    assert configured(monkeypatch, dict(namespace), "--model conv --image-size 32").settings["IMAGE_SIZE"] == 32
