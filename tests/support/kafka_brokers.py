"""A real Apache Kafka, one process in KRaft mode on loopback, that can be killed and restarted.

Maven installs its jars, as tests/kafka/pom.xml names them, once in the user's cache.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import made_once, needs

_POM: Final = Path(__file__).parents[1] / "kafka" / "pom.xml"
COPY_JARS: Final = (
    "dependency:copy-dependencies",
    "-DoutputDirectory=jars",
    "--quiet",
    "--batch-mode",
)
GUARD: Final = 'read _; kill -KILL "$0"'
"""A shell that ends the broker when what it reads from does, and so with the process of a test."""
_CLUSTER_ID: Final = "bWR0b29sLXRlc3QtYnJva2Vy"
JAVA: Final = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
USER: Final = "mdtool"
PASSWORD: Final = "no secret"
_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "listeners": "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},"
    "SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}",
    "advertised.listeners": "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy},"
    "SECURE://127.0.0.1:{secure}",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,SECURE:SASL_SSL,"
    "CONTROLLER:PLAINTEXT",
    "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.secure.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain."
    f'PlainLoginModule required user_{USER}="{PASSWORD}";',
    "listener.name.secure.ssl.keystore.location": "{keys}",
    "listener.name.secure.ssl.keystore.password": PASSWORD,
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": "1@127.0.0.1:{controller}",
    "log.dirs": "{data}",
    "broker.session.timeout.ms": "{session_ms}",
    "broker.heartbeat.interval.ms": 250,
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1_000,
    "offsets.topic.num.partitions": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "log.cleaner.dedupe.buffer.size": 4 << 20,
    "num.network.threads": 2,
    "num.io.threads": 2,
    "background.threads": 2,
}


class KafkaBroker:
    """One broker at one address, whose data outlives it.

    Attributes
    ----------
    address : str
        The address for clients.
    proxied_address : str
        The address of a proxy that a test may run: the broker sends clients that start there back
        there, and a test that forwards their bytes to `behind_port` can hold or cut them.
    behind_port : int
        The broker's port for that proxy.
    secure_address : str
        The address for TLS and SASL, with `USER` and `PASSWORD`.
    certificate : Path
        The certificate of that address.
    """

    def __init__(
        self, java: str, jars: Path, folder: Path, ports: list[int], session_ms: int
    ) -> None:
        port, controller, self.behind_port, self.proxy_port, secure = ports
        self.address = f"127.0.0.1:{port}"
        self.proxied_address = f"127.0.0.1:{self.proxy_port}"
        self.secure_address = f"127.0.0.1:{secure}"
        self.certificate = folder / "certificate.pem"
        self._properties = folder / "server.properties"
        places = {
            "port": port,
            "controller": controller,
            "behind": self.behind_port,
            "proxy": self.proxy_port,
            "secure": secure,
            "keys": folder / "keys.p12",
            "data": folder / "data",
            "session_ms": session_ms,
        }
        lines = [f"{key}={str(value).format(**places)}\n" for key, value in _SETTINGS.items()]
        self._properties.write_text("".join(lines), "utf-8")
        self._log = folder / "broker.log"
        self._classes = [java, *JAVA, "-cp", f"{jars}/*"]
        if not (folder / "data").exists():
            self._format(folder / "data")
            self._make_keys(Path(java).resolve().with_name("keytool"), folder / "keys.p12")
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def _format(self, data: Path) -> None:
        data.mkdir()
        tool = ("kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", self._properties)
        subprocess.run([*self._classes, *tool], check=True, capture_output=True)

    def _make_keys(self, keytool: Path, keys: Path) -> None:
        store = ("-keystore", keys, "-storetype", "PKCS12", "-storepass", PASSWORD)
        own = ("-alias", "broker", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1")
        for made in (
            ("-genkeypair", "-keyalg", "EC", *own),
            ("-exportcert", "-rfc", "-alias", "broker", "-file", self.certificate),
        ):
            subprocess.run([keytool, *made, *store], check=True, capture_output=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            command = [*self._classes, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        guard = ["sh", "-c", GUARD, str(self._process.pid)]
        self._guard = subprocess.Popen(guard, stdin=subprocess.PIPE)
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        while True:
            with contextlib.suppress(KafkaException):
                if admin.list_topics(timeout=1).brokers:
                    return
            assert self._process.poll() is None, self._log.read_text("utf-8")[-2_000:]

    def pause(self) -> None:
        """Stop its process."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue its process."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def kafka_broker(folder: Path, session_ms: int = 1_000):
    """A broker that runs, unless it is killed meanwhile, until the block ends.

    After a kill the next broker cannot register for `session_ms`; one that hangs as long rejects
    new topics until it has registered again.
    """
    java = needs("java")
    jars = made_once("kafka-jars", (needs("maven"), *COPY_JARS), [_POM], "jars")
    with contextlib.ExitStack() as held:
        reserved = [held.enter_context(ReservedPort("127.0.0.1")) for _ in range(5)]
        ports = [each.port for each in reserved]
        broker = KafkaBroker(java, jars, folder, ports, session_ms)
        held.callback(broker.kill)
        broker.start()
        yield broker
