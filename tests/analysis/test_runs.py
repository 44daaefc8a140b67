"""The table of the runs here."""

import re
import shutil
from pathlib import Path

from tests.conftest import metrics_of, run_leae


def listed(monkeypatch, capsys):
    """What the table says, by the first word of each line; a run's second line is part of its first."""
    run_leae(monkeypatch, "runs")
    text = capsys.readouterr().out
    return {line.split()[0]: " ".join(line.split()) for line in text.replace("\n    ", " ").splitlines()}


def test_every_run_has_its_kind_data_steps_figures_and_options(trained, monkeypatch, capsys):
    table = listed(monkeypatch, capsys)
    assert list(table) == ["run", "masked-001", "plain-001", "self-teaching-001", "variational-001"]
    last = metrics_of(trained / "runs" / "self-teaching-001")[-1]
    figures = f"{float(last['psnr_clean']):.2f} {float(last['psnr_masked']):.2f}"
    taught = rf"self-teaching-001 self-teaching faces 9 1 of 1 {figures} \d+-\d+-\d+ --dataset faces --faces 64 "
    assert re.match(taught, table["self-teaching-001"])
    assert re.match(r"plain-001 plain digits 2 \S+ of 2 .* --batch-size 8 ", table["plain-001"])


def test_a_damaged_run_is_a_line_of_the_table(workplace, trained_place, monkeypatch, capsys):
    shutil.copytree(trained_place / "runs", "runs")
    Path("runs/empty").mkdir()
    Path("runs/notes.txt").touch()
    Path("runs/masked-001/metrics.csv").write_text("split,step\ntest,ten\n")
    table = listed(monkeypatch, capsys)
    assert "runs/empty" in table["empty:"]
    assert re.search(r"runs/masked-001/metrics.csv .*'ten'", table["masked-001:"])
