"""Who asks, and may they: a header becomes an Identity; identity and rule become yes or no.

`htpasswd` holds the file of passwords, `tokens` the tokens, `credentials` the way from a header to an Identity,
`throttle` counts who guesses, `access` holds the `[[access]]` entries, `gate` the rule; `oidc`, `issuers` and
`exchange` are trusted publishing. This room must not know HTTP statuses, the catalog or any other room of its layer.
"""

from pypiserver_ng.auth.access import Access, find_useless_grants
from pypiserver_ng.auth.credentials import Authenticator
from pypiserver_ng.auth.gate import Gate
from pypiserver_ng.auth.htpasswd import Htpasswd, PasswordFile, parse_htpasswd
from pypiserver_ng.auth.throttle import Throttle
from pypiserver_ng.auth.tokens import TokenBook, make_token

__all__ = [
    "Access",
    "Authenticator",
    "Gate",
    "Htpasswd",
    "PasswordFile",
    "Throttle",
    "TokenBook",
    "find_useless_grants",
    "make_token",
    "parse_htpasswd",
]
