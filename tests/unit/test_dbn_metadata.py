import databento_dbn as dbn
import pytest

from mdtool.core.errors import InputError
from mdtool.core.symbology import Symbology
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_metadata import MIXED_DATASET, make_metadata, unite, with_schema
from tests.reference import dbn_streams as streams


def made(dataset="TEST", schema="mbo", start=streams.START, end=None, instruments=None):
    return make_metadata(dataset, schema, start, end, instruments or {1: "AAPL"})


def test_what_is_made_is_read_back():
    metadata = made(end=streams.START + 1)
    again = dbn.Metadata.decode(encode_metadata(metadata))
    assert again == metadata
    assert (again.version, again.dataset, str(again.schema)) == (3, "TEST", "mbo")
    assert (again.start, again.end) == (streams.START, streams.START + 1)
    assert again.symbols == ["AAPL"]


@pytest.mark.parametrize("end", [None, streams.START + 1, streams.START + 3 * streams.DAY])
def test_symbols_hold_from_the_first_day_to_the_last(end):
    symbology = Symbology(made(end=end))
    assert symbology.symbol(1, streams.START) == "AAPL"
    last = streams.START + 300 * streams.DAY if end is None else end - 1
    assert symbology.symbol(1, last) == "AAPL"
    assert symbology.symbol(1, streams.START - streams.DAY) == "1"


def test_a_derived_stream_differs_in_its_schema_alone():
    metadata = made()
    derived = with_schema(metadata, "trades")
    assert str(derived.schema) == "trades"
    assert derived.mappings == metadata.mappings
    assert with_schema(derived, "mbo") == metadata


def test_a_derived_stream_and_its_symbols_are_the_same_each_time():
    encoded = encode_metadata(made(instruments={n: f"S{n}" for n in range(30)}))
    headers = {encode_metadata(with_schema(dbn.Metadata.decode(encoded), None)) for _ in range(9)}
    assert len(headers) == 1
    orders = {tuple(Symbology(dbn.Metadata.decode(encoded)).symbols) for _ in range(9)}
    assert len(orders) == 1


def test_one_stream_united_is_itself():
    metadata = made()
    assert unite([("a", metadata)]) is metadata


def test_united_streams_cover_the_time_and_symbols_of_all():
    day = streams.DAY
    first = made(end=streams.START + day)
    second = made(start=streams.START + day, end=streams.START + 2 * day, instruments={1: "MSFT"})
    united = unite([("a", second), ("b", first)])
    assert (united.start, united.end) == (streams.START, streams.START + 2 * day)
    assert set(united.symbols) == {"AAPL", "MSFT"}
    assert str(united.schema) == "mbo"
    assert united.dataset == "TEST"
    assert set(united.mappings) == {"AAPL", "MSFT"}


def test_an_end_that_one_does_not_know_is_known_of_none():
    assert unite([("a", made(end=streams.START + 1)), ("b", made())]).end is None


def test_streams_of_several_schemas_have_none():
    assert unite([("a", made()), ("b", made(schema="trades"))]).schema is None


def test_datasets_may_be_merged_where_ids_do_not_clash():
    united = unite([("a", made("X")), ("b", made("Y", instruments={2: "MSFT"}))])
    assert united.dataset == MIXED_DATASET
    same = unite([("a", made("X")), ("b", made("Y"))])
    assert same.symbols == ["AAPL"]


def test_datasets_that_give_an_id_two_symbols_are_refused():
    with pytest.raises(InputError, match=r"a and b cannot be merged: .* instrument 1 is AAPL"):
        unite([("a", made("X")), ("b", made("Y", instruments={1: "MSFT"}))])
