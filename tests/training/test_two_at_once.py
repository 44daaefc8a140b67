"""Several processes at the same thing at the same time."""

import os
import signal

import pytest

from leae.files import alone, hold
from tests.conftest import TINY, metrics_of
from tests.training.test_signals import LONG, has_logged, wait_until


def test_runs_that_start_at_the_same_moment_get_folders_of_their_own(nursery, workplace):
    assert nursery.run("-m leae.data.prepare", "faces", "--faces", 64, "--image-size", 16, folder=workplace) == 0
    children = [nursery.start("main.py", *TINY, "--max-steps", 1, folder=workplace) for _ in range(3)]
    assert [nursery.wait(child) for child in children] == [0] * 3
    assert sorted(path.name for path in (workplace / "runs").iterdir()) == [f"self-teaching-00{n}" for n in range(1, 4)]
    for path in (workplace / "runs").iterdir():
        assert (path / "checkpoints" / "100.pt").exists()


def test_a_run_that_is_still_running_is_not_resumed_and_one_whose_process_was_killed_is(nursery, workplace):
    run = workplace / "runs" / "self-teaching-001"
    first = nursery.start("main.py", *LONG, "--max-steps", 2000, folder=workplace)
    wait_until(has_logged(run, 1))
    (workplace / "second").mkdir()
    assert nursery.run("main.py", "--resume", run, folder=workplace / "second") == 2
    said = (workplace / "second" / "output").read_text()
    assert said == f"main.py: {run} is still running, in another process; stop that one first, or let it finish\n"
    os.kill(first, signal.SIGKILL)
    nursery.wait(first)
    third = nursery.start("main.py", "--resume", run, folder=workplace)
    wait_until(has_logged(run, len(metrics_of(run)) + 2))
    assert nursery.run("main.py", "--resume", run, folder=workplace / "second") == 2
    os.kill(third, signal.SIGTERM)
    assert nursery.wait(third) == 143


def test_processes_that_prepare_the_same_set_make_it_once_and_all_have_it(nursery, workplace):
    folders = [workplace / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "data").symlink_to(workplace)  # all of them prepare into one place
    options = ("faces", "--faces", 700, "--image-size", 32)
    children = [nursery.start("-m leae.data.prepare", *options, folder=folder) for folder in folders]
    assert [nursery.wait(child) for child in children] == [0] * 3
    said = [(folder / "output").read_text() for folder in folders]
    assert sum("100%" in output for output in said) == 1
    assert all("rendered faces: 700 train, 70 test" in output for output in said)
    assert [path.name for path in (workplace / "prepared").iterdir()] == ["faces-700-32"]


def test_a_process_that_was_killed_while_it_prepared_is_not_waited_for(nursery, workplace):
    options = ("faces", "--faces", 1500, "--image-size", 32)
    first = nursery.start("-m leae.data.prepare", *options, folder=workplace)
    wait_until(lambda: any((workplace / "data").glob("prepared/.*.tmp")))
    os.kill(first, signal.SIGKILL)
    nursery.wait(first)
    assert any((workplace / "data").glob("prepared/.*.lock"))
    assert nursery.run("-m leae.data.prepare", *options, folder=workplace) == 0
    assert [path.name for path in (workplace / "data" / "prepared").iterdir()] == ["faces-1500-32"]


def test_a_file_is_held_by_one_process_until_it_ends(tmp_path):
    path = tmp_path / "file"
    path.touch()
    child = os.fork()
    if child == 0:
        os._exit(0 if hold(path) and hold(path) else 1)  # again is fine
    assert os.waitpid(child, 0)[1] == 0
    assert hold(path)
    child = os.fork()
    if child == 0:
        from leae import files

        files._held.clear()  # what a process that is no child of ours has
        os._exit(0 if hold(path) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_what_is_done_alone_leaves_no_file(tmp_path):
    with alone(tmp_path / "new" / "lock"):
        assert (tmp_path / "new" / "lock").exists()
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "new" / "lock"):
        raise ZeroDivisionError
    assert not (tmp_path / "new" / "lock").exists()
