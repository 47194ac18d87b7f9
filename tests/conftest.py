"""Fixtures that every test may ask for."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from mdtool.core.config import variable
from mdtool.core.tcp import ReservedPort
from tests.support.shared_state import shared_state

# gRPC's core writes to stderr what commands did not; it reads this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

STOP_WITHIN = variable("stop", "within_s")

# Under nohup, or in the background of a script, every process that a test starts would ignore
# hang-ups, quits and interrupts, which some are sent.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may compile a kernel, or wait for a machine that has enough else to do.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _data_of_tests(tmp_path_factory):
    """Keep what is kept by default out of the user's own data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _time_to_stop():
    """Let services take as long to stop as a machine takes that has enough else to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STOP_WITHIN, "60")
        yield


@pytest.fixture(autouse=True)
def _shared_state_stays():
    """Fail a test that leaves what others share changed, in place of one that it would fail."""
    before = shared_state()
    yield
    after = shared_state()
    names = before.keys() | after.keys()
    assert sorted(name for name in names if before.get(name) != after.get(name)) == []


@pytest.fixture(scope="session", autouse=True)
def _no_errors_of_other_tests():
    """Keep out of a test's log what gRPC had left for the event loop of a test before.

    Its queue of events is one for the process, and whichever loop runs takes them.
    """

    def is_ours(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        is_left = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
        return not (is_left and "PollerCompletionQueue._handle_events" in record.getMessage())

    log = logging.getLogger("asyncio")
    log.addFilter(is_ours)
    yield
    log.removeFilter(is_ours)


@pytest.fixture
def root_logger():
    """The root logger, without handlers but those that the test has added; given back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def no_settings(tmp_path, monkeypatch):
    """Run in an empty folder, without settings in the environment but for the time to stop."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("MDTOOL_") and name != STOP_WITHIN:
            monkeypatch.delenv(name)


@pytest.fixture
def no_refill(monkeypatch):
    """Refill no rate limit, however long the test takes."""
    stopped = SimpleNamespace(monotonic=lambda: 0, monotonic_ns=lambda: 0)
    for module in ("client", "limits"):
        monkeypatch.setattr(f"mdtool.services.{module}.time", stopped)


@pytest.fixture
def free_port():
    """A port where nobody listens but those whom the test tells to, as often as it likes."""
    with ReservedPort("127.0.0.1") as held:
        yield held.port


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real market data, named by MDTOOL_TEST_DATA."""
    folder = os.environ.get("MDTOOL_TEST_DATA")
    if not folder:
        pytest.skip("MDTOOL_TEST_DATA names no folder of real market data")
    return Path(folder)


@pytest.fixture
def postgres():
    """A PostgreSQL server that tests share, and leave running."""
    from tests.support.postgres_servers import shared_server

    return shared_server()


@pytest.fixture
def postgres_url(postgres) -> str:
    """The URL of an empty database."""
    return postgres.url(postgres.create_database())


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A Kafka broker that all tests share, each with topics of its own; it is not to be killed."""
    from tests.support.kafka_brokers import kafka_broker

    with kafka_broker(tmp_path_factory.mktemp("kafka"), session_ms=60_000) as broker:
        yield broker
