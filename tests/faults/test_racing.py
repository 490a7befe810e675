"""Many uploads of one name at once over four processes: one wins, and its bytes stay behind the name for ever."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.answers import Panel, ask, find_false_links, list_files
from tests.tools.distributions import Distribution, build_sdist, build_wheel
from tests.tools.server import OPEN, Serve, Server
from tests.tools.uploads import encode_upload, remove, upload

FOUR = (*OPEN, "--disable-fallback", "--workers", "4")
LONG = bool(os.environ.get("TEST_LONG"))
ROUNDS, RACERS = (200, 8) if LONG else (12, 8)


def race(server: Server, contestants: Sequence[Distribution]) -> list[int]:
    """The status of each upload; all start at the same moment."""
    barrier = threading.Barrier(len(contestants))

    def send(built: Distribution) -> int:
        barrier.wait()
        answer = upload(server.url, built)
        assert answer.status_code == 200 or answer.text.startswith("File already exists"), answer.text
        return answer.status_code

    with ThreadPoolExecutor(len(contestants)) as threads:
        return list(threads.map(send, contestants))


@pytest.mark.timeout(1800)
def test_one_of_many_wins(serve: Serve, packages: Path) -> None:
    """Different bytes: exactly one 200, the others 409, and everybody lists and sends the winner's bytes."""
    server = serve(*FOUR)
    panel = Panel(server)
    for number in range(ROUNDS):
        build = build_wheel if number % 2 else build_sdist
        # Long and short ones, so that they arrive in another order than they started.
        contestants = [build("race", f"1.{number}", description=f"{i} " * (1 + i % 3 * 20_000)) for i in range(RACERS)]
        statuses = race(server, contestants)
        assert sorted(statuses) == [200] + [409] * (RACERS - 1)
        winner = contestants[statuses.index(200)]
        for answer in panel.ask_all("/simple/race/"):
            listed = {file["filename"]: file["hashes"]["sha256"] for file in answer.json()["files"]}
            assert (len(listed), listed[winner.filename]) == (number + 1, winner.sha256)
    panel.close()
    assert find_false_links(server.url) == []
    assert list((packages / ".pypiserver-ng" / "scratch").iterdir()) == []


def test_same_bytes_all_win(serve: Serve) -> None:
    """A repeated upload is a success, however many come at once; it is listed once."""
    server = serve(*FOUR)
    for number in range(ROUNDS // 2):
        built = build_wheel("race", f"1.{number}")
        assert race(server, [built] * RACERS) == [200] * RACERS
        assert sum(file.filename == built.filename for file in list_files(server.url, "race")) == 1
    assert find_false_links(server.url) == []


def test_two_camps(serve: Serve) -> None:
    """Some have the same bytes: all of one camp are told 200 and all of the other 409."""
    server = serve(*FOUR)
    for number in range(ROUNDS // 2):
        first, second = (build_wheel("race", f"1.{number}", description=text) for text in ("first", "second"))
        statuses = race(server, [first, second] * (RACERS // 2))
        assert {tuple(statuses[::2]), tuple(statuses[1::2])} == {(200,) * (RACERS // 2), (409,) * (RACERS // 2)}
        winner = first if statuses[0] == 200 else second
        assert winner.sha256 in {file.sha256 for file in list_files(server.url, "race")}


def refuse_everywhere(server: Server, built: Distribution) -> None:
    """Every worker refuses these bytes, and none of them stores them."""
    body, content_type = encode_upload(built)
    panel = Panel(server)
    for answer in panel.post_all(body, content_type):
        assert answer.status == 409, answer
        assert answer.content.startswith(b"File already exists"), answer
    assert [answer.status for answer in panel.ask_all("/simple/demo/")] == [404] * len(panel.connections)
    assert [answer.status for answer in panel.ask_all(f"/packages/{built.filename}")] == [404] * len(panel.connections)
    panel.close()


def test_a_buried_name_takes_no_other_bytes(serve: Serve, packages: Path) -> None:
    """In no worker, not after a restart, and not after the catalog was deleted; the old bytes may come back."""
    old, new = build_wheel("demo", "1.0"), build_wheel("demo", "1.0", description="other")
    server = serve(*FOUR)
    assert upload(server.url, old).status_code == 200
    assert remove(server.url, name="demo", version="1.0").status_code == 200
    refuse_everywhere(server, new)
    server.stop()
    server = serve(*FOUR)
    refuse_everywhere(server, new)
    server.stop()
    (packages / ".pypiserver-ng" / "catalog.sqlite").unlink()
    server = serve(*FOUR)
    refuse_everywhere(server, new)
    assert upload(server.url, old).status_code == 200
    assert {file.sha256 for file in list_files(server.url, "demo")} == {old.sha256}


def test_uploads_race_with_deletions(serve: Serve, packages: Path) -> None:
    """The same name uploaded and deleted by many at once: afterwards it is whole or gone, never half of it."""
    server = serve(*FOUR)
    built, other = build_wheel("demo", "1.0"), build_wheel("demo", "1.0", description="other")
    assert upload(server.url, built).status_code == 200

    def churn(number: int) -> None:
        for _ in range(ROUNDS):
            if number % 2:
                assert upload(server.url, built).status_code == 200
                # Of a name that is here or buried.
                assert upload(server.url, other).status_code == 409
            else:
                answer = remove(server.url, name="demo", version="1.0")
                assert answer.status_code in {200, 404, 503}, answer.text

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(churn, range(6)))
    listed = list_files(server.url, "demo")
    here = (packages / built.filename).exists()
    assert {file.sha256 for file in listed} == ({built.sha256} if here else set())
    assert ask(server.url, f"/packages/{built.filename}").status == (200 if here else 404)
    assert find_false_links(server.url) == []
