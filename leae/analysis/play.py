"""A page in the browser to try trained models: mask, morph, change attributes, mix codes, draw samples.

    uv run --extra play -m leae play runs/self-teaching-001 runs/masked-001
    uv run --extra play -m leae play runs/self-teaching-001 --port 8000

Every run answers in a column of its own, on the same picture: a held-out image, or a photograph of your own. Exported
folders work as runs do, where the data that they were trained on are. Only this machine sees the page, unless --host
says otherwise.
"""

import argparse
import os
import re
import time

from leae.analysis.player import Player
from leae.analysis.trained import add_run_arguments, require_extra, runs_of
from leae.errors import ENDING, require, require_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, nargs="+", masks=False)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 opens it to the network [%(default)s]")
    parser.add_argument("--port", type=int, default=7860, help="[%(default)s]")


def main(options: argparse.Namespace) -> None:
    require_whole(1, 65_535, **{"--port": options.port})
    plain = re.fullmatch(r"[\w.-]+", options.host)  # Gradio knows no IPv6 address
    require(plain is not None, "--host", options.host, "a host's name or its IPv4 address")
    require_extra("the page", "play", "gradio")
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"  # Gradio asks itself, and prepares for that when imported
    from leae.analysis.page import serve  # which imports gradio

    runs, device = runs_of(options)
    dataset = runs[0].open_data()
    players = [Player(run, dataset, 0, device) for run in runs]
    with serve(players, options.host, options.port) as address:
        print(f"play: {address}; Ctrl-C ends it", flush=True)
        while not ENDING:
            time.sleep(1)
