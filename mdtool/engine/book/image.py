"""The state of books as arrays without unused rows, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mdtool.engine.book import kernel as k
from mdtool.engine.book.state import Books


class Part(NamedTuple):
    """One array of the state.

    Attributes
    ----------
    rows : int
        How many it has room for.
    used : int64 array
        Its first rows, those that are in use.
    """

    rows: int
    used: k.Words


def image_of(books: Books) -> dict[str, Part]:
    """Return the state of books by the names of its arrays.

    The same books give the same bytes: rows that were never written are 0.
    """
    state = books.state
    sizes = state.sizes.tolist()
    used = {
        "orders": sizes[k.Z_ORDERS],
        "levels": sizes[k.Z_LEVELS],
        "sides": 2 * sizes[k.Z_BOOKS],
        "keys": sizes[k.Z_POOL],
        "places": sizes[k.Z_POOL],
        "books": sizes[k.Z_BOOKS],
    }
    parts = {
        name: Part(len(array), array[: used.get(name, len(array))].copy())
        for name, array in state._asdict().items()
    }
    parts["levels"].used[:, k.L_SPARE] = 0
    is_ladder = _ladders(parts["sides"].used, used["keys"])
    for name in ("keys", "places"):
        parts[name].used[~is_ladder] = 0
    return parts


def books_of(image: dict[str, Part]) -> Books:
    """Return the books of an image, the reverse of `image_of`.

    Raises
    ------
    ValueError
        When the image is not valid: arrays are missing, too many, or of the wrong shape.
    """
    books = Books()
    if set(image) != set(k.State._fields):
        raise ValueError(f"not an image of books: {', '.join(sorted(image))}")
    arrays = {}
    for name, like in books.state._asdict().items():
        part = image[name]
        if part.used.shape[1:] != like.shape[1:] or len(part.used) > part.rows:
            raise ValueError(f"{name} has the shape {part.used.shape}, room for {part.rows}")
        arrays[name] = np.zeros((part.rows, *like.shape[1:]), np.int64)
        arrays[name][: len(part.used)] = part.used
    books.state = k.State(**arrays)
    return books


def _ladders(sides: k.Words, n_keys: int) -> np.ndarray:
    """Return which keys belong to a ladder's levels; the others are unused."""
    edges = np.zeros(n_keys + 1, np.int64)
    np.add.at(edges, sides[:, k.S_START], 1)
    np.add.at(edges, sides[:, k.S_START] + sides[:, k.S_LENGTH], -1)
    return np.cumsum(edges)[:n_keys] > 0
