"""Two-dimensional maps of codes: how they are made, and how they are drawn, with images at their places."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from leae.training.pictures import cut, to_pixels

MAPS = ("pca", "tsne", "umap")
PERPLEXITY = 30  # how many neighbours t-SNE tries to keep; fewer where there are fewer codes
UMAP_NEIGHBOURS = 15  # the same of UMAP
COMPONENTS = 50  # of more dimensions than these t-SNE and UMAP are given the first principal components
THUMBNAIL = 0.05  # the side of an image, as a share of the map's
SPACING = 1.4  # thumbnails between the centres of two of them, so that the points between them stay in sight
WITHOUT, WITH = "#0072b2", "#d55e00"  # blue and vermilion, which colour-blind people tell apart
MOST_CLASSES = 20  # that colours can tell apart
LETTERS = 24  # of a name in a legend


def fit_pca(codes: Tensor, most: int) -> PCA:
    """At most so many principal components of codes, float [N, D], which may all be the same."""
    with np.errstate(invalid="ignore"):  # of the shares of no variance, which collapsed codes have
        return PCA(min(most, *codes.shape), random_state=0).fit(codes.numpy())


def make_map(kind: str, training: Tensor, codes: Tensor, seed: int) -> tuple[np.ndarray, str]:
    """Where codes, float [N, D], at least four of them, lie on a plane; `kind` is one of MAPS.

    Principal components are those of training codes, float [M, D]. t-SNE and UMAP lay out the codes themselves,
    beginning at their places among the first two components, without labels. What comes back are the points, float
    [N, 2], and how the map was made.
    """
    pca = fit_pca(training, COMPONENTS)
    projected = pca.transform(codes.numpy())
    if projected.shape[1] == 1:
        projected = np.pad(projected, ((0, 0), (0, 1)))
    if kind == "pca":
        return projected[:, :2], f"PCA: {pca.explained_variance_ratio_[:2].sum():.1%} of the training codes' variance"
    spread = projected[:, 0].std() or 1  # collapsed codes have none
    start = (projected[:, :2] / spread).astype(np.float32)
    seed %= 2**32  # all that NumPy's older generator takes
    if kind == "tsne":
        perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
        points = TSNE(2, perplexity=perplexity, init=1e-4 * start, random_state=seed).fit_transform(projected)
        return points, f"t-SNE, perplexity {perplexity:.3g}"
    from umap import UMAP

    neighbours = min(UMAP_NEIGHBOURS, len(codes) - 1)
    umap = UMAP(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1)
    return umap.fit_transform(projected), f"UMAP, {neighbours} neighbours"


def without_overlap(points: np.ndarray, distance: float) -> list[int]:
    """Indices of points [N, 2], taken in order, each at least so far along one axis from those taken before."""
    taken = []
    for index, point in enumerate(points):
        if (np.abs(points[taken] - point).max(axis=1) >= distance).all():
            taken.append(index)
    return taken


def draw_map(points: np.ndarray, images: Tensor, labels: np.ndarray, names: list[str], title: str) -> Figure:
    """A map with a dot for every code, coloured by its label, and thumbnails where there is room for them.

    Points are float [N, 2], images float [N, C, S, S] in [0, 1]; labels, int [N], say which of the legend's names is
    an image's. The title may have several lines.
    """
    figure = Figure(figsize=(12, 10), dpi=120, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    axes = figure.subplots()
    side = THUMBNAIL * max(np.ptp(points, axis=0).max(), 1e-6)
    palette = [WITHOUT, WITH] if len(names) <= 2 else colormaps["tab10" if len(names) <= 10 else "tab20"].colors
    for label, name in enumerate(names):
        x, y = points[labels == label].T
        axes.scatter(x, y, s=18, color=palette[label], linewidths=0, alpha=0.8, label=legend_text(name, len(x)))
    pixels = to_pixels(images)
    for index in without_overlap(points, SPACING * side):
        left, bottom = points[index] - side / 2
        axes.imshow(pixels[index], extent=(left, left + side, bottom, bottom + side), zorder=2)
        axes.add_patch(Rectangle((left, bottom), side, side, fill=False, ec=palette[labels[index]], lw=2, zorder=2))
    low, high = points.min(axis=0) - side, points.max(axis=0) + side
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    figure.legend(loc="outside right upper", markerscale=2)
    return figure


def legend_text(name: str, count: int) -> str:
    """A name in Matplotlib's legend, behind how many images have it: at the beginning an underscore would hide it."""
    return f"{count:,} {cut(name, LETTERS)}"
