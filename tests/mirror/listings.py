"""The pages of an upstream index, as rich or as poor as real ones are.

It knows the simple API's two formats and nothing of servers.
"""

import hashlib
import html
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.tools.distributions import Distribution

#: Older than any cooldown.
LONG_AGO = "2020-02-02T00:00:00Z"


@dataclass(slots=True)
class Look:
    """How the pages look; may be changed at any time."""

    as_json: bool = True
    #: Instead of the honest one.
    content_type: str | None = None
    etag: bool = True
    #: Part of the ETag, to change it while the page stays the same.
    salt: str = ""
    last_modified: bool = False
    gzip: bool = False
    hashes: bool = True
    sizes: bool = True
    upload_times: bool = True
    #: Whether core metadata are announced and served, and whether with their hash.
    metadata: bool = True
    metadata_hashes: bool = True
    #: What stands before ``project/filename`` in a link.
    links: str = "/files/"
    #: For `<base href>`.
    base: str | None = None
    #: More entries, as they stand in JSON, before those of the files.
    extra: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """One file and what its upstream says of it."""

    distribution: Distribution
    upload_time: str | None = LONG_AGO
    requires_python: str | None = None
    yanked: bool | str = False


def core_metadata_of(distribution: Distribution) -> bytes | None:
    """The METADATA of a wheel byte for byte; None for everything else."""
    if not distribution.filename.endswith(".whl"):
        return None
    with zipfile.ZipFile(io.BytesIO(distribution.content)) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name)


def render_json(project: str, offers: Iterable[Offer], look: Look, status: Mapping[str, str] | None) -> bytes:
    files = [*look.extra, *(_json_entry(project, offer, look) for offer in offers)]
    page: dict[str, object] = {"meta": {"api-version": "1.1"}, "name": project, "files": files}
    if status:
        page["project-status"] = status
    return json.dumps(page).encode()


def render_html(project: str, offers: Iterable[Offer], look: Look) -> bytes:
    base = f'<base href="{html.escape(look.base)}">' if look.base else ""
    anchors = "<br>\n".join(_anchor(project, offer, look) for offer in offers)
    head = f"<head>{base}<title>Links for {project}</title></head>"
    return f"<!DOCTYPE html>\n<html>{head}<body>\n<h1>Links for {project}</h1>\n{anchors}\n</body></html>\n".encode()


def _metadata_word(offer: Offer, look: Look) -> dict[str, str] | bool:
    content = core_metadata_of(offer.distribution)
    if content is None or not look.metadata:
        return False
    return {"sha256": hashlib.sha256(content).hexdigest()} if look.metadata_hashes else True


def _json_entry(project: str, offer: Offer, look: Look) -> dict[str, object]:
    distribution = offer.distribution
    entry: dict[str, object] = {
        "filename": distribution.filename,
        "url": f"{look.links}{project}/{distribution.filename}",
        "hashes": {"sha256": distribution.sha256} if look.hashes else {},
        "yanked": offer.yanked,
        "core-metadata": _metadata_word(offer, look),
    }
    if offer.requires_python is not None:
        entry["requires-python"] = offer.requires_python
    if look.sizes:
        entry["size"] = len(distribution.content)
    if look.upload_times and offer.upload_time is not None:
        entry["upload-time"] = offer.upload_time
    return entry


def _anchor(project: str, offer: Offer, look: Look) -> str:
    """No size and no time: HTML has neither."""
    distribution = offer.distribution
    fragment = f"#sha256={distribution.sha256}" if look.hashes else ""
    attributes = {"href": f"{look.links}{project}/{distribution.filename}{fragment}"}
    if offer.requires_python is not None:
        attributes["data-requires-python"] = offer.requires_python
    if offer.yanked is not False:
        attributes["data-yanked"] = offer.yanked if isinstance(offer.yanked, str) else ""
    match _metadata_word(offer, look):
        case {"sha256": digest}:
            attributes["data-core-metadata"] = f"sha256={digest}"
        case True:
            attributes["data-core-metadata"] = "true"
    written = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
    return f"<a {written}>{distribution.filename}</a>"
