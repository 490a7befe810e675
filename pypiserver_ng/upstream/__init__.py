"""Other indexes: where they are, what they say of a project, and the bytes of their files.

`addresses` reads URLs, `client` asks over `sessions` that a `guard` keeps from going astray, `surroundings` is what the
machine says of the way, `unpacking` undoes content codings, `faults` has words for what goes wrong; `parsing`, with
`links` for HTML and `entries` for one file, makes a page of an answer; `pip_index` asks pip for its own; `probing`
finds out what they are worth.
Knows no policy and keeps nothing but connections.
"""

from pypiserver_ng.upstream.addresses import Upstream, without_credentials
from pypiserver_ng.upstream.client import Download, NotModified, UpstreamClient
from pypiserver_ng.upstream.parsing import RawPage, parse_page
from pypiserver_ng.upstream.sessions import Timeouts

__all__ = [
    "Download",
    "NotModified",
    "RawPage",
    "Timeouts",
    "Upstream",
    "UpstreamClient",
    "parse_page",
    "without_credentials",
]
