"""The Grafana dashboard of a stack, from which .ci/generate.py writes deploy/grafana."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

RANGE: Final = "$__rate_interval"
"""Grafana's: at least four scrapes."""


class Panel(NamedTuple):
    """A graph: its title, unit, and expressions with what names their lines."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def _rate(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}[{RANGE}]))"


def _quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {_rate(f'{metric}_bucket', labels)})"


_OF_MARKET: Final = '{service="aggregate"}'
ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Ticks": (
        Panel("Accepted", "cps", ((_rate(f"mdtool_ticks_total{_OF_MARKET}"), "accepted"),)),
        Panel(
            "Refused, by reason",
            "cps",
            ((_rate(f"mdtool_ticks_refused_total{_OF_MARKET}", "reason"), "{{reason}}"),),
        ),
        Panel(
            "Late and resent",
            "cps",
            (
                (_rate(f"mdtool_ticks_late_total{_OF_MARKET}"), "late for bars"),
                (_rate(f"mdtool_ticks_late_for_sessions_total{_OF_MARKET}"), "late for sessions"),
                (_rate(f"mdtool_ticks_duplicate_total{_OF_MARKET}"), "resent"),
            ),
        ),
        Panel(
            "Since the latest tick",
            "s",
            (("time() - (mdtool_last_tick_timestamp_seconds > 0)", "{{instance}}"),),
        ),
        Panel("Not committed", "short", (("mdtool_uncommitted_ticks", "{{service}}"),)),
        Panel(
            "Frames at ingest",
            "cps",
            (
                (_rate("mdtool_frames_taken_total"), "taken"),
                (_rate("mdtool_frames_committed_total"), "committed"),
            ),
        ),
        Panel(
            "Ticks in a batch",
            "short",
            (
                (_quantile(0.5, "mdtool_batch_ticks"), "p50"),
                (_quantile(0.99, "mdtool_batch_ticks"), "p99"),
            ),
        ),
    ),
    "Latency": (
        Panel(
            "Tick to shown",
            "s",
            (
                (_quantile(0.5, "mdtool_update_age_seconds"), "p50"),
                (_quantile(0.99, "mdtool_update_age_seconds"), "p99"),
                ("max(mdtool_update_age_recent_seconds)", "highest"),
            ),
        ),
        Panel(
            "HTTP requests, p99",
            "s",
            ((_quantile(0.99, "mdtool_request_seconds", "route"), "{{route}}"),),
        ),
        Panel(
            "HTTP requests, by status",
            "reqps",
            ((_rate("mdtool_request_seconds_count", "status"), "{{status}}"),),
        ),
        Panel("Event loop", "s", (("mdtool_loop_lag_seconds", "{{service}}"),)),
    ),
    "Store": (
        Panel(
            "Commits",
            "s",
            (
                (_quantile(0.5, "mdtool_commit_seconds"), "p50"),
                (_quantile(0.99, "mdtool_commit_seconds"), "p99"),
            ),
        ),
        Panel(
            "Ticks in a commit",
            "short",
            (
                (
                    (
                        f"{_rate('mdtool_committed_ticks_total')} "
                        f"/ ({_rate('mdtool_commit_seconds_count')} > 0)"
                    ),
                    "mean",
                ),
            ),
        ),
        Panel(
            "Available",
            "short",
            (("mdtool_store_writable", "writable"), ("mdtool_store_up", "readable")),
        ),
        Panel(
            "Size",
            "bytes",
            (("mdtool_store_bytes", "{{service}}"),),
        ),
        Panel(
            "Reads, by outcome",
            "cps",
            ((_rate("mdtool_store_calls_total", "outcome"), "{{outcome}}"),),
        ),
    ),
    "Kafka": (
        Panel(
            "Records behind the end",
            "short",
            (("sum by (service, partition) (mdtool_kafka_lag)", "{{service}} {{partition}}"),),
        ),
        Panel(
            "Records committed",
            "cps",
            (
                (
                    f"sum by (service) (deriv(mdtool_kafka_position[{RANGE}]))",
                    "{{service}}",
                ),
            ),
        ),
        Panel(
            "Records that cannot be read",
            "cps",
            ((_rate("mdtool_kafka_dead_letters_total", "service"), "{{service}}"),),
        ),
    ),
    "Clients": (
        Panel(
            "Connections",
            "short",
            (("sum by (service, path) (mdtool_sockets)", "{{service}} {{path}}"),),
        ),
        Panel(
            "Messages",
            "cps",
            ((_rate("mdtool_socket_messages_total", "service, path"), "{{service}} {{path}}"),),
        ),
        Panel(
            "Conflated, dropped, closed as slow",
            "cps",
            (
                (_rate("mdtool_socket_conflated_total"), "conflated"),
                (_rate("mdtool_fanout_conflated_total"), "conflated in rounds"),
                (_rate("mdtool_socket_dropped_total"), "dropped"),
                (_rate("mdtool_sockets_behind_total"), "closed"),
            ),
        ),
        Panel(
            "Over a limit",
            "cps",
            (
                (_rate("mdtool_refused_total", "service, limit"), "{{service}} {{limit}}"),
                (_rate("mdtool_sockets_refused_total", "service"), "{{service}} connections"),
            ),
        ),
        Panel(
            "Behind the gateway",
            "short",
            (
                ("mdtool_stream_up", "connected to the aggregator"),
                ("mdtool_stream_held_up", "not committed"),
                ('mdtool_circuit{state="open"}', "circuit open"),
            ),
        ),
        Panel(
            "Symbols",
            "short",
            (
                ("mdtool_symbols", "{{service}}"),
                ("mdtool_symbols_stale", "stale"),
                ("mdtool_quotes", "with a quote"),
            ),
        ),
    ),
    "Processes": (
        Panel(
            "CPU",
            "percentunit",
            ((f'rate(process_cpu_seconds_total{{job="mdtool"}}[{RANGE}])', "{{service}}"),),
        ),
        Panel(
            "Memory",
            "bytes",
            (('process_resident_memory_bytes{job="mdtool"}', "{{service}}"),),
        ),
        Panel(
            "Open files",
            "percentunit",
            (('process_open_fds{job="mdtool"} / process_max_fds', "{{service}}"),),
        ),
        Panel(
            "Accepting paused",
            "cps",
            ((_rate("mdtool_accept_pauses_total", "service"), "{{service}}"),),
        ),
        Panel(
            "Garbage collections",
            "cps",
            (
                (
                    _rate("python_gc_collections_total", "service, generation"),
                    "{{service}} {{generation}}",
                ),
            ),
        ),
    ),
}
"""The dashboard's panels, by the heading of their row."""


def dashboard() -> str:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for heading, row in ROWS.items():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": heading, "gridPos": place, "panels": []}
        )
        top += 1
        for number, panel in enumerate(row):
            place = {"x": number % 3 * 8, "y": top + number // 3 * 7, "w": 8, "h": 7}
            panels.append(_graph(len(panels) + 1, panel, place))
        top += -(-len(row) // 3) * 7
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    made = {
        "uid": "mdtool",
        "title": "mdtool",
        "tags": ["mdtool"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }
    return json.dumps(made, indent=2) + "\n"


def _graph(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "gridPos": place,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": expr,
                "legendFormat": name,
            }
            for index, (expr, name) in enumerate(panel.lines)
        ],
    }
