"""What must be true of a server that a fault met: reads go on, what is refused leaves nothing, then all is well."""

import os
from pathlib import Path

from tests.faults.answers import ask, find_false_links, list_files
from tests.tools.distributions import Distribution, build_wheel
from tests.tools.server import Server
from tests.tools.uploads import upload

#: Not compressible, so that its size counts.
NOISE = os.urandom(600_000)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if not path.name.startswith(".")}


def expect_reads(server: Server, built: Distribution) -> None:
    """Its page, over a new connection, and its bytes."""
    name = built.filename.split("-")[0]
    assert built.sha256 in {file.sha256 for file in list_files(server.url, name)}
    answer = ask(server.url, f"/packages/{built.filename}")
    assert (answer.status, answer.content) == (200, built.content)
    assert ask(server.url, "/simple/").status == 200


def expect_refusal(server: Server, built: Distribution, *statuses: int) -> None:
    """One line of text, and nothing of the file afterwards."""
    answer = upload(server.url, built)
    assert answer.status_code in statuses, answer.text
    assert len(answer.text.splitlines()) == 1
    assert ask(server.url, f"/packages/{built.filename}").status in {404, 503}


def expect_recovery(server: Server, built: Distribution) -> None:
    """What was refused is taken now, by the same process."""
    assert upload(server.url, built).status_code == 200
    expect_reads(server, built)
    assert find_false_links(server.url) == []


#: Three releases of one project, and a file of more than half a megabyte.
OLD, NEW, OTHER = (build_wheel("demo", version) for version in ("1.0", "2.0", "3.0"))
LARGE = build_wheel("demo", "9.0", extra_files={"demo/noise.bin": NOISE})
