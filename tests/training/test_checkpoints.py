"""Checkpoint files that are damaged, forged or no checkpoints: read whole, or refused in one line."""

import io
import os
import resource
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import leae
from leae.autoencoder import Autoencoder
from leae.errors import UsageError
from leae.judge import Judge
from leae.training import checkpoints
from leae.training.checkpoints import LAST_LINE, LAST_LINE_BYTES, read_checkpoint, tensors_of, write_checkpoint
from tests.conftest import assert_same

SIZES = {"image_size": 16, "image_channels": 3, "hidden_dim": 4, "latent": "pooled", "latent_dim": 4}
SIZES |= {"map_channels": 4, "output": "sigmoid"}


def make_checkpoint():
    """A checkpoint as a run that goes on would read it, with a judge and an optimizer that has made a step."""
    torch.manual_seed(0)
    model = Autoencoder(**SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model(torch.rand(4, 3, 16, 16)).sum().backward()
    optimizer.step()
    others = {"judge": Judge(model.encoder).state_dict(), "optimizer": optimizer.state_dict()}
    content = {"class": "Autoencoder", "settings": dict(model.settings), "weights": model.state_dict()}
    return {"model": content, "step": 1, "others": others}


CHECKPOINT = make_checkpoint()


def seal(content: bytes) -> bytes:
    """With the checksum that a forger would add."""
    return content + LAST_LINE.format(zlib.crc32(content)).encode()


def damaged_bytes(content: bytes):
    """Strategy: the content with some bytes flipped, and perhaps cut, doubled or lengthened."""
    flip = st.tuples(st.integers(0, len(content) - 1), st.integers(1, 255))
    near_the_end = st.tuples(st.integers(len(content) - 900, len(content) - 1), st.integers(1, 255))
    cuts = st.one_of(st.none(), st.integers(0, len(content)), st.integers(len(content) - 900, len(content)))

    def apply(flips, cut, tail):
        changed = bytearray(content)
        for position, value in flips:
            changed[position] ^= value
        return bytes(changed[:cut]) + tail

    return st.builds(apply, st.lists(flip | near_the_end, max_size=4), cuts, st.sampled_from([b"", b"", b"\0", b"PK"]))


def in_memory(checkpoint, number=checkpoints.FORMAT):
    content = io.BytesIO()
    torch.save({"format": number, **checkpoint}, content)
    return content.getvalue()


SEALED = seal(in_memory(CHECKPOINT))
UNSEALED = in_memory(CHECKPOINT, checkpoints.WITHOUT_CHECKSUM)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "file.pt"


def outcome(read, path):
    """What reading a file gives, and None; or None, and the line that refuses it."""
    try:
        return read(path), None
    except UsageError as refusal:
        return None, str(refusal)


def read_or_refuse(path, content):
    """What is read is the very checkpoint; else there is a line that names the file. Whether it was read."""
    path.write_bytes(content)
    found, refusal = outcome(read_checkpoint, path)
    if refusal is not None:
        assert refusal.startswith(str(path))
        assert "\n" not in refusal
        return False
    assert_same({name: found[name] for name in CHECKPOINT}, CHECKPOINT)
    return True


@given(damaged_bytes(SEALED))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_byte_is_damaged_the_file_is_refused(file, content):
    assert read_or_refuse(file, content) == (content == SEALED)


@given(damaged_bytes(UNSEALED))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_from_before_the_checksum_are_read_as_they_were_or_refused(file, content):
    read_or_refuse(file, content)


@given(damaged_bytes(SEALED[:-LAST_LINE_BYTES]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_damaged_and_sealed_again_raises_nothing_but_a_refusal(file, content):
    file.write_bytes(seal(content))
    model, refusal = outcome(leae.load, file)
    assert isinstance(model, Autoencoder) if refusal is None else "\n" not in refusal


def test_what_was_written_comes_back_and_the_format_before_is_read_still(file):
    write_checkpoint(file, CHECKPOINT)
    assert read_or_refuse(file, file.read_bytes())
    assert read_or_refuse(file, UNSEALED)
    assert not read_or_refuse(file, SEALED[:-LAST_LINE_BYTES])  # the checksum cut off
    assert not read_or_refuse(file, seal(UNSEALED))


class Executed:
    def __reduce__(self):
        return os.system, ("touch executed",)


class Filled:
    def __reduce__(self):
        return bytearray, (2**36,)


def changed(**parts):
    """The checkpoint with other values at some places: changed(model__settings__latent_dim=5)."""
    checkpoint = make_checkpoint()
    for path, value in parts.items():
        *parents, last = path.split("__")
        place = checkpoint
        for parent in parents:
            place = place[parent]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return checkpoint


def weight(value):
    return CHECKPOINT["model"]["weights"]["encoder.stem.weight"].new_tensor(value).expand(4, 3, 4, 4).clone()


HOSTILE = {
    "a command": (changed(others=Executed()), "asks for posix system"),
    "64 GiB of zeros": (changed(others=Filled()), "asks for __builtin__ bytearray|asks for builtins bytearray"),
    "no step": (changed(step=KeyError), "'step'"),
    "a step of text": (changed(step="7"), "step is '7'"),
    "a step of truth": (changed(step=True), "step is True"),
    "a step before the first": (changed(step=-1), "step is -1"),
    "a part too many": ({**CHECKPOINT, "more": 1}, "other parts"),
    "no weights": (changed(model__weights=KeyError), "other parts"),
    "weights in a list": (changed(model__weights=[1]), "list"),
    "a class that is none of ours": (changed(model__class="Linear"), "'Linear', which leae does not have"),
    "a class that is no name": (changed(model__class=["Autoencoder"]), "list"),
    "settings in a list": (changed(model__settings=[1]), "list"),
    "settings that are fractions": (changed(model__settings__latent_dim=4.0), "neither numbers nor names"),
    "a setting too many": (changed(model__settings__colour="red"), "colour"),
    "a setting of another kind": (changed(model__settings__latent_dim="4"), "latent_dim"),
    "another size": (changed(model__settings__latent_dim=5), r"\[4\].*not \[5\]|\[4, 16\].*not \[5, 16\]"),
    "a weight missing": (changed(**{"model__weights__encoder.stem.weight": KeyError}), "encoder.stem.weight"),
    "a weight too many": (changed(model__weights__more=torch.ones(1)), "more"),
    "a weight of text": (changed(**{"model__weights__encoder.stem.weight": "1"}), "encoder.stem.weight is str"),
    "a weight in float64": (changed(**{"model__weights__encoder.stem.weight": weight(1.0).double()}), "float64"),
    "a weight that is no number": (changed(**{"model__weights__encoder.stem.weight": weight(float("nan"))}), "nan in"),
    "an infinite weight": (changed(**{"model__weights__encoder.stem.weight": weight(float("inf"))}), "inf in"),
    "a number made many": (changed(model__weights__more=torch.ones(1).expand(2**19, 2**19)), "larger than it is"),
    "absurd sizes": (changed(model__settings__hidden_dim=2**40), "hidden_dim is 1099511627776.*at most 65536"),
    "sizes of 600 GB": (changed(model__settings__hidden_dim=2**16, model__settings__map_channels=2**16), "not"),
    "a judge that is none": (changed(others__judge=[1, 2]), "optimizer or of the judge"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_checkpoint_is_refused_with_what_is_wrong_and_nothing_of_it_is_done(workplace, kind):
    checkpoint, says = HOSTILE[kind]
    path = Path("file.pt")
    path.write_bytes(seal(in_memory(checkpoint)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=rf"^file\.pt.*({says})") as refusal:
        leae.load(path)
    assert "\n" not in str(refusal.value)
    assert not Path("executed").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def rewritten(change) -> bytes:
    """The checkpoint's zip with every entry written anew by `change(archive, name, content)`."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(in_memory(CHECKPOINT))) as original, zipfile.ZipFile(content, "w") as archive:
        for name in original.namelist():
            change(archive, name, original.read(name))
    return seal(content.getvalue())


def bomb(archive, name, content):
    zeros = bytes(2**26) if name.endswith("data/0") else content
    archive.writestr(name, zeros, compress_type=zipfile.ZIP_DEFLATED)


def twice(archive, name, content):
    archive.writestr(name, content)
    if name.endswith("data/0"):
        info = archive.infolist()[-1]
        archive.filelist += [info] * 10_000  # the directory lists the same bytes again and again


def without_pickle(archive, name, content):
    if not name.endswith("data.pkl"):
        archive.writestr(name, content)


def cut_short(archive, name, content):
    archive.writestr(name, content[: len(content) // 2] if "/data/" in name else content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (rewritten(bomb), "compressed"),
        (rewritten(twice), "larger than it is"),
        (rewritten(without_pickle), "no data.pkl"),
        (rewritten(cut_short), "size"),
        (seal(b"not a checkpoint"), "not a zip"),
        (b"", "not a zip"),
        (b"not a checkpoint", "not a zip"),
    ],
    ids=["compressed", "overlapping", "no pickle", "short tensors", "sealed text", "empty", "text"],
)
def test_a_file_that_is_no_honest_zip_is_refused(workplace, content, says):
    Path("file.pt").write_bytes(content)
    with pytest.raises(UsageError, match=rf"^file\.pt.*{says}"):
        leae.load("file.pt")


def test_what_is_no_file_is_refused(workplace):
    os.mkfifo("pipe")  # which would be waited for
    Path("folder").mkdir()
    for name, says in (("pipe", "is no file"), ("folder", "is no file"), ("none", "there is no checkpoint none")):
        with pytest.raises(UsageError, match=says):
            leae.load(name)


def test_tensors_are_found_at_their_paths_once_however_they_are_nested():
    state = {"a": torch.ones(1), "b": {"c": [torch.ones(2), 5]}, "text": "x"}
    assert [name for name, _ in tensors_of(state)] == ["a", "b.c.0"]
    deep = [torch.ones(1)]
    for _ in range(200):  # 2²⁰⁰ if each were gone through
        deep = [deep, deep]
    assert len(list(tensors_of(deep))) == 1
