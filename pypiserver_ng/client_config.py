"""The URL of a server becomes the file, or the lines, that each client reads.

Values in, text out: what is printed, shown on the home page and written in docs/clients.md is the same text. It must
not know a credential; each text says where its client looks for one.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pypiserver_ng.errors import Invalid

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?|\[(?P<address>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~-]+)*/?)",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_URL = 1000
#: What people may have copied instead of the root.
_SURFACES = re.compile(r"/(?:simple|legacy)\Z")


@dataclass(frozen=True, slots=True)
class Server:
    """A server as its clients see it."""

    #: Of its root, with ``/`` at the end and no credentials.
    url: str
    #: "open" or "credentials".
    uploads: str = "credentials"
    #: Whether listing or downloading needs credentials.
    is_guarded: bool = False

    @property
    def simple_url(self) -> str:
        return f"{self.url}simple/"

    @property
    def upload_url(self) -> str:
        return f"{self.url}legacy/"

    @property
    def host(self) -> str:
        """Without the port; an IPv6 address keeps its brackets."""
        return find_host(self.url)

    @property
    def is_loopback(self) -> bool:
        try:
            return self.host.lower() == "localhost" or ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def is_distrusted(self) -> bool:
        """Whether pip, and who does as pip does, has to be told to trust it: plain http to another machine."""
        return self.url.startswith("http://") and not self.is_loopback


def parse_server_url(text: str) -> str:
    """The URL of a server's root, with ``/`` at its end; that of its simple API will do. Raises Invalid."""
    found = _URL.fullmatch(text) if len(text) <= _LONGEST_URL else None
    if found is None or not _is_address(found["address"]) or not _is_port(found["port"]) or _climbs(found["path"]):
        # It is not repeated: somebody may have put a password into it.
        raise Invalid(
            "--url must be the http:// or https:// URL of a server, such as https://packages.example/, "
            "without credentials, '?' and '#'"
        )
    port = f":{found['port']}" if found["port"] else ""
    path = _SURFACES.sub("", found["path"].rstrip("/"))
    return f"{found['scheme'].lower()}://{found['host']}{port}{path}/"


def find_host(url: str) -> str:
    """Whatever the URL's host looks like: what a client sends as its Host need not be one."""
    authority = url.split("/")[2]
    return authority if authority.endswith("]") else authority.rpartition(":")[0] or authority


def configure_client(client: str, server: Server) -> str:
    """The text for one of `CLIENTS`, with a line break at its end."""
    return "\n".join(_WRITERS[client](server)) + "\n"


def _is_address(text: str | None) -> bool:
    try:
        return text is None or bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _is_port(text: str | None) -> bool:
    return text is None or 0 < int(text) <= 65535


def _climbs(path: str) -> bool:
    return not {".", ".."}.isdisjoint(path.split("/"))


def _write_pip(server: Server) -> Iterator[str]:
    yield r"# ~/.config/pip/pip.conf (Windows: %APPDATA%\pip\pip.ini); 'pip config debug' names the other places"
    yield "[global]"
    yield f"index-url = {server.simple_url}"
    if server.is_distrusted:
        yield "# Plain http on another machine:"
        yield f"trusted-host = {server.host}"
    yield from _say_netrc(server)


def _write_uv(server: Server) -> Iterator[str]:
    yield r"# ~/.config/uv/uv.toml (Windows: %APPDATA%\uv\uv.toml); in pyproject.toml the table is [[tool.uv.index]]"
    yield "[[index]]"
    yield 'name = "private"'
    yield f'url = "{server.simple_url}"'
    yield f'publish-url = "{server.upload_url}"'
    yield "default = true"
    if server.is_guarded:
        yield 'authenticate = "always"'
        yield from _say_netrc(server, "UV_INDEX_PRIVATE_USERNAME and UV_INDEX_PRIVATE_PASSWORD")
    # It sends nothing without credentials, also where nobody asks for them.
    anything = " --token none" if server.uploads == "open" else ""
    yield from _say_publishing(server, [f"uv publish --index private{anything}"], "the token in UV_PUBLISH_TOKEN")


def _write_twine(server: Server) -> Iterator[str]:
    yield "# ~/.pypirc"
    yield "[distutils]"
    yield "index-servers ="
    yield "    private"
    yield ""
    yield "[private]"
    yield f"repository = {server.url}"
    if server.uploads == "open":
        yield "# Nobody asks for credentials, and so twine asks for none:"
        yield "username ="
        yield "password ="
    else:
        yield "# So says a token; a user with a password has a name."
        yield "username = __token__"
    commands = ["twine upload --repository private dist/*"]
    yield from _say_publishing(
        server, commands, "twine asks for the token, or finds it in TWINE_PASSWORD or the keyring"
    )


def _write_poetry(server: Server) -> Iterator[str]:
    yield "# pyproject.toml"
    yield "[[tool.poetry.source]]"
    yield 'name = "private"'
    yield f'url = "{server.simple_url}"'
    yield 'priority = "primary"'
    if server.is_guarded:
        yield "# Reading needs credentials. This asks for a token, and keeps it in the keyring:"
        yield "#   poetry config http-basic.private __token__"
        yield "# or POETRY_HTTP_BASIC_PRIVATE_USERNAME and POETRY_HTTP_BASIC_PRIVATE_PASSWORD have them."
    commands = [f"poetry config repositories.private {server.url}"]
    if server.uploads == "credentials" and not server.is_guarded:
        commands.append("poetry config http-basic.private __token__")
    commands.append("poetry publish --build --repository private")
    yield from _say_publishing(server, commands, "or with the token in POETRY_PYPI_TOKEN_PRIVATE")


def _write_pdm(server: Server) -> Iterator[str]:
    yield "# pyproject.toml"
    yield "[[tool.pdm.source]]"
    yield "# pdm's name for the default index, whose place this one takes."
    yield 'name = "pypi"'
    yield f'url = "{server.simple_url}"'
    if server.is_distrusted:
        yield "# Plain http on another machine:"
        yield "verify_ssl = false"
    yield from _say_netrc(server)
    # As uv.
    anything = " --username none --password none" if server.uploads == "open" else ""
    commands = [f"pdm config repository.private.url {server.url}", f"pdm publish --repository private{anything}"]
    yield from _say_publishing(server, commands, "PDM_PUBLISH_USERNAME=__token__ and the token in PDM_PUBLISH_PASSWORD")


def _write_pipenv(server: Server) -> Iterator[str]:
    yield "# Pipfile"
    yield "[[source]]"
    yield 'name = "private"'
    yield f'url = "{server.simple_url}"'
    if server.is_distrusted:
        yield "# Plain http on another machine:"
    yield f"verify_ssl = {'false' if server.is_distrusted else 'true'}"
    yield from _say_netrc(server)


def _write_conda(server: Server) -> Iterator[str]:
    yield "# environment.yml; what conda's channels do not have, the environment's pip installs from here."
    yield "name: your-environment"
    yield "dependencies:"
    yield "  - python"
    yield "  - pip"
    yield "  - pip:"
    yield f"      - --index-url {server.simple_url}"
    if server.is_distrusted:
        yield f"      - --trusted-host {server.host}"
    yield "      - your-project"
    yield from _say_netrc(server)


def _write_docker(server: Server) -> Iterator[str]:
    yield "# Dockerfile"
    if server.is_loopback:
        yield "# In a container this name is the container itself: give the server the name of its machine."
    yield f"ENV PIP_INDEX_URL={server.simple_url}"
    if server.is_distrusted:
        yield f"ENV PIP_TRUSTED_HOST={server.host}"
    yield f"ENV UV_DEFAULT_INDEX={server.simple_url}"
    yield "# Credentials, where reading needs them, are there for the one command and in no layer:"
    yield "#   docker build --secret id=netrc,src=$HOME/.netrc ."
    yield "ENV NETRC=/run/secrets/netrc"
    yield "RUN --mount=type=secret,id=netrc pip install your-project"
    yield from _say_netrc(server)


def _say_netrc(server: Server, variables: str = "") -> Iterator[str]:
    if server.is_guarded:
        yield r"# Reading needs a token, or a user's name and password, in ~/.netrc (Windows: %USERPROFILE%\_netrc):"
        yield f"#   machine {server.host.strip('[]')} login __token__ password TOKEN"
        if variables:
            yield f"# or in {variables}."


def _say_publishing(server: Server, commands: Sequence[str], login: str) -> Iterator[str]:
    yield f"# To publish ({login}):" if server.uploads == "credentials" else "# To publish:"
    for command in commands:
        yield f"#   {command}"


#: Client to what its text is, in one line.
CLIENTS = {
    "pip": "pip.conf",
    "uv": "uv.toml, or a table of pyproject.toml",
    "twine": ".pypirc",
    "poetry": "a table of pyproject.toml",
    "pdm": "a table of pyproject.toml",
    "pipenv": "a table of Pipfile",
    "conda": "environment.yml",
    "docker": "lines of a Dockerfile",
}
_WRITERS: dict[str, Callable[[Server], Iterator[str]]] = {
    "pip": _write_pip,
    "uv": _write_uv,
    "twine": _write_twine,
    "poetry": _write_poetry,
    "pdm": _write_pdm,
    "pipenv": _write_pipenv,
    "conda": _write_conda,
    "docker": _write_docker,
}
