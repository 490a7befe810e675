"""May this go ahead: who asks, for what, with which project.

Holds the rules of `--authenticate`, `[[access]]` and tokens. Must not know how credentials are verified.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pypiserver_ng.auth.access import Access, is_for, is_within
from pypiserver_ng.auth.credentials import Authenticator
from pypiserver_ng.errors import Concealed, Denied, TooMany, Unauthenticated, Unavailable
from pypiserver_ng.filenames import is_until
from pypiserver_ng.model import ANONYMOUS, Action, Identity, NormalizedName, Right, Sight

_VERBS = {
    Right.LIST: "list",
    Right.DOWNLOAD: "download",
    Right.UPLOAD: "upload",
    Right.CREATE: "create",
    Right.YANK: "yank",
    Right.DELETE: "delete",
}


class Gate:
    """Decides for each request. A question without a name is whether there may be a project for which it is allowed.

    What anyone may do is never refused for the credentials that come with it: clients send stale ones to every
    server they know. Without `[[access]]` entries such a request is served as anonymous, without a look at its header;
    only an upload is attributed to its user where the credentials are right, for the record of who did what.
    With `conceal`, what a known caller may not see looks as if it were not here.
    """

    def __init__(
        self,
        authenticate: frozenset[Action],
        authenticator: Authenticator,
        access: Access | None = None,
        *,
        conceal: bool = False,
    ) -> None:
        self._authenticate = authenticate
        self._authenticator = authenticator
        self._access = access or Access(())
        self._conceal = conceal

    def require(self, right: Right, name: NormalizedName | None, identity: Identity) -> None:
        """Raise Unauthenticated, Denied or Concealed unless this identity may do this."""
        if self._may(right, name, identity):
            return
        if identity.user is None:
            raise Unauthenticated(self._ask_for_credentials(right))
        if self._conceal and name is not None and right in {Right.LIST, Right.DOWNLOAD}:
            raise Concealed(f"{name} is not here")
        what = f"{_VERBS[right]} {name or 'projects here'}"
        raise Denied(f"{identity.user} may not {what}: ask the operator of this index for the right to do so")

    def turn_away(self, right: Right, name: NormalizedName | None) -> str | None:
        """What who sends no credentials is told; None where they are not needed. Costs less than to raise it."""
        return None if self._may(right, name, ANONYMOUS) else self._ask_for_credentials(right)

    def authorize_now(
        self, right: Right, name: NormalizedName | None, header: bytes | None, address: str | None = None
    ) -> Identity | None:
        """As `authorize`, from memory alone; None means that only `authorize` can tell.

        Raises as `authorize` where that is certain already, as without a header.
        """
        if header is None or not self._wants_identity(right):
            self.require(right, name, ANONYMOUS)
            return ANONYMOUS
        identity = self._authenticator.peek(header)
        if identity is not None:
            self._admit(right, name, identity, address)
        return identity

    def remember(self, right: Right, header: bytes | None) -> Callable[[], bool] | None:
        """For a request that was just authorized: tells later, without raising, whether it would be again.

        None where nothing can change that.
        """
        if header is None or not self._wants_identity(right):
            return None
        return self._authenticator.remember(header)

    async def authorize(
        self, right: Right, name: NormalizedName | None, header: bytes | None, address: str | None = None
    ) -> Identity:
        """Answer who does this, given the raw value of the Authorization header and where it comes from.

        Raises Unauthenticated where credentials are needed and missing or wrong, Denied where they are right and do
        not suffice, TooMany after many wrong ones, and Unavailable (with `retry_after`) where too many others wait to
        be verified.
        """
        identity = self.authorize_now(right, name, header, address)
        if identity is None:
            identity = await self._identify(right, name, header, address)
            self._admit(right, name, identity, address)
        return replace(identity, address=address)

    def require_version(self, version: str, identity: Identity) -> None:
        """Raise Denied or Concealed where a release is later than what this identity may have."""
        last = identity.token.until_version if identity.token else None
        if last is None or is_until(version, last):
            return
        if self._conceal:
            raise Concealed("there is no such file here")
        raise Denied(f"{identity.user} may have versions up to {last}: ask the operator of this index for later ones")

    def sight(self, identity: Identity) -> Sight | None:
        """What this caller may see; None where that is everything."""
        token = identity.token
        last = token.until_version if token else None
        if self._access.is_empty and (token is None or Action.LIST not in self._authenticate) and last is None:
            return None
        view = self._access.view(identity)
        reaches = None if last is None else partial(is_until, last=last)
        return Sight(view, lambda name: self._may(Right.LIST, name, identity), reaches)

    def _admit(self, right: Right, name: NormalizedName | None, identity: Identity, address: str | None) -> None:
        self.require(right, name, identity)
        self._authenticator.note_use(identity, address)

    async def _identify(
        self, right: Right, name: NormalizedName | None, header: bytes | None, address: str | None
    ) -> Identity:
        try:
            return await self._authenticator.identify(header, address)
        except (Unauthenticated, TooMany, Unavailable):
            if self._may(right, name, ANONYMOUS):
                return ANONYMOUS
            raise

    def _may(self, right: Right, name: NormalizedName | None, identity: Identity) -> bool:
        if not self._access.is_empty:
            if name is None:
                return self._access.allows_somewhere(identity, right)
            return self._access.allows(identity, right, name)
        if right.action not in self._authenticate:
            return True
        if identity.token is None:
            return identity.user is not None
        return is_within(identity.token, right) if name is None else is_for(identity.token, right, name)

    def _wants_identity(self, right: Right) -> bool:
        return not self._access.is_empty or right.action in self._authenticate or right.action is Action.UPDATE

    def _ask_for_credentials(self, right: Right) -> str:
        verb = "list projects" if right is Right.LIST else _VERBS[right]
        if not self._authenticator.has_passwords:
            return (
                f"Nobody can {verb} here without a token, because this server has no password file; its operator "
                "has to give it one with --passwords, or you a token ('pypiserver-ng token create')."
            )
        return f"Credentials are needed to {verb}; give your client a user name and a password for this index."
