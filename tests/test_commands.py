"""The one command for everything that is not training: what it lists, what it refuses, what it imports."""

import json
import subprocess
import sys

import pytest

from leae.__main__ import COMMANDS
from tests.conftest import ROOT, assert_one_line, write_image


def test_help_and_lists_do_not_wait_for_torch(tmp_path):
    helped = [
        *(["leae", command] for command in COMMANDS),
        *([str(ROOT / f"main{kind}.py")] for kind in ("", "_regular")),
    ]
    program = f"""
import contextlib, io, json, runpy, sys
for sys.argv in {[["leae"], ["leae", "runs"], *([*line, "--help"] for line in helped)]}:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        (runpy.run_path if "." in sys.argv[0] else runpy.run_module)(sys.argv[0], run_name="__main__")
    sys.modules.pop("leae.training.help", None)
    print(json.dumps(said.getvalue()))
print("torch" in sys.modules)
"""
    how = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True, "env": {"PYTHONPATH": str(ROOT)}}
    *said, imported = subprocess.run([sys.executable, "-c", program], **how).stdout.splitlines()
    assert imported == "False"
    listed, runs, *helps = map(json.loads, said)
    commands = dict(line.split(maxsplit=1) for line in listed.splitlines() if line.startswith("    "))
    assert list(commands) == list(COMMANDS)
    assert commands["compare"].startswith("One picture of what several runs make")
    assert runs == "no runs in runs/ yet; uv run main.py makes one\n"
    for line, text in zip(helped, helps, strict=True):
        assert text.startswith(f"usage: {' '.join(line).rpartition('/')[2]} [-h]")
        assert f"-m {' '.join(line)}" in text or line[0] != "leae"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evalute --help", "there is no command evalute, did you mean evaluate.; choose one of prepare, compare, "),
        ("evaluate RUN --csv table.txt", "--csv is table.txt; it must be a .csv file in a folder that exists"),
        ("compare RUN --images 0", "--images is 0; it must be a whole number, at least 1"),
        ("compare RUN --output nowhere/picture.png", "a .png file in a folder that exists"),
        ("compare RUN --checkpoint 050", "no checkpoint 050; .*choose another --checkpoint: 000 or 020"),
        ("compare RUN --mask-ratio 1", "MASK_RATIO is 1.0"),
        ("compare runs/nobody-001", "runs here: runs/masked-001, runs/plain-001"),
        ("evaluate RUN --label-share 0", "--label-share is 0.0; it must be above 0 and at most 1"),
        ("evaluate RUN --train-images 5", "--train-images is 5; it must be a whole number, at least 100"),
        ("latents RUN --images 51", "--images is 51; it must be at most 50"),
        ("latents RUN --seed -1", "--seed is -1"),
        ("latents RUN --map isomap", "invalid choice: 'isomap'"),
        ("latents RUN --attribute smilling", "is '?smilling'?; it must be one of Bald, .*did you mean Smiling"),
        ("score RUN nowhere", "nowhere is not a folder"),
        ("score RUN empty", "empty has no images"),
        ("score RUN mine --positive ugly", "--positive is '?ugly'?; it must be one of bad, good"),
        ("embed RUN valid", "the split is 'valid'; it must be one of train, test, or a folder"),
        ("embed RUN test --output codes.txt", "--output is codes.txt; it must be a .npz or .csv file in a folder"),
        ("export RUN mine", "mine has other files in it; choose a new folder, or an earlier export"),
        ("export RUN new --license x:y", "--license is 'x:y'; it must be an identifier"),
    ],
)
def test_what_is_refused_is_one_line_and_nothing_is_written(trained, monkeypatch, capsys, line, says):
    (trained / "empty").mkdir(exist_ok=True)
    for image in ("good/1.png", "bad/2.png"):
        write_image(trained / "mine" / image, 1)
    before = sorted(trained.rglob("*"))
    assert_one_line(monkeypatch, capsys, *line.replace("RUN", "runs/self-teaching-001").split(), says=says)
    assert sorted(trained.rglob("*")) == before
