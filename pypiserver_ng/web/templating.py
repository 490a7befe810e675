"""Values become the bytes of pages for people. Knows no request, no index and no route.

A README is the one text here that strangers write and that we turn into markup. The renderers are native code
that holds the interpreter's lock, and 44 KB of Markdown can ask them for gigabytes and minutes; so they run in a
process of their own with limits, and this file is also that process's program.
"""

import functools
import html
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

#: A description above this many characters, or rendered above this many bytes, is shown as plain text.
MAX_DESCRIPTION = 512 * 1024
_MAX_RENDERED = 1024 * 1024

#: What one rendering may take: seconds of processor and of clock, bytes of memory. A usual one takes 0.2 s and 40 MB.
_CPU_SECONDS = 5
_SECONDS = 10
_MEMORY = 512 * 1024 * 1024

_KINDS = {"bdist_wheel": "wheel", "sdist": "source", "bdist_egg": "egg", "bdist_wininst": "installer"}
#: As the sanitiser writes them: lower case, every value in double quotes.
_IMAGE = re.compile(r'<img(?: [a-z]+="[^"]*")*>')
_ALT = re.compile(r' alt="([^"]*)"')
_LONGEST_CONTENT_TYPE = 200
#: Classes that the highlighters write.
_HIGHLIGHT = re.compile(r"code|highlight|language-[\w+#-]+|[a-z]{1,2}[0-9a-z]?")
_WELCOME_NAME = re.compile(r"\{\{\s*(URL|VERSION|NUMPKGS|PACKAGES|SIMPLE)\s*\}\}")


class Templates:
    """The pages in `templates/`. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._directory = _directory()
        self._environment = Environment(
            loader=FileSystemLoader(self._directory),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {"filesize": _filesize, "date": _date, "kind": _kind}
        self._environment.tests["loopback"] = _is_loopback
        # Now, so that no page depends on a file that can be opened later.
        for name in self._environment.list_templates(extensions=["html"]):
            self._environment.get_template(name)

    def render(self, name: str, /, **context: object) -> bytes:
        """The page as UTF-8. Raises `jinja2.UndefinedError` where the context lacks a name the page asks for."""
        return self._environment.get_template(name).render(context).encode("utf-8", "replace")

    def stylesheet(self) -> bytes:
        return (self._directory / "style.css").read_bytes()


def render_description(text: str, content_type: str | None) -> Markup:
    """A project's long description as safe markup; what does not render is shown as it was written. Never raises.

    Takes a thread: a description not seen lately costs the start of a process.
    """
    if len(text) <= MAX_DESCRIPTION:
        try:
            rendered = _rendered(text, _renderer(content_type))
        except OSError:  # no process to be had just now: not a property of the text, so not remembered
            rendered = None
        if rendered is not None:
            return Markup(rendered)  # noqa: S704 - nh3 has cleaned it
    return Markup("<pre>{}</pre>").format(text)


def render_welcome(template_text: str, values: Mapping[str, object]) -> bytes:
    """The user's own home page as UTF-8: five names are replaced, escaped, in one pass; all else stays as it is."""
    return _WELCOME_NAME.sub(lambda found: str(escape(values[found[1]])), template_text).encode("utf-8", "replace")


def _directory() -> Path:
    """The wheel carries the templates inside the import package; in a checkout they are its sibling."""
    inside = Path(__file__).resolve().parents[1] / "templates"
    return inside if inside.is_dir() else inside.parents[1] / "templates"


def _filesize(size: int) -> str:
    """Bytes in the largest unit that leaves at least one whole, e.g. `14 B`, `1.5 KiB`."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if round(value, 1) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"


def _date(when: datetime) -> Markup:
    """The day in UTC, with the second for programs. A naive time would be a fault of the caller."""
    moment = when.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{moment:%Y-%m-%dT%H:%M:%SZ}", moment.date().isoformat())


def _kind(kind: str) -> str:
    return _KINDS.get(kind, kind)


def _is_loopback(host: str) -> bool:
    """Whether pip trusts plain HTTP to this host without being told to."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _renderer(content_type: str | None) -> str:
    """Which renderer a Description-Content-Type asks for: `rst`, `GFM`, `CommonMark` or `plain`.

    Core metadata: without a type "applications should attempt to render it as text/x-rst; charset=UTF-8"; and if the
    variant "is not specified or is set to an unrecognized value, then applications should assume […] GFM".
    """
    if not content_type:
        return "rst"
    # A general parser of such headers takes time in the square of what strangers write.
    kind, *parameters = (part.strip() for part in content_type[:_LONGEST_CONTENT_TYPE].split(";"))
    match kind.lower():
        case "text/markdown":
            variants = [value.strip().strip('"') for name, _, value in _pairs(parameters) if name == "variant"]
            return "CommonMark" if variants == ["CommonMark"] else "GFM"
        case "text/x-rst":
            return "rst"
    return "plain"


def _pairs(parameters: list[str]) -> list[tuple[str, str, str]]:
    return [(name.strip().lower(), mark, value) for name, mark, value in (part.partition("=") for part in parameters)]


@functools.lru_cache(maxsize=32)
def _rendered(text: str, renderer: str) -> str | None:
    """Markup from the process with limits, or None where it gave none. Raises OSError where none could start."""
    if renderer == "plain" or not text.strip():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and file, and one of three words
            # -P: this file's neighbours must not pass for modules of the standard library.
            [sys.executable, "-P", __file__, renderer],
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
            # A docutils.conf of this machine could allow a README to include files.
            env=os.environ | {"DOCUTILSCONFIG": ""},
        )
    except subprocess.SubprocessError:
        return None
    return done.stdout.decode()


def _limit_this_process() -> None:
    """Where the system knows limits; elsewhere the clock alone ends a rendering."""
    try:
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, OSError, ValueError):
        pass


def _only_our_anchors(_tag: str, attribute: str, value: str) -> str | None:
    """The renderers prefix the anchors they make; one that a stranger wrote could stand for a part of our page.

    The same goes for our own classes: a README must not dress up as one of our notes.
    """
    if attribute == "id" and not value.startswith(("user-content-", "fn-", "fnref-")):
        return None
    if attribute == "class" and not all(_HIGHLIGHT.fullmatch(name) for name in value.split()):
        return None
    return value


def _image_text(image: re.Match[str]) -> str:
    found = _ALT.search(image[0])
    return html.escape(html.unescape(found[1])) if found else ""


def _render_and_clean(text: str, renderer: str) -> str | None:
    import nh3  # noqa: PLC0415 - only the process with limits pays for these
    from readme_renderer import markdown, rst  # noqa: PLC0415
    from readme_renderer.clean import ALLOWED_ATTRIBUTES, ALLOWED_TAGS  # noqa: PLC0415

    rendered = rst.render(text) if renderer == "rst" else markdown.render(text, variant=renderer)
    if rendered is None:
        return None
    # The page's content security policy keeps images of other hosts out: their text stands for them.
    return nh3.clean(
        _IMAGE.sub(_image_text, rendered),
        tags=ALLOWED_TAGS - {"img"},
        attributes=ALLOWED_ATTRIBUTES,
        attribute_filter=_only_our_anchors,
        link_rel="nofollow noopener",
        url_schemes={"http", "https", "mailto"},
        set_tag_attribute_values={"input": {"disabled": ""}},
    )


def _answer_parent() -> None:
    """Standard input becomes markup on standard output; every other outcome is a failing exit."""
    _limit_this_process()
    rendered = _render_and_clean(sys.stdin.buffer.read().decode(), sys.argv[1])
    content = rendered.encode() if rendered else b""
    if not content or len(content) > _MAX_RENDERED:
        sys.exit(1)
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    _answer_parent()
