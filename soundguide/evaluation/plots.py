"""Pictures of an evaluation, as PNG: confusion matrices and a map of the embeddings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion_png(confusion: NDArray[np.int64], classes: Sequence[str], title: str) -> bytes:
    """Draw counts ``[C, C]``, true class down, heard class across, each row as shares of its class."""
    figure, axes = _figure(side=max(5.0, 0.3 * len(classes) + 2.5))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    axes.set_xlabel("heard as")
    axes.set_ylabel("is")
    axes.set_title(title, fontsize=10)
    if len(classes) <= 25:
        for row, column in np.argwhere(shares >= 0.05):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    return _png(figure)


def map_png(embeddings: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str], *, seed: int) -> bytes:
    """Draw embeddings ``[N, E]`` in a plane by t-SNE (van der Maaten & Hinton 2008), a colour for each class."""
    from matplotlib import colormaps
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, metric="cosine").fit_transform(embeddings)
    figure, axes = _figure(side=8.0)
    colours = colormaps["gist_rainbow"](np.linspace(0, 1, len(classes), endpoint=False))
    for index, name in enumerate(classes):
        mine = places[labels == index]
        axes.scatter(mine[:, 0], mine[:, 1], s=9, color=colours[index], label=name)
        above = (np.median(mine[:, 0]), mine[:, 1].max())  # in the middle it would hide the points
        paper = {"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 1}
        axes.annotate(name, above, (0, 5), textcoords="offset points", fontsize=7, ha="center", bbox=paper)
    axes.set_axis_off()
    axes.set_title("embeddings of the sounds (t-SNE)", fontsize=10)
    return _png(figure)


def _figure(*, side: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no window, no state
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
