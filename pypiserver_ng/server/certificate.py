"""The certificate of a server that speaks TLS itself, and when its files are read again.

It must not know connections, nor who watches: `refresh` is called now and then.
"""

import logging
import ssl
import stat
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

#: Seconds for which changed files must rest before they are believed: longer than the step of any file system's clock.
_SETTLE = 0.05
#: How often files that do not rest are tried in one go.
_ATTEMPTS = 4

#: Of both files: modification and change in ns, size, inode. Rights that come later change no other time.
_Signature = list[tuple[int, int, int, int]]


class Certificate:
    """The last good pair of certificate and key, as a context for new connections.

    `pause` waits for the given seconds; it is there for tests. Raises ValueError, with one line for the person who
    starts the server, when the pair is of no use at the start.
    """

    def __init__(self, certificate: Path, key: Path, *, pause: Callable[[float], object] = time.sleep) -> None:
        self._certificate = certificate
        self._key = key
        self._pause = pause
        self._fault = ""
        found = self._read()
        if found is None:
            raise ValueError(f"{certificate} or {key} is being written all the time; start again when they rest")
        self._signature, self._context = found

    @property
    def context(self) -> ssl.SSLContext:
        """What was read last; costs nothing. Connections keep the one that they began with."""
        return self._context

    def refresh(self) -> None:
        """Read the files again if they changed; what is of no use leaves the last good pair in force.

        Blocks, for about `_SETTLE` seconds where they changed. The same fault is said once.
        """
        try:
            if self._sign() != self._signature and (found := self._read()):
                self._signature, self._context = found
                _log.info("the certificate %s was read again", self._certificate)
        except ValueError as fault:
            if str(fault) != self._fault:
                _log.warning("%s; the last good certificate stays in force", fault)
            self._fault = str(fault)
        else:
            self._fault = ""

    def _read(self) -> tuple[_Signature, ssl.SSLContext] | None:
        """The pair with its signature, or None if somebody kept writing. Raises ValueError.

        Both files must look the same before a pause and after they were read: whoever replaces one and then the other
        gets the pause to finish in, and what is half written is of no use in most cases anyway.
        """
        for _ in range(_ATTEMPTS):
            before = self._sign()
            self._pause(_SETTLE)
            try:
                context = self._load()
            except ValueError:
                if self._sign() == before:
                    raise
            else:
                if self._sign() == before:
                    return before, context
        return None

    def _sign(self) -> _Signature:
        return [_sign(self._certificate, "certificate"), _sign(self._key, "key")]

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A client could have a new key agreed on over and over.
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        _check_certificate(self._certificate)
        try:
            context.load_cert_chain(self._certificate, self._key, _refuse_passphrase)
        except ssl.SSLError as fault:
            raise ValueError(self._explain(fault)) from None
        except OSError as fault:
            raise ValueError(f"cannot read the key {self._key}: {fault.strerror}; see --keyfile") from None
        return context

    def _explain(self, fault: ssl.SSLError) -> str:
        if fault.reason == "KEY_VALUES_MISMATCH":
            return f"the key {self._key} is not that of the certificate {self._certificate}: give both of one pair"
        if fault.reason and fault.reason.startswith(("EE_", "CA_")):
            words = fault.reason.replace("_", " ").lower()
            return f"the certificate {self._certificate} is too weak ({words}): have a stronger one made"
        return f"the key {self._key} is no private key in PEM; see --keyfile"


def _sign(path: Path, what: str) -> tuple[int, int, int, int]:
    try:
        found = path.stat()
    except OSError as fault:
        raise ValueError(f"cannot read the {what} {path}: {fault.strerror}; see --{_flag(what)}") from None
    if not stat.S_ISREG(found.st_mode):
        # A pipe can be read only once, and opening one may wait for ever.
        raise ValueError(f"cannot read the {what} {path}: it is not a regular file; see --{_flag(what)}")
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _flag(what: str) -> str:
    return "certfile" if what == "certificate" else "keyfile"


def _check_certificate(path: Path) -> None:
    """Whether it is one: the library does not say which file of a pair it could not read. Raises ValueError."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"the certificate {path} is no certificate in PEM; see --certfile") from None
    except OSError as fault:
        raise ValueError(f"cannot read the certificate {path}: {fault.strerror}; see --certfile") from None


def _refuse_passphrase() -> str:
    # Without it, the library asks on the terminal.
    raise ValueError("the key is encrypted, and nobody is there to give its passphrase: store it without one")
