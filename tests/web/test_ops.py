"""What operators and orchestrators ask."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from pypiserver_ng.model import Action
from tests.tools.distributions import make_wheel
from tests.web.conftest import OpenIndex

EVERYTHING = frozenset(Action)


@pytest.mark.parametrize(("path", "expected"), (("/health", "Ok"), ("/-/ready", "ready\n")))
@pytest.mark.parametrize("headers", ({}, {"authorization": "Basic nonsense"}, {"accept": "application/json"}))
def test_alive_and_ready(open_index: OpenIndex, path: str, expected: str, headers: dict[str, str]) -> None:
    """They answer without credentials, and no cache keeps the answer."""
    answer = open_index(authenticate=EVERYTHING).get(path, headers=headers)
    assert (answer.status_code, answer.text) == (200, expected)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ("POST", "PUT", "DELETE"))
def test_reading_only(stocked: TestClient, method: str) -> None:
    """Nothing can be sent to them."""
    answer = stocked.request(method, "/health")
    assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_own_endpoint(open_index: OpenIndex, packages: Path) -> None:
    """The health check may be elsewhere; then its usual place is a project's name like any other."""
    make_wheel(packages, "health", "1.0")
    client = open_index(health_endpoint="/ops/alive")
    assert client.get("/ops/alive").text == "Ok"
    assert client.get("/health").headers["location"] == "simple/health/"
    assert client.get("/simple/health/").status_code == 200


def test_project_called_health(open_index: OpenIndex, packages: Path) -> None:
    """A project may have the name of any surface; its page is under `/simple/`."""
    names = ("health", "simple", "packages", "pypi", "project", "legacy", "rpc2", "json")
    for name in names:
        make_wheel(packages, name, "1.0")
    client = open_index()
    for name in names:
        assert client.get(f"/simple/{name}/").status_code == 200, name
        assert client.get(f"/pypi/{name}/json").json()["info"]["name"] == name
        assert client.get(f"/project/{name}/").status_code == 200, name


def test_icon(stocked: TestClient) -> None:
    """Browsers ask at every page; they are told once a day, and no upstream hears of it."""
    answer = stocked.get("/favicon.ico")
    assert (answer.status_code, answer.headers["cache-control"]) == (404, "max-age=86400")


@pytest.mark.parametrize("path", ("/-/", "/-", "/-/nothing", "/-/health", "/-/metrics/x", "/a/b/c", "/%00"))
def test_nothing_there(stocked: TestClient, path: str) -> None:
    """What is not on the map is 404 in one line."""
    answer = stocked.get(path)
    assert (answer.status_code, len(answer.text.splitlines())) == (404, 1)
    assert answer.headers["cache-control"] == "no-store"
