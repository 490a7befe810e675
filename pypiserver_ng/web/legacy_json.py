"""`/pypi/<project>/json` and its kin: facts in the shape of the public index's JSON API.

Read by pip-tools, poetry, renovate-like tools and MicroPython. File URLs are absolute and equal to what the simple
page's links resolve to, because pip-tools matches them.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from pypiserver_ng import pages
from pypiserver_ng.auth import Gate
from pypiserver_ng.errors import NotFound
from pypiserver_ng.filenames import is_same_version, newest_version
from pypiserver_ng.index import Index
from pypiserver_ng.metadata import CoreMetadata
from pypiserver_ng.model import File, Kind, Listed, Project, Right
from pypiserver_ng.pages import file_url, format_time
from pypiserver_ng.policy import describe_status
from pypiserver_ng.web import http
from pypiserver_ng.web.forwarded import base_url


class ProjectJson:
    """GET /pypi/<project>/json, /pypi/<project>/<version>/json and /<project>/json."""

    def __init__(self, index: Index, gate: Gate, *, private: bool) -> None:
        self._index = index
        self._gate = gate
        self._cache_control = pages.cache_control(private=private)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = http.read_name(scope)
        identity = await http.authorize(scope, self._gate, Right.LIST, name)
        project = await self._index.project(name, self._gate.sight(identity))
        wanted: str | None = scope["path_params"].get("version")
        version = choose_version(project, wanted)
        metadata = await self._index.core_metadata(representative(project, version))
        base = base_url(scope)

        def render() -> bytes:
            return msgspec.json.encode(_describe(project, version, metadata, base, with_releases=wanted is None))

        headers: http.Headers = [
            (b"cache-control", self._cache_control),
            (b"x-pypi-last-serial", b"%d" % project.serial),
        ]
        await http.send_validated(scope, send, await self._index.run(render), b"application/json", headers)


def choose_version(project: Project, wanted: str | None) -> str:
    """The version as the project spells it, or the newest one that is not yanked. Raises NotFound."""
    versions = list(dict.fromkeys(file.version for file in project.files))
    if not versions:
        raise NotFound(f"{describe_status(project.name, project.status, project.status_reason)}: it offers no file")
    if wanted is None:
        return newest_version({file.version for file in project.files if not file.yanked} or versions)
    for version in versions:
        if is_same_version(version, wanted):
            return version
    raise NotFound(f"{project.name} {wanted[:100]!a} is not here")


def representative(project: Project, version: str) -> Listed:
    """The file whose metadata speaks for a release: a wheel if there is one."""
    files = [file for file in project.files if file.version == version]
    return min(files, key=lambda file: (file.kind is not Kind.WHEEL, file.kind is Kind.SIGNATURE))


def _describe(
    project: Project, version: str, metadata: CoreMetadata | None, base: str, *, with_releases: bool
) -> dict[str, Any]:
    releases: dict[str, list[dict[str, Any]]] = {}
    for file in project.files:
        releases.setdefault(file.version, []).append(_describe_file(file, base))
    answer: dict[str, Any] = {
        "info": _describe_release(project, version, metadata, base),
        "last_serial": project.serial,
        "urls": releases[version],
        "vulnerabilities": [],
    }
    if status := pages.describe_status(project):
        answer["project-status"] = status
    return answer | {"releases": releases} if with_releases else answer


def _describe_release(project: Project, version: str, metadata: CoreMetadata | None, base: str) -> dict[str, Any]:
    files = [file for file in project.files if file.version == version]
    found = metadata or CoreMetadata(project.display_name, version)
    url = f"{base}project/{project.name}/"
    return {
        "name": found.name,
        "version": version,
        "summary": found.summary,
        "description": found.description,
        "description_content_type": found.description_content_type,
        "author": found.author,
        "author_email": found.author_email,
        "maintainer": found.maintainer,
        "maintainer_email": found.maintainer_email,
        "license": found.license,
        "license_expression": found.license_expression,
        "license_files": _list(found.license_files),
        "keywords": found.keywords,
        "home_page": found.home_page,
        "download_url": found.download_url,
        "project_urls": dict(found.project_urls) or None,
        "classifiers": list(found.classifiers),
        "platform": ", ".join(found.platforms) or None,
        "requires_dist": _list(found.requires_dist),
        "requires_python": found.requires_python,
        "provides_extra": _list(found.provides_extra),
        "dynamic": _list(found.dynamic),
        "package_url": url,
        "project_url": url,
        "release_url": f"{url}{quote(version, safe='')}/",
        "yanked": all(file.yanked for file in files),
        "yanked_reason": next((file.yanked_reason for file in files if file.yanked), None),
        "docs_url": None,
        "bugtrack_url": None,
        "downloads": {"last_day": -1, "last_month": -1, "last_week": -1},
    }


def _list(values: Sequence[str]) -> list[str] | None:
    return list(values) if values else None


def _describe_file(file: Listed, base: str) -> dict[str, Any]:
    moment = format_time(file.upload_time) if file.upload_time else None
    digests = _digests(file)
    return {
        "filename": file.filename,
        "packagetype": file.kind.value,
        "python_version": _python_version(file),
        "digests": digests,
        "md5_digest": digests.get("md5"),
        "size": file.size,
        "upload_time": moment[:19] if moment else None,
        "upload_time_iso_8601": moment,
        "url": file_url(file, base),
        "requires_python": file.requires_python,
        "yanked": file.yanked,
        "yanked_reason": file.yanked_reason,
        "has_sig": file.has_signature,
        "core-metadata": pages.core_metadata(file),
        "comment_text": "",
        "downloads": -1,
    }


def _digests(file: Listed) -> dict[str, str]:
    if not isinstance(file, File):
        return pages.hashes(file)
    return {"md5": file.digests.md5, "sha256": file.digests.sha256, "blake2b_256": file.digests.blake2b_256}


def _python_version(file: Listed) -> str:
    return file.filename.removesuffix(".whl").split("-")[-3] if file.kind is Kind.WHEEL else "source"


def routes(index: Index, gate: Gate, *, private: bool) -> list[BaseRoute]:
    endpoint = ProjectJson(index, gate, private=private)
    paths = ("/pypi/{project}/json", "/pypi/{project}/{version}/json", "/{project}/json")
    return [Route(path, endpoint, methods=["GET"]) for path in paths]
