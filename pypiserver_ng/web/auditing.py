"""What clients are refused, as entries of the audit log: who it was, as far as that is known, what, and why not.

Asked where a failure becomes an answer, so that what succeeds costs nothing. A missing password and a missing project
are no news: clients send requests without credentials first, and ask every index for every name.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.types import Scope

from pypiserver_ng.auth.credentials import read_authorization
from pypiserver_ng.auth.tokens import USER
from pypiserver_ng.errors import Unauthenticated
from pypiserver_ng.filenames import parse_found
from pypiserver_ng.model import Identity, is_project_name, normalize_name
from pypiserver_ng.storage.audit import AuditLog
from pypiserver_ng.web import http

_ALWAYS = frozenset({403, 409, 413, 422, 429})
_UPLOADS = frozenset({"/", "/legacy", "/legacy/"})
_EXCHANGES = {"/_/oidc/mint-token": "mint", "/_/oidc/burn-token": "burn"}
_FILES = "/packages/"
#: Failed logins of nobody who is known that are told apart, of one address in a minute; and so many addresses.
_MOST_STRANGE = 60
_MOST_ADDRESSES = 1000
#: The part of a token's text that is no secret.
_TOKEN_ID = re.compile(r"\Apypi-ng-([0-9a-f]{16})-")


class Refusals:
    def __init__(
        self, audit: AuditLog, recognize: Callable[[bytes], Identity | None], is_user: Callable[[str], bool]
    ) -> None:
        """`recognize` tells who sent a header that was verified, `is_user` whether a name is in the password file."""
        self._audit = audit
        self._recognize = recognize
        self._is_user = is_user
        self._minute = 0
        #: Failed logins of this minute by their addresses.
        self._strangers: Counter[str | None] = Counter()

    def note(self, scope: Scope, status: int, reason: str) -> None:
        """A request that is answered with a failure, if it is one that somebody may want to know of."""
        authorization = http.header(scope, b"authorization")
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        is_upload = scope["method"] == "POST" and path in _UPLOADS
        if status not in _ALWAYS and not (status == 401 and authorization) and not (status == 400 and is_upload):
            return
        what = _describe_form(scope) if is_upload else _describe_path(scope, path)
        user = self._name(scope, authorization)
        if status in {401, 429} and path not in _EXCHANGES:
            user = self._read_claim(authorization) if authorization else None
            is_known = user is not None and self._is_user(user)
            what = what | {"action": "login"} if is_known and status == 401 else {"action": "login"}
            if not is_known and self._is_too_much(http.client_address(scope)):
                user = None
        self._audit.note(**what, outcome="refused", user=user, address=http.client_address(scope), reason=reason)

    def _is_too_much(self, address: str | None) -> bool:
        """Strangers could fill the log with what they make up: beyond some in a minute, theirs are all alike."""
        minute = int(time.monotonic() / 60)
        if minute != self._minute:
            self._minute = minute
            self._strangers.clear()
        self._strangers[address] += 1
        return self._strangers[address] > _MOST_STRANGE or len(self._strangers) > _MOST_ADDRESSES

    def _name(self, scope: Scope, authorization: bytes | None) -> str | None:
        identity: Identity | None = scope.get("identity")
        if identity is None and authorization:
            # It was refused before anything was let pass.
            identity = self._recognize(authorization)
        return identity.user if identity else None

    def _read_claim(self, authorization: bytes) -> str | None:
        """Who it says to be. A name that nobody has may be a password that was typed into the wrong field."""
        try:
            claimed = read_authorization(authorization)
        except Unauthenticated:
            return None
        if claimed.user == USER:
            token = _TOKEN_ID.match(claimed.password)
            return f"token {token[1]}" if token else None
        return claimed.user if self._is_user(claimed.user) else None


def _describe_form(scope: Scope) -> dict[str, Any]:
    """An upload, or what else a form may ask for; it may have come in part only, or not at all."""
    form = scope.get("form")
    fields = form.fields if form else {}
    name = fields.get("name", "")
    return {
        "action": "delete" if fields.get(":action") == "remove_pkg" else "upload",
        "project": normalize_name(name) if is_project_name(name) else None,
        "version": fields.get("version"),
        "filename": form.filename if form else None,
    }


def _describe_path(scope: Scope, path: str) -> dict[str, Any]:
    if path in _EXCHANGES:
        return {"action": _EXCHANGES[path]}
    if path.startswith(_FILES):
        filename = path.rpartition("/")[2].removesuffix(".metadata")
        parsed = parse_found(filename)
        project, version = (parsed.name, parsed.version or None) if parsed else (None, None)
        return {"action": "download", "project": project, "version": version, "filename": filename}
    asked = scope.get("path_params", {})
    name = asked.get("project", "")
    return {
        "action": "list",
        "project": normalize_name(name) if is_project_name(name) else None,
        "version": asked.get("version"),
    }
