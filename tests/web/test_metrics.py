"""`/-/metrics`: the formats, and what they tell of the index."""

import platform
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from starlette.testclient import TestClient

from pypiserver_ng import __version__
from pypiserver_ng.model import Action
from tests.tools.distributions import make_wheel
from tests.tools.metrics import Parse, read
from tests.web.conftest import OpenIndex, read_all

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    (
        (None, TEXT, parse_text),
        ("*/*", TEXT, parse_text),
        ("text/html", TEXT, parse_text),
        ("text/plain;version=0.0.4", TEXT, parse_text),
        ("application/openmetrics-text", OPENMETRICS, parse_openmetrics),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", OPENMETRICS, parse_openmetrics),
        ("application/openmetrics-text;version=one", TEXT, parse_text),
        ("text/plain;version=\xe9", TEXT, parse_text),
    ),
)
def test_formats(stocked: TestClient, accept: str | None, content_type: str, parse: Parse) -> None:
    """As the client asks; the library's own parsers read both."""
    headers = {} if accept is None else {"accept": accept.encode("latin-1")}
    answer = stocked.get("/-/metrics", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.headers["cache-control"] == "no-store"
    samples = read(answer.text, parse)
    assert samples["pypiserver_ng_projects"] == 2
    assert samples["pypiserver_ng_files"] == 4
    assert samples[f"pypiserver_ng_info {platform.python_version()} {__version__}"] == 1
    assert samples["process_resident_memory_bytes"] > 1_000_000
    assert samples["process_cpu_seconds_total"] > 0
    assert samples["process_start_time_seconds"] > 1_000_000_000


def test_follows_the_index(open_index: OpenIndex, packages: Path) -> None:
    """Projects, files, and the number of the last change."""
    client = open_index()
    before = read(client.get("/-/metrics").text)
    assert (before["pypiserver_ng_projects"], before["pypiserver_ng_files"]) == (0, 0)
    make_wheel(packages, "demo", "1.0")
    again = open_index()
    read_all(again)
    after = read(again.get("/-/metrics").text)
    assert (after["pypiserver_ng_projects"], after["pypiserver_ng_files"]) == (1, 1)
    assert after["pypiserver_ng_catalog_serial"] > before["pypiserver_ng_catalog_serial"]


def test_open_to_everyone_and_names_nothing(open_index: OpenIndex, packages: Path) -> None:
    """Like the health checks: no credentials are needed, and wrong ones do not matter."""
    make_wheel(packages, "secret-project", "1.0")
    client = open_index(authenticate=frozenset(Action))
    client.get("/simple/secret-project/")
    for headers in ({}, {"authorization": "Basic nonsense"}):
        answer = client.get("/-/metrics", headers=headers)
        assert answer.status_code == 200
        assert "secret" not in answer.text
    assert client.post("/-/metrics").status_code == 405
    assert client.head("/-/metrics").text == ""


def test_moves_with_the_prefix(open_index: OpenIndex) -> None:
    """Under `--server-base-url`, and nowhere else."""
    client = open_index(server_base_url="/pypi-here")
    assert client.get("/pypi-here/-/metrics").status_code == 200
    assert client.get("/-/metrics").status_code == 404
