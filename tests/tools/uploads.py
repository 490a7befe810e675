"""The smallest upload client: one POST with the fields that every real client sends."""

import httpx2

from tests.tools.distributions import Distribution


def upload(url: str, distribution: Distribution, *, name: str, version: str) -> httpx2.Response:
    """POST the distribution to the server's root `url`; the answer, whatever it is."""
    fields = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.2",
        "name": name,
        "version": version,
        "filetype": "bdist_wheel" if distribution.filename.endswith(".whl") else "sdist",
        "sha256_digest": distribution.sha256,
    }
    content = (distribution.filename, distribution.content)
    return httpx2.post(f"{url}/", data=fields, files={"content": content}, trust_env=False, timeout=60)


def remove(url: str, *, name: str, version: str) -> httpx2.Response:
    """POST pypiserver's action that removes every file of a release; the answer, whatever it is."""
    fields = {":action": "remove_pkg", "name": name, "version": version}
    return httpx2.post(f"{url}/", data=fields, trust_env=False, timeout=60)
