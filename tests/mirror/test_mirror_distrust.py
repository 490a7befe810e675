"""Upstreams that lie, break off, or speak for each other; and a disk whose times are wrong."""

import json
import os
import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.answers import Panel
from tests.mirror.asking import JSON, ask, is_complete, list_copies, listed, page_of, read, url_of
from tests.mirror.conftest import Mirror
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.mirrored import Mirrored

BIG = build_sdist("demo", "1.0", extra_files={"data.bin": random.Random(0).randbytes(700_000)})
WHEEL = build_wheel("demo", "1.0", requires=["honest"])
NEWER = build_wheel("demo", "2.0")
ASK_EACH_TIME = '[[policy]]\nprojects = ["*"]\nmax-age = "0"\n'


def entry(distribution: Distribution, project: str = "demo", **facts: Any) -> dict[str, Any]:
    return {
        "filename": distribution.filename,
        "url": f"/files/{project}/{distribution.filename}",
        "hashes": {"sha256": distribution.sha256},
        "size": len(distribution.content),
        "upload-time": "2020-02-02T00:00:00Z",
    } | facts


def say(upstream: Mirrored, *entries: dict[str, Any], project: str = "demo") -> None:
    """Answer with exactly these files from now on."""
    page = {"meta": {"api-version": "1.1"}, "name": project, "files": entries}
    body = json.dumps(page).encode()
    upstream.spoil(f"/simple/{project}/", status=200, body=body, headers={"Content-Type": JSON})


def two_upstreams(first: Mirrored, second: Mirrored, more: str = "") -> str:
    tables = (("first", first.url, more), ("second", second.url, ""))
    return "".join(f'[[upstream]]\nname = "{name}"\nurl = "{url}"\n{rest}\n' for name, url, rest in tables)


def test_torn_bytes_are_never_first_seen(mirror: Mirror, mirrored: Mirrored) -> None:
    """One process fetches a file without a hash, another follows, the upstream breaks off: that pins nothing."""
    mirrored.look.hashes = mirrored.look.sizes = False
    mirrored.add("demo", BIG)
    server = mirror("--workers", "2")
    url = url_of(BIG, is_hashed=False)
    fault = mirrored.spoil(f"/files/demo/{BIG.filename}", stall=300_000, cut=400_000)
    with closing(Panel(server)) as panel:
        answers = []
        for connection in panel.connections.values():
            connection.request("GET", url)
            response = connection.getresponse()
            assert response.read(1000)
            answers.append(response)
        fault.release()
        assert [read(response).is_whole for response in answers] == [False, False]
    mirrored.heal()
    whole = ask(server, url)
    assert is_complete(whole)
    assert whole.body == BIG.content


def test_a_wrong_size_on_a_page_costs_no_file(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    mirrored.add("demo", WHEEL)
    server = mirror(config=ASK_EACH_TIME)
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    say(mirrored, entry(WHEEL, size=len(WHEEL.content) + 1))
    assert page_of(server).status == 200
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    assert list_copies(packages, WHEEL)


def test_no_upstream_speaks_for_a_file_of_another(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """One that says that its project has a file with the same hash forges no metadata, nor keeps others from it."""
    mirrored.look.metadata = False
    mirrored.add("demo", WHEEL)
    evil: dict[str, Any] = {"filename": "evil-1.0-py3-none-any.whl", "url": "/files/evil/evil.whl"}
    say(second, entry(WHEEL, **evil) | {"core-metadata": True}, project="evil")
    forged = b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Dist: evil\n\n"
    second.spoil("/files/evil/evil.whl.metadata", status=200, body=forged)
    hanging = second.spoil("/files/evil/evil.whl", hang=True)
    server = mirror(config=two_upstreams(mirrored, second))
    ask(server, f"/packages/-/{WHEEL.sha256}/evil-1.0-py3-none-any.whl.metadata")
    with closing(Panel(server)) as panel:
        [connection] = panel.connections.values()
        connection.request("GET", f"/packages/-/{WHEEL.sha256}/evil-1.0-py3-none-any.whl")
        hanging.reached.wait(10)
        assert ask(server, url_of(WHEEL)).body == WHEEL.content
    answer = ask(server, f"{url_of(WHEEL)}.metadata")
    assert answer.status == 200
    assert b"Requires-Dist: honest" in answer.body


def test_the_wheel_itself_counts_more_than_what_is_said_of_it(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.look.metadata_hashes = False
    mirrored.add("demo", WHEEL)
    server = mirror()
    assert ask(server, url_of(WHEEL)).body == WHEEL.content
    mirrored.spoil("*.metadata", status=200, body=b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
    assert b"Requires-Dist: honest" in ask(server, f"{url_of(WHEEL)}.metadata").body


def test_a_page_from_the_future_is_asked_for(mirror: Mirror, mirrored: Mirrored, packages: Path) -> None:
    """Its time stamp is from another clock: it says nothing."""
    mirrored.add("demo", WHEEL)
    server = mirror(config=ASK_EACH_TIME)
    assert list(listed(server)) == [WHEEL.filename]
    server.stop()
    future = time.time() + 365 * 86_400
    for path in (packages / ".pypiserver-ng" / "cache" / "pages").rglob("demo"):
        os.utime(path, (future, future))
    mirrored.add("demo", NEWER)
    assert sorted(listed(mirror(config=ASK_EACH_TIME))) == sorted((WHEEL.filename, NEWER.filename))


def test_404_of_somebody_else(mirror: Mirror, mirrored: Mirrored, second: Mirrored) -> None:
    """An upstream that sends us on to where nobody knows the project has not said that it does not have it."""
    second.add("demo", NEWER)
    elsewhere = second.url.replace("/simple/", "/login").replace("127.0.0.1", "localhost")
    mirrored.spoil("/simple/demo/", status=302, headers={"Location": elsewhere})
    answer = page_of(mirror(config=two_upstreams(mirrored, second, 'on-error = "stop"')))
    assert answer.status in {502, 503}


def test_one_slow_page_stops_no_other(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.add("demo", WHEEL)
    mirrored.spoil("/simple/slow/", hang=True)
    server = mirror()
    assert page_of(server, "slow").status in {502, 503}
    assert page_of(server).status == 200


def test_files_of_redirected_projects_are_not_fetched(mirror: Mirror, mirrored: Mirrored) -> None:
    mirrored.add("demo", WHEEL)
    server = mirror(config='[[policy]]\nprojects = ["demo"]\nmode = "redirect"\n')
    assert page_of(server).status == 302
    assert ask(server, url_of(WHEEL)).status == 404
    assert mirrored.requests == []
