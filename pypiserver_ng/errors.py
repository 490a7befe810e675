"""The domain's failures. Knows no HTTP: `web.failures` holds the one table from failure to status.

Failure
├── Invalid           what was sent is wrong, and the message says what
├── Unauthenticated   no credentials, or wrong ones
├── Denied            known, but not allowed
├── TooMany           asked too often; `retry_after` says when to ask again
├── NotFound
│   └── Concealed     not allowed, which who asks is not to learn
├── Conflict          other bytes under a used name
├── TooLarge
├── NoSpace           the disk or the quota is full
├── Unavailable       not now; `retry_after` says when to ask again
└── UpstreamFailed    another index did not answer, or answered badly
    └── UpstreamDown  it cannot be reached: whatever it is asked now would fail alike
"""


class Failure(Exception):  # noqa: N818 - these are outcomes the domain knows, named as nouns
    """One line for a person, without secrets and without paths of the server's machine."""

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: Whole seconds; clients parse it as an integer.
        self.retry_after = retry_after


class Invalid(Failure):
    pass


class Unauthenticated(Failure):
    pass


class Denied(Failure):
    pass


class TooMany(Failure):
    pass


class NotFound(Failure):
    pass


class Concealed(NotFound):
    pass


class Conflict(Failure):
    pass


class TooLarge(Failure):
    pass


class NoSpace(Failure):
    pass


class Unavailable(Failure):
    pass


class UpstreamFailed(Failure):
    """Worth another try: without a word of its own, the upstream is left alone for `PAUSE` seconds."""

    PAUSE = 5


class UpstreamDown(UpstreamFailed):
    pass
