"""Progress bars, at a terminal or in a notebook, of the first of several processes."""

import os
from collections.abc import Iterable

from tqdm.auto import tqdm

from leae.distributed import rank


def progress_bar(items: Iterable | None = None, title: str | None = None, hidden: bool = False, **options) -> tqdm:
    """A bar over some items; nothing where there is no terminal, where TQDM_DISABLE is set, or if it is hidden."""
    options = {"leave": False, "mininterval": 1, "dynamic_ncols": True, **options}
    if isinstance(items, range) and items.step > 1:  # the first ones of chunks of images
        options |= {"unit": "img", "unit_scale": items.step}
    hidden = hidden or rank() > 0 or bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(items, title, disable=hidden or None, **options)  # None: where there is no terminal
