"""Books that were put away and taken out again say and do what they did."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdtool.engine.book.image import Part, books_of, image_of
from mdtool.engine.book.state import Books
from mdtool.engine.simulate import Exchange
from tests.reference.book import ReferenceBooks, mbo_of
from tests.reference.book_equality import assert_same
from tests.support.book_streams import deep, wild, with_snapshots
from tests.support.instruments import batch


@given(stream=st.one_of(wild(), deep(), with_snapshots()), at=st.integers(0, 120))
def test_they_go_on_from_there(stream, at):
    books, reference = Books(), ReferenceBooks()
    books.apply(batch(stream[:at]))
    taken_out = books_of(image_of(books))
    taken_out.apply(batch(stream[at:]))
    reference.apply(mbo_of(stream))
    assert_same(taken_out, reference)


def test_the_same_books_give_the_same_bytes_whatever_memory_held_before():
    stream = Exchange(seed=4).generate(30_000)
    images = []
    for dirt in (0, 7):
        books = Books()
        for name in ("keys", "places", "orders", "levels"):
            getattr(books.state, name).fill(dirt)
        books.apply(batch(stream))
        images.append(image_of(books))
    first, second = images
    assert {name: part.used.tobytes() for name, part in first.items()} == {
        name: part.used.tobytes() for name, part in second.items()
    }


def test_an_image_does_not_change_with_its_books():
    stream = Exchange(seed=4).generate(3_000)
    books = Books()
    books.apply(batch(stream[:1_000]))
    image = image_of(books)
    before = {name: part.used.copy() for name, part in image.items()}
    books.apply(batch(stream[1_000:]))
    books_of(image).apply(batch(stream[1_000:]))
    assert all(np.array_equal(before[name], part.used) for name, part in image.items())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda image: image.pop("ids"),
        lambda image: image.update(more=image["ids"]),
        lambda image: image.update(ids=Part(1, image["ids"].used)),
        lambda image: image.update(orders=Part(9, np.zeros((2, 3), np.int64))),
    ],
    ids=["an array is missing", "there is one more", "more rows than room", "another shape"],
)
def test_what_is_no_image(spoil):
    image = image_of(Books())
    spoil(image)
    with pytest.raises(ValueError, match=r"not an image|shape"):
        books_of(image)
