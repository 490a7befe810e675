"""The smallest upload client: one POST with the fields that every real client sends."""

import hashlib

import httpx2

from tests.tools.distributions import Distribution


def upload_fields(distribution: Distribution, **changes: str | None) -> dict[str, str]:
    """The fields that twine sends for a file; `changes` replaces them, and drops those that are None."""
    name, version = distribution.filename.removesuffix(".tar.gz").removesuffix(".zip").split("-")[:2]
    fields: dict[str, str | None] = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.2",
        "name": name,
        "version": version,
        "filetype": "bdist_wheel" if distribution.filename.endswith(".whl") else "sdist",
        "sha256_digest": distribution.sha256,
        "blake2_256_digest": hashlib.blake2b(distribution.content, digest_size=32).hexdigest(),
        **{":action" if key == "action" else key: value for key, value in changes.items()},
    }
    return {key: value for key, value in fields.items() if value is not None}


def encode_upload(distribution: Distribution, **changes: str | None) -> tuple[bytes, str]:
    """A whole upload as a body, and its content type."""
    content = (distribution.filename, distribution.content)
    fields = upload_fields(distribution, **changes)
    request = httpx2.Request("POST", "http://index.test/", data=fields, files={"content": content})
    return request.read(), request.headers["content-type"]


def upload(url: str, distribution: Distribution, **changes: str | None) -> httpx2.Response:
    """POST the distribution to the server's root `url`; the answer, whatever it is."""
    content = (distribution.filename, distribution.content)
    fields = upload_fields(distribution, **changes)
    return httpx2.post(f"{url}/", data=fields, files={"content": content}, trust_env=False, timeout=60)


def remove(url: str, *, name: str, version: str) -> httpx2.Response:
    """POST pypiserver's action that removes every file of a release; the answer, whatever it is."""
    fields = {":action": "remove_pkg", "name": name, "version": version}
    return httpx2.post(f"{url}/", data=fields, trust_env=False, timeout=60)
