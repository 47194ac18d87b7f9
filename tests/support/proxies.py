"""nginx and HAProxy as the examples of deploy/proxies configure them, for a test's addresses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from mdtool.core.tcp import ReservedPort
from tests.support.requirements import missing, needs

EXAMPLES = Path(__file__).parents[2] / "deploy" / "proxies"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_AROUND = "daemon off; master_process off; pid {folder}/pid; error_log stderr warn; events {{}}\n"
_HTTP = """http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/mdtool.conf;
}}
"""
_STREAM = "include {folder}/mdtool.conf;\n"


def free_port(held: ExitStack | AsyncExitStack) -> int:
    """A port at which nobody listens but the proxy, until `held` is closed."""
    return held.enter_context(ReservedPort("127.0.0.1")).port


def proxy(example: str, folder: Path, replaced: Mapping[str, str]) -> list[str]:
    """The command of a proxy with an example, in which some text is replaced."""
    text = (EXAMPLES / example).read_text()
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    if example.endswith(".cfg"):
        (folder / example).write_text(text)
        return [needs("haproxy"), "-q", "-db", "-f", str(folder / example)]
    around = _AROUND + _HTTP
    if example == "nginx-stream.conf":
        if not STREAM_MODULE.exists():
            missing("nginx has no module for streams on this machine")
        around = f"load_module {STREAM_MODULE};\n{_AROUND}{_STREAM}"
    (folder / "mdtool.conf").write_text(text)
    (folder / "nginx.conf").write_text(around.format(folder=folder))
    return [needs("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
