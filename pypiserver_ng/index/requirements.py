"""Requirements files and requirements as they are typed: what of them an index can answer, as one list of lines.

Whatever leads elsewhere is named and left out: other indexes, repositories, URLs, directories.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from pypiserver_ng.errors import Invalid

_MOST_NESTED = 20
#: Where other files and directories are named, and what counts elsewhere only.
_NESTED = {"-r": False, "--requirement": False, "-c": True, "--constraint": True}
_DROPPED = {"-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--trusted-host"}
_DROPPED_FLAGS = {"--no-index"}
_EDITABLE = {"-e", "--editable"}
#: What installers understand, and what changes nothing of where files come from.
_KEPT = {"--pre", "--prefer-binary", "--require-hashes", "--no-binary", "--only-binary"}
_OPTION = re.compile(r"\A(?P<flag>--?[a-z][a-z-]*)(?:\s*=\s*|\s+|(?<=\A-[a-z]))?(?P<value>.*)\Z", re.DOTALL)
_COMMENT = re.compile(r"(?:\A|\s+)#.*\Z")
_HASH = re.compile(r"\s--(?:hash|config-settings?|global-option)[\s=].*\Z", re.DOTALL)


@dataclass(slots=True)
class Requirements:
    """Lines for an installer's requirements file and constraints file, and what is not in them."""

    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not any(not line.startswith("-") for line in self.lines)


def check_requirement(text: str) -> str:
    """A requirement as somebody typed it. Raises Invalid."""
    try:
        requirement = None if _leads_elsewhere(text) else Requirement(text)
    except InvalidRequirement:
        raise Invalid(f"{text[:100]!a} is not a requirement: write it like 'demo>=1,<2' or 'demo[extra]'") from None
    # "fl@sk" is the project "fl" from the address "sk".
    if requirement is None or requirement.url is not None:
        raise Invalid(f"{text[:100]!a} is not a project of an index: name projects, such as 'demo>=1'")
    return str(requirement)


def read_requirements(path: Path) -> Requirements:
    """A requirements file with those that it names. Raises Invalid."""
    found = Requirements()
    _read(path, found, is_constraint=False, depth=0)
    return found


def _read(path: Path, found: Requirements, *, is_constraint: bool, depth: int) -> None:
    if depth > _MOST_NESTED:
        raise Invalid(f"{path} names files that name it again: remove one of them")
    for line in _split(_read_text(path)):
        if not line.startswith("-"):
            _add(line, found, is_constraint=is_constraint)
            continue
        option = _OPTION.match(line)
        flag, value = (option["flag"], option["value"].strip()) if option else (line, "")
        if flag in _NESTED:
            if "://" in value:
                found.left_out.append(f"{line}: a file from elsewhere")
            else:
                _read(path.parent / value, found, is_constraint=is_constraint or _NESTED[flag], depth=depth + 1)
        elif flag in _DROPPED or flag in _DROPPED_FLAGS:
            # The value may hold a password.
            found.left_out.append(f"{flag}: everything comes from the upstreams of this index")
        elif flag in _EDITABLE:
            found.left_out.append(f"{line}: not of an index")
        elif flag in _KEPT:
            found.lines.append(f"{flag} {value}".strip())
        else:
            raise Invalid(f"{path} has an option that is not understood here: {flag}; remove it")


def _add(line: str, found: Requirements, *, is_constraint: bool) -> None:
    bare = _HASH.sub("", line)
    if _leads_elsewhere(bare):
        found.left_out.append(f"{_without_credentials(bare)}: not of an index")
        return
    try:
        requirement = Requirement(bare)
    except InvalidRequirement as fault:
        raise Invalid(f"{bare[:100]!a} is not a requirement: {str(fault).splitlines()[0]}") from None
    if requirement.url is not None:
        found.left_out.append(f"{bare}: not of an index")
        return
    (found.constraints if is_constraint else found.lines).append(line)


def _leads_elsewhere(text: str) -> bool:
    name = re.split(r"[\s;]", text.strip(), maxsplit=1)[0]
    return (
        "://" in text or "/" in name or name.startswith(".") or " @ " in text or name.endswith((".whl", ".gz", ".zip"))
    )


def _without_credentials(text: str) -> str:
    return re.sub(r"(://)[^/@\s]*@", r"\1", text)


def _split(text: str) -> Iterator[str]:
    """Logical lines, without comments."""
    joined = ""
    for line in text.splitlines():
        line = "" if line.lstrip().startswith("#") else line
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        if logical := _COMMENT.sub("", joined + line).strip():
            yield logical
        joined = ""
    if logical := _COMMENT.sub("", joined).strip():
        yield logical


def _read_text(path: Path) -> str:
    return read_bytes(path).decode("utf-8-sig", errors="replace")


def read_bytes(path: Path) -> bytes:
    """Raises Invalid."""
    try:
        return path.read_bytes()
    except OSError as fault:
        raise Invalid(f"cannot read the requirements in {path}: {fault.strerror}") from None


def combine_requirements(typed: Sequence[str], files: Sequence[Requirements]) -> Requirements:
    """All of them at once, so that they are resolved together. Raises Invalid."""
    found = Requirements([check_requirement(text) for text in typed])
    for one in files:
        found.lines += one.lines
        found.constraints += one.constraints
        found.left_out += one.left_out
    return found
