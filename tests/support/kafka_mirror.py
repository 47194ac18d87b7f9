"""Kafka's MirrorMaker 2 between two brokers, by the settings that deploy/ has for it."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.support.kafka_brokers import COPY_JARS, GUARD, JAVA
from tests.support.requirements import made_once, needs

_ROOT: Final = Path(__file__).parents[2]
_POM: Final = _ROOT / "tests/kafka/mirror/pom.xml"
_SETTINGS: Final = _ROOT / "deploy/kafka/mirror.properties"
_HOSTS: Final = ("kafka.first.example.com:9092", "kafka.second.example.com:9092")


@contextlib.contextmanager
def kafka_mirror(folder: Path, first: str, second: str, prefix: str):
    """MirrorMaker from one broker's address to another's, until the block ends."""
    java = needs("java")
    jars = made_once("kafka-mirror-jars", (needs("maven"), *COPY_JARS), [_POM], "jars")
    settings = _SETTINGS.read_text("utf-8")
    for host, address in zip(_HOSTS, (first, second), strict=True):
        settings = settings.replace(host, address)
    settings = settings.replace(r"mdtool\\.ticks", rf"{prefix}\\.ticks")
    settings = re.sub(r"(replication\.factor) = 3", r"\1 = 1", settings)  # there is one broker
    path = folder / "mirror.properties"
    path.write_text(settings, "utf-8")
    classes = [java, *JAVA, "-cp", f"{jars}/*", "org.apache.kafka.connect.mirror.MirrorMaker"]
    with (folder / "mirror.log").open("ab") as log:
        process = subprocess.Popen([*classes, str(path)], stdout=log, stderr=log)
    guard = subprocess.Popen(["sh", "-c", GUARD, str(process.pid)], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        guard.kill()
        guard.communicate()
        process.kill()
        process.wait()
