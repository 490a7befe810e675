"""The texts that configure clients: every one is a file of its kind, and no URL gets out of its place in it."""

import configparser
import re
import socket
import tomllib
from pathlib import Path

import pytest

from pypiserver_ng.client_config import CLIENTS, Server, configure_client, find_host, parse_server_url
from pypiserver_ng.errors import Invalid
from tests.tools.program import Program

PLAIN = Server("http://packages.example:8080/")
SERVERS = (
    PLAIN,
    Server("https://packages.example/team/", uploads="open"),
    Server("https://[fd00::2]:8443/"),
    Server("http://127.0.0.1:8080/", is_guarded=True),
    Server("http://packages.example/", uploads="open", is_guarded=True),
)


@pytest.fixture
def program(tmp_path: Path, environment: dict[str, str]) -> Program:
    return Program(tmp_path, environment)


def read_ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections()}


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.url)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_text_is_for_people_too(client: str, server: Server) -> None:
    """It begins with where it belongs, its lines are short, it knows the server and no secret."""
    text = configure_client(client, server)
    assert text.startswith("# ")
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 120
    assert server.url in text
    assert ("Reading needs" in text or "UV_DEFAULT_INDEX" in text) or client == "twine" or not server.is_guarded
    assert ("To publish" in text) == (client in {"uv", "twine", "poetry", "pdm"})
    assert not re.search(r"://[^/\s]*@", text)


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.url)
def test_what_the_clients_read(server: Server) -> None:
    """Each in the form of its file: what is not a comment says where the index is and whether it may be trusted."""
    pip = read_ini(configure_client("pip", server))["global"]
    trusted = {"trusted-host": "packages.example"} if server.url.startswith("http://packages") else {}
    assert pip == {"index-url": f"{server.url}simple/"} | trusted
    twine = read_ini(configure_client("twine", server))
    login = {"username": "", "password": ""} if server.uploads == "open" else {"username": "__token__"}
    assert twine == {"distutils": {"index-servers": "\nprivate"}, "private": {"repository": server.url} | login}
    [source] = tomllib.loads(configure_client("pipenv", server))["source"]
    assert source == {"name": "private", "url": f"{server.url}simple/", "verify_ssl": not trusted}
    [source] = tomllib.loads(configure_client("pdm", server))["tool"]["pdm"]["source"]
    assert source == {"name": "pypi", "url": f"{server.url}simple/"} | ({"verify_ssl": False} if trusted else {})
    [source] = tomllib.loads(configure_client("poetry", server))["tool"]["poetry"]["source"]
    assert source == {"name": "private", "url": f"{server.url}simple/", "priority": "primary"}


@pytest.mark.parametrize("uploads", ("open", "credentials"))
@pytest.mark.parametrize("is_guarded", (True, False))
def test_what_uv_reads(uploads: str, is_guarded: bool) -> None:
    """It is told to send credentials at once where they are always asked for."""
    text = configure_client("uv", Server("https://packages.example/", uploads=uploads, is_guarded=is_guarded))
    urls = {"url": "https://packages.example/simple/", "publish-url": "https://packages.example/legacy/"}
    expected = {"name": "private", "default": True} | urls
    assert tomllib.loads(text)["index"] == [expected | ({"authenticate": "always"} if is_guarded else {})]


def test_an_image_is_told_of_a_name_that_it_cannot_reach() -> None:
    """Loopback in a container is the container."""
    assert "is the container itself" in configure_client("docker", Server("http://localhost:8080/"))
    assert "is the container itself" not in configure_client("docker", PLAIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    (
        ("https://packages.example", "https://packages.example/"),
        ("HTTPS://packages.example:8443/", "https://packages.example:8443/"),
        ("http://packages.example:8080/simple/", "http://packages.example:8080/"),
        ("http://packages.example/simple", "http://packages.example/"),
        ("http://packages.example/team/legacy/", "http://packages.example/team/"),
        ("http://192.0.2.7/team", "http://192.0.2.7/team/"),
        ("http://[fd00::2]:8080/", "http://[fd00::2]:8080/"),
        ("http://my_host-1/a.b/~c", "http://my_host-1/a.b/~c/"),
    ),
)
def test_urls(text: str, expected: str) -> None:
    """Of the root or of what lies below it."""
    assert parse_server_url(text) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    (
        ("http://packages.example/", "packages.example"),
        ("http://packages.example:8080/simple/", "packages.example"),
        ("http://[fd00::2]/", "[fd00::2]"),
        ("http://[fd00::2]:8080/", "[fd00::2]"),
        ("http://[:::]/", "[:::]"),
    ),
)
def test_hosts(url: str, expected: str) -> None:
    """Without the port, also of what is none."""
    assert find_host(url) == expected


HOSTILE = (
    "",
    "packages.example",
    "//packages.example/",
    "ftp://packages.example/",
    "https://",
    "https:///simple/",
    "https://alice:wonder@packages.example/",
    "https://token@packages.example/",
    'https://packages.example/"',
    "https://packages.example/'",
    "https://packages.example/\n[global]",
    "https://packages.example/\n",
    "https://packages.example\r/",
    "https://packages.example/a b/",
    "https://packages.example/#x",
    "https://packages.example/?x",
    "https://packages.example/$HOME/",
    "https://packages.example/`id`/",
    "https://packages.example/%(here)s/",
    "https://packages.example/\\x/",
    "https://packages.example//x/",
    "https://packages.example/../x/",
    "https://packages.example:0/",
    "https://packages.example:65536/",
    "https://packages.example:x/",
    "https://packages.example:\u0661/",
    "https://packages.\u212aexample/",
    "https://packages.example;x/",
    "https://-x.example/",
    "https://[fd00::2/",
    "https://[:::]/",
    "https://[fe80::1%eth0]/",
    f"https://{'a' * 300}/",
    f"https://packages.example/{'a' * 1000}/",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_urls(text: str) -> None:
    """One line, in which the URL is not, for it may hold a password."""
    with pytest.raises(Invalid) as refused:
        parse_server_url(text)
    [line] = refused.value.message.splitlines()
    assert "--url" in line
    assert "wonder" not in line


# The command.


@pytest.mark.parametrize(
    ("options", "expected"),
    (
        (("--url", "https://packages.example/team/simple/"), "https://packages.example/team/"),
        (("--host", "packages.example"), "http://packages.example:8080/"),
        (("--host", "packages.example", "-p", "80", "--server-base-url", "/team"), "http://packages.example/team/"),
        (("--host", "fd00::2", "--server-base-url", "/simple"), "http://[fd00::2]:8080/simple/"),
        (("--host", "packages.example", "--certfile", "c", "--keyfile", "k"), "https://packages.example:8080/"),
        (("--host", "packages.example", "--certfile", "c", "--keyfile", "k", "-p", "443"), "https://packages.example/"),
        ((), f"http://{socket.gethostname()}:8080/"),
        (("--host", "::"), f"http://{socket.gethostname()}:8080/"),
        (("--port", "0", "--url", "http://packages.example"), "http://packages.example/"),
    ),
)
def test_where_the_server_is(program: Program, options: tuple[str, ...], expected: str) -> None:
    """As --url says, or else as the server's own settings do; an address that is everywhere is this machine."""
    done = program.run("client-config", "uv", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == configure_client("uv", Server(expected))


def test_the_settings_of_the_server(program: Program) -> None:
    """From its file and environment as well; behind a proxy they do not tell where it is."""
    (program.cwd / "server.toml").write_text('host = "packages.example"\nauthenticate = "update,list"\n')
    done = program.run("client-config", "pip", "--config", "server.toml", PYPISERVER_NG_TRUSTED_PROXY="192.0.2.1")
    assert done.stdout == configure_client("pip", Server("http://packages.example:8080/", is_guarded=True))
    assert done.stderr == "note: clients of a proxy use the proxy's URL: name it with --url\n"
    done = program.run("client-config", "twine", "-P", ".", "-a", ".", "--url", "http://packages.example", "directory")
    assert done.stdout == configure_client("twine", Server("http://packages.example/", uploads="open"))


def test_the_tables_of_the_server(program: Program) -> None:
    """Who may do what is said by its [[access]] entries, where there are some."""
    (program.cwd / "server.toml").write_text('[[access]]\nwho = ["anyone"]\nprojects = ["*"]\nmay = ["upload"]\n')
    done = program.run("client-config", "uv", "--config", "server.toml", "--url", "https://packages.example")
    assert done.stdout == configure_client("uv", Server("https://packages.example/", "open", is_guarded=True))


def test_without_a_client_they_are_listed(program: Program) -> None:
    """One line for each."""
    done = program.run("client-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CLIENTS)


@pytest.mark.parametrize(
    ("args", "word"),
    (
        (("npm",), "'pip'"),
        (("pip", "--url", "packages.example"), "--url"),
        (("pip", "--url", "https://alice:wonder@packages.example/"), "without credentials"),
        (("pip", "--url", 'https://packages.example/"\n[x]'), "--url"),
        (("pip", "--url", ""), "--url"),
        (("pip", "--port", "0"), "which port"),
        (("pip", "--host", "a b"), "--url"),
        (("pip", "--host", "a\nb"), "--url"),
        (("pip", "--prot", "1"), "--port"),
    ),
)
def test_bad_usage_is_one_line(program: Program, args: tuple[str, ...], word: str) -> None:
    """Exit code 2, and no password in it."""
    line = program.refuse("client-config", *args)
    assert word in line
    assert "wonder" not in line


# The documentation.


@pytest.mark.parametrize("client", CLIENTS)
def test_the_documentation_has_the_same_text(client: str) -> None:
    """For the server that it speaks of."""
    text = (Path(__file__).parents[1] / "docs" / "clients.md").read_text()
    assert f"\n{configure_client(client, PLAIN)}```\n" in text
