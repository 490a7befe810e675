"""`[[access]]` and `[groups]`: what the file says becomes grants, or one line that says what to change."""

import tomllib

import pytest

from pypiserver_ng.config import Config, build_config
from pypiserver_ng.errors import Invalid
from pypiserver_ng.model import Grant, Right

ENTRY = '[[access]]\nwho = ["alice"]\nprojects = ["acme-*"]\nmay = ["list"]\n'


def configure(toml: str) -> Config:
    return build_config({}, {}, tomllib.loads(toml), lambda file: file)


def test_entries() -> None:
    """In their order; groups are spelled out, patterns are in normal form."""
    config = configure(
        """
        [groups]
        ci = ["bot1", "token:deploy"]
        [[access]]
        who = ["alice", "@ci", "anyone", "publisher:git.example:acme/core"]
        projects = ["Acme_*", "other"]
        may = ["list", "download", "upload", "create", "yank", "delete"]
        [[access]]
        who = ["bob"]
        projects = ["*"]
        may = []
        """
    )
    who = frozenset({"alice", "bot1", "token:deploy", "anyone", "publisher:git.example:acme/core"})
    assert config.grants == (
        Grant("[[access]] number 1 (acme-*, other)", who, ("acme-*", "other"), frozenset(Right)),
        Grant("[[access]] number 2 (*)", frozenset({"bob"}), ("*",), frozenset()),
    )


@pytest.mark.parametrize(
    ("toml", "says"),
    (
        ('access = "x"', "'access' in the configuration file must be tables that begin with [[access]]"),
        ("[access]", "must be tables that begin with [[access]]"),
        (ENTRY.replace("who", "whom"), "[[access]] number 1 in the configuration file: unknown key 'whom'"),
        (ENTRY.replace("projects", "project"), "unknown key 'project': did you mean 'projects'?"),
        (ENTRY.replace('may = ["list"]', ""), "'may' is missing"),
        (ENTRY.replace('["list"]', '["lst"]'), "'may' holds 'lst'"),
        (ENTRY.replace('["list"]', '"list"'), "'may' must be a list of texts"),
        (ENTRY.replace('["alice"]', "[]"), "'who' must be a list of texts"),
        (ENTRY.replace('["alice"]', "[1]"), "'who' must be a text of one line"),
        (ENTRY.replace('["alice"]', '["@cj"]') + "[groups]\nci = ['a']", "unknown group 'cj'"),
        (ENTRY.replace('["alice"]', '["a:b"]'), "must hold users, 'token:NAME', 'publisher:NAME' or 'anyone'"),
        (ENTRY.replace('["alice"]', '["token:"]'), "not 'token:'"),
        (ENTRY.replace('["acme-*"]', '["a b"]'), "'projects' must be a project name or pattern"),
        ("groups = 1", "'groups' in the configuration file must be a table"),
        ("[groups]\nci = 'a'", "[groups] in the configuration file: 'ci' must be a list of texts"),
        ("[groups]\nci = ['@other']", "a group has no groups in it"),
        ("[groups]\n'@ci' = ['a']", "'@ci' is no name of a group"),
    ),
)
def test_faults(toml: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        configure(toml)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("toml", "needed"),
    (
        ("", [Right.UPLOAD]),
        ('authenticate = "list"', [Right.LIST]),
        (ENTRY, [Right.LIST, Right.DOWNLOAD, Right.UPLOAD]),
        (ENTRY.replace("alice", "anyone").replace("acme-", ""), [Right.DOWNLOAD, Right.UPLOAD]),
    ),
)
def test_what_needs_credentials(toml: str, needed: list[Right]) -> None:
    """With entries they alone decide; what not everybody may see is private."""
    config = configure(toml)
    assert [right for right in (Right.LIST, Right.DOWNLOAD, Right.UPLOAD) if config.needs_credentials(right)] == needed
