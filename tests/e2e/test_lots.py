"""Lots of a live source's symbols: whatever DBN is made of its stream tells them too."""

from __future__ import annotations

import json
import warnings

import pyarrow.ipc
import pyarrow.parquet
import pytest

from mdtool.wire.source_stream import Lot, SourceEncoder, Trade
from tests.support.commands import output_of

AT_NS = 1_796_169_600_000_000_000
STEP_NS = 600_000_000
N_TRADES = 20
LOTS = [{"symbol": "BTC/USD", "lot": "0.00001"}, {"symbol": "ETH/USD", "lot": "0.001"}]


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A file as ingest writes it: trades of two symbols in turn."""
    encoder = SourceEncoder("KRAKEN", AT_NS, "X")
    encoder.add([Lot(each["symbol"], each["lot"]) for each in LOTS], AT_NS)
    for number in range(N_TRADES):
        at_ns = AT_NS + number * STEP_NS
        symbol = LOTS[number % 2]["symbol"]
        encoder.add([Trade(symbol, "100", "0.5", at_ns, "B", number)], at_ns)
    path = tmp_path_factory.mktemp("capture") / "day.dbn"
    path.write_bytes(encoder.take())
    return path


@pytest.fixture(scope="module")
def store(capture, tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('store') / 'trades.db'}"
    output_of("store", "import", capture, "--store", url)
    return url


def lots_of(path) -> list[dict[str, str]]:
    return sorted(
        json.loads(output_of("info", path, "--json", "--deep"))["lots"],
        key=lambda lot: lot["symbol"],
    )


def frame(path, schema: str):
    """The rows of a schema, as the official client reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, which it imports
        databento = pytest.importorskip("databento")
        store = databento.DBNStore.from_bytes(path.read_bytes())
        return store.to_df(schema=None if store.schema else schema)


LATER = ("--start", str(AT_NS + 5 * STEP_NS))


@pytest.mark.parametrize(
    ("arguments", "schema", "n_rows"),
    [
        (("replay-dbn",), "trades", 20),
        (("replay-dbn", "--schema", "trades"), "trades", 20),
        (("replay-dbn", *LATER), "trades", 15),
        (("replay-dbn", "--schema", "trades", *LATER), "trades", 15),
        (("aggregate", "--interval", "1m"), "ohlcv-1m", 2),
        (("aggregate", "--interval", "1s", *LATER), "ohlcv-1s", 15),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else str(value),
)
def test_what_is_made_of_a_capture_has_its_lots_and_can_be_read(
    capture, tmp_path, arguments, schema, n_rows
):
    command, *options = arguments
    path = tmp_path / "made.dbn.zst"
    output_of(command, capture, *options, "-q", "-o", path)
    assert lots_of(path) == LOTS
    assert len(frame(path, schema)) == n_rows
    piped = output_of(command, "-", *options, "-q", "-D", stdin=capture.read_bytes())
    (tmp_path / "piped.dbn").write_bytes(piped)
    assert lots_of(tmp_path / "piped.dbn") == LOTS
    assert len(frame(tmp_path / "piped.dbn", schema)) == n_rows


def test_one_symbol_has_its_lot_alone(capture, tmp_path):
    path = tmp_path / "one.dbn"
    output_of("replay-dbn", capture, "--schema", "trades", "--symbols", "ETH/USD", "-q", "-o", path)
    assert lots_of(path) == LOTS[1:]
    assert frame(path, "trades")["size"].tolist() == [500] * 10


def test_bars_of_bars_and_of_merged_captures(capture, tmp_path):
    seconds, minutes = tmp_path / "seconds.dbn", tmp_path / "minutes.dbn"
    output_of("aggregate", capture, "--interval", "1s", "-q", "-o", seconds)
    output_of("aggregate", seconds, "--interval", "1m", "-q", "-o", minutes)
    assert lots_of(minutes) == LOTS
    assert frame(minutes, "ohlcv-1m")["volume"].tolist() == [500_000, 5_000]
    both, cut = tmp_path / "both.dbn", tmp_path / "cut.dbn"
    output_of("replay-dbn", capture, *LATER, "-q", "-o", cut)
    output_of("replay-dbn", capture, cut, "--schema", "trades", "-q", "-o", both)
    assert lots_of(both) == LOTS
    assert len(frame(both, "trades")) == 35


def test_columns_have_the_lots_in_their_metadata(capture, tmp_path):
    path = tmp_path / "trades"
    for extension in (".parquet", ".arrow"):
        file = path.with_suffix(extension)
        output_of("replay-dbn", capture, "--schema", "trades", "-q", "-o", file)
    found = [
        pyarrow.parquet.read_schema(path.with_suffix(".parquet")).metadata,
        pyarrow.ipc.open_file(path.with_suffix(".arrow")).schema.metadata,
    ]
    told = {each["symbol"]: each["lot"] for each in LOTS}
    assert [json.loads(metadata[b"mdtool.lots"]) for metadata in found] == [told, told]


def test_exports_of_a_store_have_the_lots(store, tmp_path):
    whole, made, folder = tmp_path / "all.dbn", tmp_path / "made.dbn", tmp_path / "folder"
    output_of("store", "export", whole, "--store", store, "-q")
    assert lots_of(whole) == LOTS
    rows = frame(whole, "trades")
    assert rows["size"].tolist() == [50_000, 500] * 10
    assert rows["symbol"].tolist() == ["BTC/USD", "ETH/USD"] * 10
    output_of("replay-dbn", whole, "--schema", "trades", "-q", "-o", made)
    assert lots_of(made) == LOTS
    assert len(frame(made, "trades")) == 20
    output_of("store", "export", folder, "--format", "dbn", "--store", store, "-q")
    files = sorted(folder.rglob("*.dbn"))
    assert [lots_of(file) for file in files] == [LOTS[:1], LOTS[1:]]
    replayed = tmp_path / "replayed.dbn"
    output_of("store", "replay", "--speed", "0", "--store", store, "-q", "-o", replayed)
    assert lots_of(replayed) == LOTS
    piped = output_of("store", "replay", "--speed", "0", "--store", store, "-q", "-D")
    assert json.loads(output_of("info", "-", "-J", "--deep", stdin=piped))["lots"] == LOTS


@pytest.mark.parametrize("target", ["all.parquet", "folder"])
def test_parquet_of_a_store_is_imported_with_its_lots(store, tmp_path, target):
    output_of("store", "export", tmp_path / target, "--store", store, "-q")
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    output_of("store", "import", tmp_path / target, "--store", copy)
    again = tmp_path / "again.dbn"
    output_of("store", "export", again, "--store", copy, "-q")
    assert lots_of(again) == LOTS


def test_csv_of_a_store_says_that_it_has_no_lots(store, tmp_path):
    output_of(
        *("store", "export", tmp_path / "all.csv", "--store", store, "-q"),
        said="of 2 symbols they are lots, such as 0.00001 of BTC/USD",
    )


@pytest.mark.parametrize("text", ["[]", "{", '{"A":1}', '{"A":"0"}', '{"A":"x"}', '{"A":"1e20"}'])
def test_parquet_whose_lots_are_not_valid(store, tmp_path, text):
    pq = pyarrow.parquet
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    output_of("store", "export", good, "--store", store, "-q")
    table = pq.read_table(good)
    pq.write_table(table.replace_schema_metadata({"mdtool.lots": text}), bad)
    copy = f"sqlite:///{tmp_path / 'copy.db'}"
    output_of(
        *("store", "import", bad, "--store", copy), status=1, said="its metadata mdtool.lots is not"
    )
