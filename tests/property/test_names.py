"""Names and filenames, whatever anyone calls a project or a file."""

import re
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from pypiserver_ng.config.values import parse_glob
from pypiserver_ng.errors import Invalid
from pypiserver_ng.filenames import parse_found, parse_upload, sort_key
from pypiserver_ng.model import is_project_name, normalize_name
from pypiserver_ng.policy import Origin, Policy
from tests.tools.distributions import build_sdist, build_wheel

NAMES = st.from_regex(r"\A[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9])?\Z")
VERSIONS = st.from_regex(
    r"\A(?:[1-9]!)?(?:0|[1-9][0-9]{0,3})(?:\.(?:0|[1-9][0-9]{0,3})){0,3}(?:rc[1-9])?(?:\+[a-z]{1,4})?\Z"
)
FILENAMES = st.text(st.characters(codec="utf-8"), max_size=60) | st.from_regex(
    r"\A[A-Za-z0-9._+!-]{1,40}\.(?:whl|tar\.gz|zip|egg|exe|tar\.bz2)(?:\.asc)?\Z"
)


@given(NAMES)
def test_a_name_is_normalized_once(name: str) -> None:
    """PEP 503's form is a fixed point, and every spelling of it has the same one."""
    normal = normalize_name(name)
    assert normal == re.sub(r"[-_.]+", "-", name).lower() == normalize_name(normal)
    assert is_project_name(name)
    assert normal == normalize_name(name.upper()) == normalize_name(name.replace("-", "_"))


@given(NAMES, VERSIONS)
def test_what_build_tools_name_can_be_uploaded_and_found(name: str, version: str) -> None:
    """An upload's filename means the same when the file is found in the directory later."""
    for built in (build_wheel(name, version), build_sdist(name, version)):
        parsed = parse_upload(built.filename)
        assert (parsed.name, parsed.version) == (normalize_name(name), version)
        assert parse_found(built.filename) == parsed


@given(FILENAMES)
def test_any_text_as_a_filename_is_read_or_refused(filename: str) -> None:
    """Nothing else happens, and what is read can be a URL's segment and a row's key."""
    found = parse_found(filename)
    with suppress(Invalid):
        assert parse_upload(filename) == found
    if found is not None:
        assert is_project_name(found.display_name)
        assert normalize_name(found.display_name) == found.name
        assert "/" not in filename
        assert filename.isprintable()
        sort_key(found.version)


@given(NAMES)
def test_a_reserved_name_is_reserved_in_every_spelling(name: str) -> None:
    """Whoever reserves a project may spell it as its owner does."""
    policy = Policy(reserve=[parse_glob(name)])
    assert policy.decide(normalize_name(name), is_local=False).origin is Origin.NOBODY
