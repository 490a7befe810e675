"""`POST /` and `POST /legacy/`: the upload API of twine, uv, flit, poetry, hatch and pdm, and pypiserver's actions."""

import asyncio
import logging

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng.auth import Gate
from pypiserver_ng.errors import Denied, Failure, Invalid, TooLarge, Unauthenticated
from pypiserver_ng.index import Index
from pypiserver_ng.model import Identity, ParsedFilename, Right, Upload, is_project_name, normalize_name
from pypiserver_ng.storage import translate_os_error
from pypiserver_ng.web import http
from pypiserver_ng.web.form import MOST_TEXT, ClientLeft, Form, read_form
from pypiserver_ng.web.forwarded import base_url

_log = logging.getLogger(__name__)

#: Actions of older clients that have nothing to do here; they succeed, as on pypiserver.
_HARMLESS = frozenset({"doc_upload", "verify", "submit"})


class UploadForm:
    """One POST. Credentials are checked before a byte of the body is read."""

    def __init__(self, index: Index, gate: Gate, max_upload_size: int) -> None:
        self._index = index
        self._gate = gate
        self._most = max_upload_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refuse_cross_site(scope)
        await self._admit(scope)
        self._refuse_too_large(scope)
        # Who writes refusals down wants to know of what.
        form = scope["form"] = Form()
        try:
            await self._read(scope, receive, form)
            # A body may take its time: who may still do it counts, not who might when it began.
            await self._act(form, await self._admit(scope))
        except ClientLeft:
            _log.info("an upload was broken off by its client")
            return
        finally:
            if form.scratch is not None and not form.scratch.is_discarded:
                await asyncio.shield(self._index.change(form.scratch.discard))
        await http.send_text(send, 200, "")

    async def _admit(self, scope: Scope) -> Identity:
        """Who sends the form; for which project it is comes later."""
        refusals: list[Failure] = []
        for right in (Right.UPLOAD, Right.CREATE, Right.DELETE):
            try:
                return await http.authorize(scope, self._gate, right)
            except (Unauthenticated, Denied) as refusal:
                refusals.append(refusal)
        raise refusals[0]

    def _refuse_too_large(self, scope: Scope) -> None:
        length = http.header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._most + MOST_TEXT:
            raise TooLarge(f"the upload is larger than this index takes ({self._most} bytes)")

    async def _read(self, scope: Scope, receive: Receive, form: Form) -> None:
        content_type = http.header(scope, b"content-type")
        try:
            await read_form(
                receive,
                content_type,
                form,
                most=self._most,
                new_scratch=self._index.new_scratch,
                run=self._index.change,
            )
        except OSError as fault:
            raise translate_os_error(fault) from fault

    async def _act(self, form: Form, identity: Identity) -> None:
        action = form.fields.get(":action")
        if action == "file_upload":
            await self._store(form, identity)
        elif action == "remove_pkg":
            await self._remove(form, identity)
        elif action is None:
            raise Invalid("the field ':action' is missing: this is where distributions are uploaded")
        elif action not in _HARMLESS:
            raise Invalid(f"the action {action[:50]!a} is not known here: use file_upload")

    async def _store(self, form: Form, identity: Identity) -> None:
        fields = form.fields
        if form.scratch is None or form.filename is None:
            raise Invalid("the field 'content' is missing: send the distribution file in it")
        if fields.get("protocol_version", "1") != "1":
            raise Invalid("only protocol_version 1 is known here")
        upload = Upload(
            filename=form.filename,
            name=fields.get("name"),
            version=fields.get("version"),
            filetype=fields.get("filetype"),
            attestations=fields.get("attestations"),
            digests={name: value for name, value in fields.items() if name.endswith("_digest")},
        )

        def permit(right: Right, parsed: ParsedFilename) -> None:
            self._gate.require(right, parsed.name, identity)
            self._gate.require_version(parsed.version, identity)

        await self._index.add(upload, form.scratch, identity, permit)

    async def _remove(self, form: Form, identity: Identity) -> None:
        name, version = form.fields.get("name"), form.fields.get("version")
        if not name or not version:
            raise Invalid(f"the fields 'name' and 'version' are needed: name={name!a}, version={version!a}")
        if not is_project_name(name):
            raise Invalid(f"{name[:100]!a} is not a project name")
        project = normalize_name(name)
        self._gate.require(Right.DELETE, project, identity)
        await self._index.remove(project, version, identity)


def refuse_cross_site(scope: Scope) -> None:
    """A page of another site must not use the credentials that a browser remembers for this one.

    Browsers say where a form comes from in Sec-Fetch-Site, and over plain http only in Origin; tools send neither.
    """
    origin = http.header(scope, b"origin")
    is_foreign = origin is not None and _host(origin.decode("latin-1")) != _host(base_url(scope))
    if is_foreign or http.header(scope, b"sec-fetch-site") in {b"cross-site", b"same-site"}:
        raise Denied("this form was sent by a page of another site")


def _host(url: str) -> str:
    # Without the scheme: a proxy in front may speak https without telling.
    return url.partition("//")[2].partition("/")[0].lower()


def routes(index: Index, gate: Gate, max_upload_size: int) -> list[BaseRoute]:
    upload = UploadForm(index, gate, max_upload_size)
    return [Route(path, upload, methods=["POST"]) for path in ("/", "/legacy/", "/legacy")]
