import databento_dbn as dbn
import pytest

from mdtool.core.errors import InputError
from mdtool.core.symbology import dated_mappings
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_metadata import MIXED_DATASET, NO_START, make_metadata, unite, with_schema
from tests.reference import dbn_streams as streams
from tests.support.instruments import named

STYPES = ("instrument_id", "raw_symbol", "smart", "continuous", "parent")


def made(dataset="TEST", schema="mbo", start=streams.START, end=None, instruments=None):
    return make_metadata(dataset, schema, start, end, instruments or {1: "AAPL"})


def with_stype(metadata, stype_in):
    encoded = bytearray(encode_metadata(metadata))
    # Magic, version and length, dataset, schema, start, end, limit.
    encoded[8 + 16 + 2 + 8 + 8 + 8] = STYPES.index(stype_in)
    return dbn.Metadata.decode(bytes(encoded))


def test_what_is_made_is_read_back():
    metadata = made(end=streams.START + 1)
    again = dbn.Metadata.decode(encode_metadata(metadata))
    assert again == metadata
    assert (again.version, again.dataset, str(again.schema)) == (3, "TEST", "mbo")
    assert (again.start, again.end) == (streams.START, streams.START + 1)
    assert again.symbols == ["AAPL"]


@pytest.mark.parametrize("end", [None, streams.START + 1, streams.START + 3 * streams.DAY])
def test_symbols_hold_from_the_first_day_to_the_last(end):
    last = streams.START + 300 * streams.DAY if end is None else end - 1
    orders = streams.mbo(3)
    orders["instrument_id"] = 1
    orders["ts_recv"] = [streams.START, last, streams.START - streams.DAY]
    assert named(orders, made(end=end)).symbols.tolist() == ["AAPL", "AAPL", None]


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
    orders = {(*dated_mappings(dbn.Metadata.decode(encoded)),) for _ in range(9)}
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


def test_united_streams_keep_the_symbology_on_which_they_agree():
    continuous = [
        with_stype(made(instruments={1: "ES.c.0"}), "continuous"),
        with_stype(made(instruments={2: "ES.c.0"}), "continuous"),
    ]
    united = unite([("a", continuous[0]), ("b", continuous[1])])
    assert str(united.stype_in) == "continuous"
    assert [each["symbol"] for each in united.mappings["ES.c.0"]] == ["1", "2"]
    mixed = unite([("a", continuous[0]), ("b", made(instruments={1: "ESM4"}))])
    assert str(mixed.stype_in) == "raw_symbol"
    assert set(mixed.mappings) == {"ES.c.0", "ESM4"}


def test_a_start_that_is_not_known_is_not_the_earliest():
    unknown = made(start=NO_START, end=streams.START + 1)
    assert unite([("a", unknown), ("b", made())]).start == streams.START
    assert unite([("a", unknown), ("b", unknown)]).start == NO_START


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
