"""Progress bars: what they count."""

import sys

from leae.progress import progress_bar


def drawn(monkeypatch, capsys, items):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress_bar(items, "evaluating", leave=True, mininterval=0, ncols=100)) == list(items)
    return capsys.readouterr().err


def test_a_bar_over_chunks_of_images_counts_images(monkeypatch, capsys):
    said = drawn(monkeypatch, capsys, range(0, 1000, 256))
    assert " 1024/1024 " in said  # whole chunks
    assert "img/s" in said
    assert " 4/4 " in drawn(monkeypatch, capsys, ["a", "b", "c", "d"])
    assert " 1500/1500 " in drawn(monkeypatch, capsys, range(1500))
