"""Who asks, and may they: a header becomes an Identity; identity and rule become yes or no.

`htpasswd` holds the file, `credentials` the way from a header to an Identity, `gate` the rule. This room must
not know HTTP statuses, projects, the catalog or any other room of its layer.
"""

from pypiserver_ng.auth.credentials import Authenticator
from pypiserver_ng.auth.gate import Gate
from pypiserver_ng.auth.htpasswd import Htpasswd, PasswordFile, parse_htpasswd

__all__ = ["Authenticator", "Gate", "Htpasswd", "PasswordFile", "parse_htpasswd"]
