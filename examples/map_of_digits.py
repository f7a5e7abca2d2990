"""Clusters without labels, and colours in order, with a self-organizing map.

    python examples/map_of_digits.py

First the classic: random colours settle on a map so that neighbours look alike. Then 1,797 handwritten
digits: a map of 16 x 20 units whose neighbouring regions are merged until ten are left. Nobody told which
digit is which; how pure the regions are is measured at the end. The pictures land in the folder som-pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastarch as fa
from fastarch import plots
from fastarch.estimators import SOM


def colours(folder: Path) -> float:
    """Draws a map of random colours; its topographic error."""
    x = np.random.default_rng(0).random((3000, 3))
    som = SOM((18, 24), topology="hexagonal", algorithm="online", n_epochs=4, init="random", random_state=0)
    som.fit(x)
    plots.colour_map(
        som.codebook_.reshape(18, 24, 3), folder / "colours.png", som.topology, "Random colours, in order"
    )
    return som.topographic_error(x)


def regions(som: SOM, hits: np.ndarray, clusters: int) -> np.ndarray:
    """The map's units in `clusters` connected regions: [rows, columns] int.

    Of two neighbouring regions those are merged first whose union costs the least: n m / (n + m) times the
    squared distance of their means, n and m their samples.
    """
    near = som.unit_distances() < 1.1
    means, sizes = som.codebook_.astype(float).copy(), hits.reshape(-1) + 1e-3
    region, alive = np.arange(len(means)), np.ones(len(means), bool)
    np.fill_diagonal(near, False)
    for _ in range(len(means) - clusters):
        a, b = np.nonzero(np.triu(near))
        gap = ((means[a] - means[b]) ** 2).sum(axis=1)
        best = np.argmin(gap * sizes[a] * sizes[b] / (sizes[a] + sizes[b]))
        i, j = a[best], b[best]
        means[i] = (sizes[i] * means[i] + sizes[j] * means[j]) / (sizes[i] + sizes[j])
        sizes[i] += sizes[j]
        near[i] |= near[j]
        near[:, i] |= near[:, j]
        near[j] = near[:, j] = near[i, i] = False
        region[region == j], alive[j] = i, False
    numbers = np.cumsum(alive) - 1
    return numbers[region].reshape(hits.shape)


def digits(folder: Path) -> float:
    """Draws clusters of digits; the share of samples whose region's most frequent digit is theirs."""
    data = fa.data.digits()
    x, y = data.x.reshape(len(data.x), -1), data.y
    som = SOM((16, 20), topology="hexagonal").fit(x)
    found = regions(som, som.hit_map(x), 10)
    plots.u_matrix(som.u_matrix(), folder / "u_matrix.png", som.topology)
    plots.codebook_map(som.codebook_.reshape(16, 20, 8, 8), folder / "codebook.png", som.topology)
    plots.label_map(
        found,
        [chr(ord("A") + i) for i in range(10)],
        folder / "regions.png",
        som.topology,
        "Ten regions, found without labels",
        "neighbouring units merged by Ward's criterion",
    )
    cluster = found.reshape(-1)[som.labels_]
    return sum(np.bincount(y[cluster == k]).max() for k in range(10)) / len(y)


def main() -> dict[str, float]:
    """Runs both, prints what came out and returns it."""
    folder = Path("som-pictures")
    folder.mkdir(exist_ok=True)
    error, purity = colours(folder), digits(folder)
    print(f"colours: two nearest units that are no neighbours: {error:.1%}")
    print(f"digits: ten regions found without labels are {purity:.1%} pure")
    print(f"pictures: {', '.join(sorted(path.name for path in folder.iterdir()))} in {folder}")
    return {"topographic error": error, "purity": purity}


if __name__ == "__main__":
    main()
