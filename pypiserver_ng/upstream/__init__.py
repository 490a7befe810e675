"""Other indexes: where they are, and what of their addresses a client may see."""

from urllib.parse import quote, urlsplit, urlunsplit

from pypiserver_ng.model import NormalizedName


class Upstream:
    """One other index, by the URL of its simple API."""

    def __init__(self, url: str) -> None:
        #: Without credentials, with ``/`` at its end: the only form that leaves the server or is logged.
        self.public_url = without_credentials(url)

    def project_url(self, name: NormalizedName) -> str:
        return f"{self.public_url}{quote(name)}/"


def without_credentials(url: str) -> str:
    """The URL without its user and password, ending with one ``/``."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/", "", ""))
