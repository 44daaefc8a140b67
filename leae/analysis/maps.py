"""Two-dimensional maps of codes: how they are made, and how they are drawn, with images at their places."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from leae.errors import UsageError
from leae.training.pictures import cut, to_pixels

MAPS = ("pca", "tsne", "umap")
PERPLEXITY = 30  # how many neighbours t-SNE tries to keep; fewer where there are fewer codes
UMAP_NEIGHBOURS = 15  # the same of UMAP
COMPONENTS = 50  # of more dimensions than these t-SNE and UMAP are given the first principal components
EXACT = 2_048  # dimensions up to which components are exact; beyond, that would take minutes
SIDE = 1100  # pixels of the map
DPI = 120
LINE = 27  # pixels of a line of text above it
LEGEND_COLUMNS = 5
LEGEND_LETTERS = 80  # of all names in a row of it
THUMBNAIL = 52  # pixels
SPACING = 1.4  # thumbnails between the centres of two of them, so that the points between them stay in sight
WITHOUT, WITH = "#0072b2", "#d55e00"  # blue and vermilion, which colour-blind people tell apart
MOST_CLASSES = 20  # that colours can tell apart
SMALLEST_FLOAT = np.finfo(np.float32).tiny  # a variance at least, where it divides


def require_umap() -> Callable:
    """UMAP's class, which comes with an extra; a `UsageError` if that is not installed."""
    try:
        from umap import UMAP
    except ImportError as error:
        advice = "run uv run --extra umap -m leae latents --map umap …"
        raise UsageError(f"--map umap needs umap-learn, which is not installed; {advice}") from error
    return UMAP


def make_map(kind: str, training: Tensor, codes: Tensor, seed: int) -> tuple[np.ndarray, list[str], str]:
    """Where codes, float [N, D], at least four of them, lie on a plane; `kind` is one of MAPS.

    Principal components are those of training codes, float [M, D]. t-SNE and UMAP lay out the codes themselves,
    beginning at their places among the first two components, without labels. What comes back are the points, float
    [N, 2]; what either axis is, or ["", ""] where neither has a meaning; and how the map was made.
    """
    training, codes = training.numpy(), codes.numpy()
    components = min(2 if kind == "pca" else COMPONENTS, *training.shape)
    # Codes near a Gaussian have no few leading components, which the randomised solver would miss.
    solver = "covariance_eigh" if training.shape[1] <= EXACT else "randomized"
    with np.errstate(invalid="ignore"):  # of the shares of no variance, which collapsed codes have
        pca = PCA(components, svd_solver=solver, random_state=0).fit(training)
    missing = max(0, 2 - components)  # codes of one dimension
    projected = np.pad(pca.transform(codes), ((0, 0), (0, missing)))
    if kind == "pca":
        variances = np.pad(pca.explained_variance_, (0, missing))
        shares = variances / max(training.var(axis=0, ddof=1).sum(), SMALLEST_FLOAT)
        axes = [f"component {number}: {share:.1%} of the variance" for number, share in enumerate(shares, start=1)]
        return projected, axes, "PCA, the components those of training codes"
    start = (projected[:, :2] / max(projected[:, 0].std(), SMALLEST_FLOAT)).astype(np.float32)
    seed %= 2**32  # all that NumPy's older generator takes
    if kind == "tsne":
        perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init=1e-4 * start, random_state=seed).fit_transform(projected)
        return points, ["", ""], f"t-SNE, perplexity {perplexity:.3g}"
    neighbours = min(UMAP_NEIGHBOURS, len(codes) - 1)
    umap = require_umap()(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1)
    return umap.fit_transform(projected), ["", ""], f"UMAP, {neighbours} neighbours"


def without_overlap(points: np.ndarray, distance: float) -> list[int]:
    """Indices of points [N, 2], taken in order, each at least so far along one axis from those taken before."""
    taken = []
    for index, point in enumerate(points):
        if (np.abs(points[taken] - point).max(axis=1) >= distance).all():
            taken.append(index)
    return taken


def draw_map(
    points: np.ndarray, axis_names: list[str], images: Tensor, labels: np.ndarray, names: list[str], title: str
) -> Figure:
    """A map with a dot for every code, coloured by its label, and thumbnails where there is room for them.

    Points, float [N, 2], and the axes' names are from `make_map`. Images are float [N, C, S, S] in
    [0, 1]; labels, int [N], say which of the legend's names is an image's. A map without names has one colour. The
    title may have several lines.
    """
    lines = len(title.split("\n")) + math.ceil(len(names) / LEGEND_COLUMNS)
    left, bottom, right, top = 80, 65, 20, 20 + LINE * lines  # margins in pixels
    width, height = left + SIDE + right, bottom + SIDE + top
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
    # One unit is as long along both axes, with room for a thumbnail at the borders.
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    reach = max(np.ptp(points, axis=0).max() / 2, 1e-6) * (1 + 2 * THUMBNAIL / SIDE)
    axes.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))

    palette = [WITHOUT, WITH] if len(names) <= 2 else colormaps["tab10" if len(names) <= 10 else "tab20"].colors
    for label, colour in enumerate(palette[: max(1, len(names))]):
        x, y = points[labels == label].T
        letters = LEGEND_LETTERS // min(max(1, len(names)), LEGEND_COLUMNS)
        name = f"{legend_text(names[label], letters)} ({len(x):,})" if names else None
        axes.scatter(x, y, s=18, color=colour, linewidths=0, alpha=0.8, label=name)
    pixels = to_pixels(images)
    pixels = pixels.repeat(3 // pixels.shape[3], axis=3)  # grey ones become RGB
    for index in without_overlap(points, SPACING * THUMBNAIL * 2 * reach / SIDE):
        thumbnail = OffsetImage(pixels[index], zoom=THUMBNAIL * 72 / DPI / pixels.shape[1])
        frame = {"edgecolor": palette[labels[index]], "linewidth": 2}
        axes.add_artist(AnnotationBbox(thumbnail, points[index], pad=0, frameon=True, bboxprops=frame))
    if names:  # above the map, where it hides nothing
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": LEGEND_COLUMNS, "frameon": False}
        axes.legend(**place, fontsize=11, markerscale=2.5, borderaxespad=0.3, handletextpad=0.2)
    axes.set_xlabel(axis_names[0], fontsize=11)
    axes.set_ylabel(axis_names[1], fontsize=11)
    if not any(axis_names):
        axes.set(xticks=[], yticks=[])
    figure.text(left / width, 1 - 12 / height, title, fontsize=11, va="top", linespacing=1.4)
    return figure


def legend_text(name: str, letters: int) -> str:
    """A name for Matplotlib's legend: on one line, cut to so many letters, and a text like any other.

    Between two dollar signs Matplotlib would see a formula, and it leaves out what begins with an underscore.
    """
    return " " + cut(name, letters).replace("$", r"\$")
