"""Batches of prepared arrays: their order, their values, and what of a large array is in memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from leae.data.batches import Batches, ImageFile, chunks_of, to_float
from leae.errors import UsageError
from tests.conftest import CPU


def numbered(count):
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def seen(batches, steps):
    return [(batches.at(step)[:, 0, 0, 0] * 255).round().int().tolist() for step in steps]


def test_an_epoch_shows_every_image_once_in_an_order_that_depends_on_seed_and_epoch_alone():
    batches = Batches(numbered(24), 6, seed=0, device=CPU)
    assert batches.steps_per_epoch == 4
    epochs = [np.concatenate(seen(batches, range(4 * epoch, 4 * epoch + 4))).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(24))
    steps, expected = [7, 2, 2, 9], seen(batches, [7, 2, 2, 9])
    assert seen(Batches(numbered(24), 6, 0, CPU), steps) == expected
    assert seen(Batches(numbered(24), 6, 1, CPU), steps) != expected


def test_batches_are_float_in_0_to_1_and_channels_last():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    images.setflags(write=False)
    assert torch.equal(to_float(images) * 255, torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2))
    batch = Batches(images, 10, 0, CPU).at(0)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert sorted(batch.flatten(1).tolist()) == sorted(to_float(images).flatten(1).tolist())


def test_processes_cut_their_own_rows_of_a_batch_which_they_share_evenly(monkeypatch):
    whole = seen(Batches(numbered(24), 6, 0, CPU), range(4))
    monkeypatch.setenv("WORLD_SIZE", "2")
    halves = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        halves.append(seen(Batches(numbered(24), 6, 0, CPU), range(4)))
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    for size, limit in ((7, 2), (26, 24), (0, 1)):
        with pytest.raises(UsageError, match=f"batch_size is {size}.* {limit}"):
            Batches(numbered(24), size, 0, CPU)


@pytest.mark.parametrize(("size", "count"), [(8, 256), (128, 256), (256, 64), (2048, 1), (4096, 1)])
def test_the_larger_images_are_the_fewer_are_shown_at_a_time(size, count):
    images = np.zeros((1, 1, 1, 1), np.uint8)
    images = np.lib.stride_tricks.as_strided(images, (count + 1, size, size, 3), (0, 0, 0, 0))
    assert [(first, len(chunk)) for first, chunk in chunks_of(images)] == [(0, count), (count, 1)]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_a_pass_over_a_file_keeps_nothing_of_it_in_memory(workplace):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    np.lib.format.open_memmap("images.npy", "w+", np.uint8, (4096, 128, 128, 3)).fill(1)
    batches = Batches(ImageFile(Path("images.npy")), 8, 0, CPU)
    batches.at(0)
    before, most = resident(), 0
    for step in range(batches.steps_per_epoch):
        batches.at(step)
        most = max(most, resident())
    assert most - before < 16 * 2**20  # of 192


def test_images_in_a_file_are_those_of_the_array_and_one_that_becomes_shorter_is_refused(workplace):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.save("images.npy", images)
    file, some = ImageFile(Path("images.npy")), np.array([3, 7, 0])
    assert (len(file), file.shape) == (50, images.shape)
    assert np.array_equal(file, images)
    assert np.array_equal(file[4], images[4])
    assert np.array_equal(file[10:40:2][some], images[10:40:2][some])
    assert np.array_equal(file[20:][5:8], images[25:28])
    streamed, plain = Batches(file, 7, 0, CPU), Batches(images, 7, 0, CPU)
    assert all(torch.equal(streamed.at(step), plain.at(step)) for step in range(10))
    os.truncate("images.npy", 4000)
    with pytest.raises(UsageError, match=r"images\.npy"):
        list(map(streamed.at, range(7)))


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs reads at an offset, which Windows lacks")
def test_threads_may_read_a_file_at_the_same_time(workplace):
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    np.save("images.npy", images)
    file = ImageFile(Path("images.npy"))
    with ThreadPoolExecutor(4) as readers:
        assert all(readers.map(lambda number: np.array_equal(file[number], images[number]), [*range(64)] * 100))


def test_batches_that_are_read_ahead_are_the_same_and_read_once(monkeypatch):
    """As for a GPU without room for the array, and for one with room from the sixth step on, on a machine without."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda rows: pinned.append(rows) or rows)
    images = numbered(24)
    for steps, reads, room in ((range(9), 10, 1), ([5, 2, 3], 5, 1), (range(9), 6, 2)):  # the next one, too
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, room=room: (room * images.nbytes, 2**40))
        ahead = Batches(images, 6, 0, CPU)
        with ThreadPoolExecutor(1) as reader:
            ahead.ahead = reader
            assert seen(ahead, steps) == seen(Batches(numbered(24), 6, 0, CPU), steps)
        assert len(pinned) == reads
        assert isinstance(ahead.images, torch.Tensor) == (room == 2)
        pinned.clear()


@pytest.mark.gpu
@pytest.mark.parametrize("room", [True, False])
def test_batches_on_a_gpu_are_those_of_the_cpu(monkeypatch, room):
    if not room:
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (0, 2**40))
    gpu, cpu = (Batches(numbered(24), 5, 0, torch.device(name)) for name in ("cuda", "cpu"))
    for step in range(10):  # a GPU divides by 255 as it multiplies by 1/255
        torch.testing.assert_close(gpu.at(step).cpu(), cpu.at(step), rtol=1e-6, atol=0)
    assert isinstance(gpu.images, torch.Tensor) == room


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(64, np.uint8),
        np.zeros((2, 8, 8, 3)),
        np.zeros((2, 8, 8, 6), np.uint8),
        np.zeros((2, 4, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8).T,
    ],
)
def test_an_array_of_another_kind_is_refused_by_its_name(tmp_path, array):
    path = tmp_path / "train.npy"
    np.save(path, array)
    with pytest.raises(UsageError, match=f"^{path} "):
        ImageFile(path)
    np.save(path, np.zeros((2, 8, 8, 3), np.uint8))
    assert ImageFile(path).shape == (2, 8, 8, 3)
    whole, deep = path.read_bytes(), b"(" + b"-" * 9000 + b"2, 8"
    for content in (b"", whole[:-100], whole.replace(b"(2, 8", deep), whole.replace(b"(2, 8", b"(9, 8")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=f"^{path} "):
            ImageFile(path)
