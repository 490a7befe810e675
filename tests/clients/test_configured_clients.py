"""What `client-config` prints makes real clients install from and publish to the server, from an empty home."""

import dataclasses
import re
import shlex
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tools.clients import Client, installed_version
from tests.tools.distributions import build_sdist, build_wheel, make_wheel
from tests.tools.program import Program
from tests.tools.server import OPEN, Serve, Server

pytestmark = pytest.mark.clients

#: What would keep a client from the file that a user has, or from the place where the text says it is.
_HIDING = ("PIP_CONFIG_FILE", "UV_NO_CONFIG", "XDG_CONFIG_HOME")
_PROJECT = (
    '[project]\nname = "consumer"\nversion = "0"\nrequires-python = ">=3.11,<4"\ndependencies = ["demo-app"]\n'
    '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n'
)
_IN_PROJECT = {"POETRY_VIRTUALENVS_IN_PROJECT": "1", "PIPENV_VENV_IN_PROJECT": "1"}

#: Runs `client-config` for this client of this server.
Print = Callable[[str, Server], str]


@pytest.fixture
def guard(passwords: Path) -> tuple[str, ...]:
    return ("-P", str(passwords), "-a", "update,download,list")


@pytest.fixture
def server(serve: Serve, packages: Path, guard: tuple[str, ...]) -> Server:
    """It lets nobody in without credentials."""
    make_wheel(packages, "demo-app", "1.0")
    return serve("--disable-fallback", *guard)


@pytest.fixture
def token(tmp_path: Path, environment: dict[str, str], packages: Path) -> str:
    """It may list, download and upload everything."""
    return Program(tmp_path, environment).run("token", "create", "ci", packages).stdout.strip()


@pytest.fixture
def show(tmp_path: Path, environment: dict[str, str], guard: tuple[str, ...], token: str) -> Print:
    """The text, whose line for the netrc file has become that file, with a token that is one."""
    program = Program(tmp_path, environment)

    def run(name: str, server: Server) -> str:
        done = program.run("client-config", name, *guard, "--url", server.url)
        assert (done.returncode, done.stderr) == (0, "")
        netrc = tmp_path / "home" / ".netrc"
        for line in re.findall("^#   (machine .*)$", done.stdout, re.MULTILINE):
            netrc.write_text(line.replace("TOKEN", token) + "\n")
            netrc.chmod(0o600)
        return done.stdout

    return run


@pytest.fixture
def user(client: Callable[[str], Client], environment: dict[str, str]) -> Callable[[str], Client]:
    """Finds a client that reads what is in the home of who starts it."""
    variables = {name: value for name, value in environment.items() if name not in _HIDING}
    return lambda name: dataclasses.replace(client(name), env={**variables, **_IN_PROJECT})


def put_at_home(text: str, home: Path) -> None:
    """The first line says where."""
    match = re.match(r"# ~/(\S+)", text)
    assert match
    path = home / match[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def find_publishing(text: str, client: str) -> Iterator[list[str]]:
    """The arguments of the commands that the text names at its end."""
    commands = text.partition("# To publish")[2]
    for line in re.findall(rf"^#   {client} (.*)$", commands, re.MULTILINE):
        yield [word for word in shlex.split(line) if word != "--build"]


def fill_in(login: dict[str, str], token: str) -> dict[str, str]:
    return {name: value.replace("TOKEN", token) for name, value in login.items()}


def make_project(root: Path, manifest: str, text: str) -> Path:
    project = root / "consumer"
    project.mkdir()
    begin = _PROJECT if manifest == "pyproject.toml" else '[packages]\ndemo-app = "*"\n'
    (project / manifest).write_text(begin + text)
    build_wheel("consumer", "0").write(project / "dist")
    build_sdist("consumer", "0").write(project / "dist")
    return project


def list_uploads(packages: Path) -> list[str]:
    return sorted(path.name for path in packages.glob("consumer*"))


PUBLISHED = ["consumer-0-py3-none-any.whl", "consumer-0.tar.gz"]


@pytest.mark.parametrize(("name", "install"), (("pip", ("install",)), ("uv", ("pip", "install"))))
def test_installers(
    user: Callable[[str], Client], show: Print, server: Server, tmp_path: Path, name: str, install: tuple[str, ...]
) -> None:
    """Their file is all that they know of the server."""
    text = show(name, server)
    put_at_home(text, tmp_path / "home")
    user(name).run(*install, "--target", tmp_path / "site", "demo-app")
    assert installed_version(tmp_path / "site", "demo_app") == "1.0"


PUBLISHERS = {
    "twine": {"TWINE_PASSWORD": "TOKEN"},
    "uv": {"UV_PUBLISH_TOKEN": "TOKEN"},
}


@pytest.mark.parametrize("name", PUBLISHERS)
def test_publishers(
    user: Callable[[str], Client], show: Print, server: Server, packages: Path, tmp_path: Path, token: str, name: str
) -> None:
    """The command that the text names publishes with the file that the text is."""
    text = show(name, server)
    put_at_home(text, tmp_path / "home")
    project = make_project(tmp_path, "pyproject.toml", "")
    for command in find_publishing(text, name):
        user(name).run(*command, cwd=project, env=fill_in(PUBLISHERS[name], token))
    assert list_uploads(packages) == PUBLISHED


MANAGERS = {
    "poetry": (
        "pyproject.toml",
        ("install", "--no-root"),
        {"POETRY_HTTP_BASIC_PRIVATE_USERNAME": "__token__", "POETRY_HTTP_BASIC_PRIVATE_PASSWORD": "TOKEN"},
    ),
    "pdm": ("pyproject.toml", ("install", "--no-self"), {}),
    "pipenv": ("Pipfile", ("install",), {}),
    "uv": ("pyproject.toml", ("sync", "--no-install-project"), {}),
}


def install_project(tool: Client, name: str, text: str, token: str, root: Path) -> None:
    manifest, install, login = MANAGERS[name]
    project = make_project(root, manifest, text.replace("\n[[index]]", "\n[[tool.uv.index]]"))
    tool.run(*install, cwd=project, env=fill_in(login, token))
    [site] = (project / ".venv" / "lib").glob("python*/site-packages")
    assert installed_version(site, "demo_app") == "1.0"


@pytest.mark.parametrize("name", MANAGERS)
def test_project_managers(
    user: Callable[[str], Client], show: Print, server: Server, tmp_path: Path, token: str, name: str
) -> None:
    """They lock and install with the table in the project's own file."""
    install_project(user(name), name, show(name, server), token, tmp_path)


PUBLISHING_MANAGERS = {
    "poetry": ((), {"POETRY_PYPI_TOKEN_PRIVATE": "TOKEN"}),
    "pdm": (("--no-build",), {"PDM_PUBLISH_USERNAME": "__token__", "PDM_PUBLISH_PASSWORD": "TOKEN"}),
}


@pytest.mark.parametrize("name", PUBLISHING_MANAGERS)
def test_project_managers_publish(
    user: Callable[[str], Client], show: Print, server: Server, packages: Path, tmp_path: Path, token: str, name: str
) -> None:
    """The commands that the text names, in their order; the files were built before."""
    options, login = PUBLISHING_MANAGERS[name]
    login = fill_in(login, token)
    text = show(name, server)
    project = make_project(tmp_path, "pyproject.toml", text)
    for command in find_publishing(text, name):
        user(name).run(*command, *(options if command[0] == "publish" else ()), cwd=project, env=login)
    assert list_uploads(packages) == PUBLISHED


def test_the_pip_of_conda(user: Callable[[str], Client], show: Print, server: Server, tmp_path: Path) -> None:
    """Conda gives what stands below `pip:` to pip as a file of requirements."""
    listed = re.findall("^      - (.*)$", show("conda", server), re.MULTILINE)
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("\n".join(listed).replace("your-project", "demo-app") + "\n")
    user("pip").run("install", "--target", tmp_path / "site", "-r", wanted)
    assert installed_version(tmp_path / "site", "demo_app") == "1.0"


@pytest.mark.parametrize("has_secret", (True, False))
def test_the_pip_of_an_image(
    user: Callable[[str], Client], show: Print, server: Server, tmp_path: Path, has_secret: bool
) -> None:
    """The environment and the command of the lines install with the secret where it is mounted, and only then."""
    text = show("docker", server)
    variables = dict(re.findall(r"^ENV (\w+)=(\S+)$", text, re.MULTILINE))
    [command] = re.findall("^RUN --mount=type=secret,id=netrc pip (.*)$", text, re.MULTILINE)
    assert variables["NETRC"] == "/run/secrets/netrc"
    secret = (tmp_path / "home" / ".netrc").rename(tmp_path / "secret")
    variables["NETRC"] = str(secret if has_secret else tmp_path / "absent")
    arguments = shlex.split(command.replace("your-project", "demo-app"))
    user("pip").run(*arguments, "--target", tmp_path / "site", env=variables, ok=has_secret)
    assert (tmp_path / "site").exists() == has_secret


@pytest.fixture
def address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(unsent.getsockname()[0])


@pytest.mark.parametrize("name", ("pip", "uv", "poetry", "pdm", "pipenv"))
def test_plain_http_on_another_machine(
    user: Callable[[str], Client],
    show: Print,
    serve: Serve,
    guard: tuple[str, ...],
    packages: Path,
    tmp_path: Path,
    token: str,
    address: str,
    name: str,
) -> None:
    """Whoever distrusts it finds in the text that it may be trusted."""
    make_wheel(packages, "demo-app", "1.0")
    server = serve("--disable-fallback", "--host", address, *guard)
    assert address in server.url
    text = show(name, server)
    if name == "pip":
        put_at_home(text, tmp_path / "home")
        user(name).run("install", "--target", tmp_path / "site", "demo-app")
    else:
        install_project(user(name), name, text, token, tmp_path)


@pytest.mark.parametrize("name", ("twine", "uv", "poetry", "pdm"))
def test_nobody_asks_for_credentials(
    user: Callable[[str], Client],
    environment: dict[str, str],
    serve: Serve,
    packages: Path,
    tmp_path: Path,
    name: str,
) -> None:
    """At a server that is open to everyone, no client does either, and files that are there are no fault."""
    server = serve("--disable-fallback", *OPEN)
    text = Program(tmp_path, environment).run("client-config", name, *OPEN, "--url", server.url).stdout
    if name in PUBLISHERS:
        put_at_home(text, tmp_path / "home")
    project = make_project(tmp_path, "pyproject.toml", "" if name in PUBLISHERS else text)
    options = ("--no-build",) if name == "pdm" else ()
    for command in [*find_publishing(text, name)] * 2:
        user(name).run(*command, *(options if command[0] == "publish" else ()), cwd=project)
    assert list_uploads(packages) == PUBLISHED
