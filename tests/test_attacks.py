"""Attacks from outside: random command lines, and damaged files of every kind. Many more of them by `-m soak`."""

import copy
import importlib
import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leae.__main__ import COMMANDS
from leae.checkpoints import read_checkpoint
from leae.data import prepare
from leae.data.prepare import open_dataset
from leae.errors import UsageError
from leae.training.run import Run, read_metrics
from leae.training.settings import Parser, option_of, script_constants
from tests.conftest import ROOT, TINY, run_leae, write_image
from tests.data.test_images import IMAGES, MODES

FEW = [*TINY, "--faces", "16", "--held-out", "8", "--grid-images", "2"]
# Values of every kind, but none that is allowed and takes minutes.
ANY = ["", "0", "-1", "1", "2", "3", "8", "16", "0.5", "1e-9", "1e9", "nan", "inf", "10**3", "9223372036854775808"]
ANY += ["x", "é\n", "a" * 300, "1" * 5000, "../x", "/dev/null", "--", "True", "symmetric", "spatial", "conv", "own"]
ANY += ["digits"]
SCRIPTS = {script: script_constants(ROOT / script, gpu=False) for script in ("main.py", "main_regular.py")}
LENGTHY = {"--onnx", "--perceptual", "--port"}  # they take long, fetch weights, and open a page that would stay
RUN = "runs/self-teaching-001"
FOLDERS = [RUN, "runs/nothing", "data", "a" * 300, "", "é\n", "/dev/null"]


@st.composite
def script_lines(draw):
    """A training script with some of its options set to anything."""
    script = draw(st.sampled_from(sorted(SCRIPTS)))
    names = draw(st.lists(st.sampled_from(sorted(SCRIPTS[script])), min_size=1, max_size=3, unique=True))
    options = [part for name in names for part in (option_of(name), draw(st.sampled_from(ANY)))]
    return [script, *FEW, *options, "--max-steps", "1"]


@st.composite
def command_lines(draw):
    """A command with folders, and some of its options set to anything."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    parser = Parser()
    importlib.import_module(COMMANDS[command]).add_arguments(parser)
    known = sorted({action.option_strings[-1] for action in parser._actions if action.option_strings} - LENGTHY)
    names = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
    values = ["0"] if command == "bench" else ANY  # a step of the published size takes seconds
    options = [part for name in names for part in (name, draw(st.sampled_from(values)))]
    places = sum(2 if action.nargs == "+" else 1 for action in parser._actions if not action.option_strings)
    return [
        "-m leae",
        command,
        *(draw(st.sampled_from(FOLDERS)) for _ in range(places)),
        *options,
        *["--dry-run"] * (command == "ablate"),
        *["--port", "0"] * (command == "play"),  # which is refused
    ]


def assert_well_behaved(processes, trained_place, line):
    """The line succeeds, or is answered in one line and with the status 2."""
    place = trained_place if line[0] == "-m leae" else trained_place.parent / "fuzzed"
    status = processes.run(*line, folder=place)
    said = (place / "output").read_text(errors="replace")
    assert "Traceback" not in said, (line, said)
    assert status in (0, 2), (line, status, said)
    if status == 2:
        last = said.replace("\r", "\n").rstrip("\n").split("\n")[-1]
        assert re.match(r"(main(_regular)?\.py|leae( \w+)?): .", last), (line, said)


quiet = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=100, **quiet)
@given(line=script_lines() | command_lines())
def test_any_options_are_answered_by_success_or_one_line(processes, trained_place, line):
    assert_well_behaved(processes, trained_place, line)


@pytest.mark.soak
@settings(max_examples=2000, **quiet)
@given(line=script_lines() | command_lines())
def test_two_thousand_lines_are_answered(processes, trained_place, line):
    assert_well_behaved(processes, trained_place, line)


PIECES = (b'"', b"{", b"[" * 3000, b"null", b"-1", b"1e999", b",", b"\n", b"\0")


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with a piece of it flipped, cut off, taken out, doubled, or overwritten."""
    place, length = draw.randrange(len(content)), draw.choice((1, 1, 2, 8, 100))
    piece = content[place : place + length]
    return draw.choice(
        [
            content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :],
            content[:place],
            content[:place] + content[place + length :],
            content[:place] + piece + content[place:],
            content[:place] + draw.randbytes(len(piece)) + content[place + length :],
            content[:place] + draw.choice(PIECES) + content[place:],
        ]
    )


def read_run():
    Run.read(RUN)
    read_metrics(Path(RUN))
    return None  # what they say may have changed: there is no checksum


def read_weights():
    header, tensors = read_checkpoint(Path(RUN) / "checkpoints" / "last.safetensors")
    return header, {name: tensor.tolist() for name, tensor in tensors.items()}


def read_data():
    dataset = open_dataset("faces", 16, 16)  # what is damaged is prepared again
    arrays = [np.asarray(array).tolist() for array in (*dataset.images.values(), *dataset.attributes.values())]
    return dataset.identity, dataset.title, dataset.attribute_names, arrays


DAMAGED = {  # a file, and what reads it
    f"{RUN}/checkpoints/last.safetensors": read_weights,
    f"{RUN}/settings.json": read_run,
    f"{RUN}/metrics.csv": read_run,
    **{f"data/prepared/faces-16-16/{name}": read_data for name in ("train.npy", "train-attributes.npy")},
    **{f"data/prepared/faces-16-16/{name}": read_data for name in ("manifest.json", "verified.json")},
}


@pytest.mark.parametrize("soak", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_read_as_it_was_or_refused(trained_place, workplace, monkeypatch, name, soak):
    shutil.copytree(trained_place / RUN, RUN)
    monkeypatch.setattr(prepare, "BLOCK", 300)  # several to an array
    for _ in range(2):  # the second time it is verified
        open_dataset("faces", 16, 16)
    path, read, draw, refused = workplace / name, DAMAGED[name], random.Random(0), 0
    said = ""
    content, expected = path.read_bytes(), read()
    weights = name.endswith(".safetensors")
    count = (10_000 if weights else 2_000) if soak else (200 if weights else 20)
    for number in range(count):
        path.write_bytes(changed := mutated(content, draw))
        try:
            assert read() == expected, (number, changed[:2000])
        except UsageError as error:
            refused, said = refused + 1, str(error)
        assert "\n" not in said
    print(name, count, "damaged,", refused, "refused")
    path.unlink()
    assert read is not read_data or read() == expected


OTHERS = (None, True, -1, 0.5, float("inf"), 10**30, "", "\x1b[2J\0", "\ud800", 10**5 * "x", [], [1, "x"], {}, {"x": 1})


def retyped(content) -> Iterator:
    """The content, of JSON, with each of its parts replaced in turn by a value of each kind, or left out."""
    yield from OTHERS
    for key in content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        for value in retyped(content[key]):
            changed = copy.copy(content)
            changed[key] = value
            yield changed
        del changed[key]
        yield changed


EXPORT, PREPARE = ("export", RUN, "exported"), ("prepare", "faces", "--faces", "16", "--image-size", "16")
COMMANDS_OF = {  # a file, and commands that read it
    f"{RUN}/settings.json": [("runs",), EXPORT],
    f"{RUN}/evaluation.json": [EXPORT],
    "data/prepared/faces-16-16/manifest.json": [PREPARE],
    "exported/settings.json": [("export", "exported", "again"), ("embed", "exported", "test", "--output", "codes.npz")],
}


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS_OF)
def test_json_of_any_other_shape_is_answered_in_one_line(trained_place, workplace, monkeypatch, capsys, name, every):
    shutil.copytree(trained_place / RUN, RUN)
    figures = {"step": 9, "data": {}, "options": {}, "figures": {"psnr_clean": [21.25, 21.0, None]}}
    Path(RUN, "evaluation.json").write_text(json.dumps(figures))
    for command in (EXPORT, PREPARE):
        run_leae(monkeypatch, *command)
    path = Path(name)
    count = refused = 0
    for count, content in enumerate(retyped(json.loads(path.read_text())), 1):
        if count % every:
            continue
        path.write_text(json.dumps(content))
        for command in COMMANDS_OF[name]:
            if command[0] == "export":
                shutil.rmtree(command[2], ignore_errors=True)  # which is not replaced
            with monkeypatch.context() as patch:
                for stream in ("stdout", "stderr"):  # a command wraps them, once more each time
                    patch.setattr(sys, stream, getattr(sys, stream))
                try:
                    run_leae(patch, *command)
                    continue
                except SystemExit as stop:
                    status = stop.code
            refused, said = refused + 1, capsys.readouterr().err
            assert (status, said[-1], said[:-1].isprintable()) == (2, "\n", True), (content, said)
    print(name, count // every, "of another shape,", refused, "answers refuse")


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.soak)])
def test_damaged_images_are_used_or_named_whatever_their_kind(workplace, capsys, count):
    contents = [content for _, content, _ in IMAGES.values() if content and len(content) < 10_000]
    contents += [content for content, _ in MODES.values()]
    draw = random.Random(0)
    for number in range(9):
        write_image(workplace / "pictures" / f"good{number}.png", number)
    for number in range(count):
        (workplace / "pictures" / f"{number}.png").write_bytes(mutated(bytes(draw.choice(contents)), draw))
    used = sum(map(len, open_dataset("pictures", 8, 16).images.values()))
    left_out = int(re.search(rf"(\d+) of {count + 9} images", capsys.readouterr().err)[1])
    print(count, "damaged images,", left_out, "left out")
    assert used + left_out == count + 9
    assert used > 9
