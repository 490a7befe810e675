"""May this action go ahead: the actions that need credentials, and who asks.

Holds the rule of `--authenticate` and `--passwords`. Must not know how credentials are verified.
"""

from collections.abc import Callable

from pypiserver_ng.auth.credentials import Authenticator
from pypiserver_ng.errors import Unauthenticated, Unavailable
from pypiserver_ng.model import ANONYMOUS, Action, Identity

_VERBS = {Action.UPDATE: "upload", Action.DOWNLOAD: "download", Action.LIST: "list projects"}


class Gate:
    """Decides for each request. `authenticator` is None where the server has no password file.

    An action that needs no credentials is never refused for the credentials that come with it: clients send
    stale ones to every server they know. Such a request is served as anonymous, without a look at its header;
    only an upload is attributed to its user where the credentials are right, for the record of who did what.
    """

    def __init__(self, authenticate: frozenset[Action], authenticator: Authenticator | None) -> None:
        self._authenticate = authenticate
        self._authenticator = authenticator

    def require(self, action: Action, identity: Identity) -> None:
        """Raise Unauthenticated unless this identity may do this."""
        if action not in self._authenticate:
            return
        verb = _VERBS[action]
        if self._authenticator is None:
            raise Unauthenticated(
                f"Nobody can {verb} here, because this server has no password file; "
                "its operator has to give it one with --passwords."
            )
        if identity.user is None:
            raise Unauthenticated(
                f"Credentials are needed to {verb}; give your client a user name and a password for this index."
            )

    def authorize_now(self, action: Action, header: bytes | None) -> Identity | None:
        """As `authorize`, from memory alone; None means that only `authorize` can tell.

        Raises Unauthenticated where that is certain already, as without a header.
        """
        authenticator = self._choose(action, header)
        if authenticator is None:
            self.require(action, ANONYMOUS)
            return ANONYMOUS
        return authenticator.peek(header)

    def remember(self, action: Action, header: bytes | None) -> Callable[[], bool] | None:
        """For a request that was just authorized: tells later, without raising, whether it would be again.

        None where nothing can change that.
        """
        authenticator = self._choose(action, header)
        return authenticator.remember(header) if authenticator and header is not None else None

    async def authorize(self, action: Action, header: bytes | None) -> Identity:
        """Answer who does this, given the raw value of the Authorization header.

        Raises Unauthenticated where the action needs credentials and they are missing or wrong, and Unavailable
        (with `retry_after`) where it needs them and too many others wait to be verified.
        """
        identity = self.authorize_now(action, header)
        if identity is not None:
            return identity
        assert self._authenticator is not None  # without one, authorize_now has decided
        try:
            return await self._authenticator.identify(header)
        except (Unauthenticated, Unavailable):
            if action in self._authenticate:
                raise
            return ANONYMOUS

    def _choose(self, action: Action, header: bytes | None) -> Authenticator | None:
        """Who tells whose header this is; None where it makes no difference."""
        is_wanted = action in self._authenticate or action is Action.UPDATE
        return self._authenticator if is_wanted and header is not None else None
