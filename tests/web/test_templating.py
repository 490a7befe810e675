"""The pages for people: what they say, that strangers' words stay words, and that a README cannot do harm."""

import re
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest

from pypiserver_ng.web import templating
from pypiserver_ng.web.templating import Templates, render_description, render_welcome

_EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}"
_VOID = frozenset(("meta", "link", "input", "br", "hr", "img", "rect", "path"))


class Reader(HTMLParser):
    """What a browser would make of a page: its tags with attributes, its text, and whether the tags balance."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(attribute)) is not None]


def _project(word: str) -> dict[str, Any]:
    when = datetime(2026, 7, 11, 9, 30, tzinfo=UTC)
    file = {
        "filename": f"{word}-1.0.tar.gz",
        "url": "../../packages/acme-1.0.tar.gz#sha256=ab",
        "size": 48_211,
        "sha256": "ab" * 32,
        "when": when,
        "requires_python": word,
        "kind": word,
        "yanked": True,
        "yanked_reason": word,
    }
    release = {
        "version": word,
        "summary": word,
        "requires_python": word,
        "description": render_description(word, "text/plain"),
        "author": word,
        "license": word,
        "keywords": word,
        "classifiers": [word],
        "project_urls": [(word, "https://acme.example/")],
        "requires_dist": [word],
    }
    versions = [
        {"version": word, "url": f"../../project/acme/{number}/", "current": number == 0, "yanked": True, "when": when}
        for number in range(20)
    ]
    return {
        "project": {"name": "acme", "display_name": word},
        "release": release,
        "versions": versions,
        "files": [file],
        "status": word,
        "shadow": word,
        **_server(word),
    }


def _server(word: str) -> dict[str, Any]:
    return {"simple_url": f"http://{word}/simple/", "host": word, "plain_http": True, "url": f"http://{word}/"}


def _home(word: str) -> dict[str, Any]:
    return {
        "projects": 1,
        "files": 1412,
        "may_list": True,
        "recent": [_hit(word)],
        "uploads": "credentials",
        "has_passwords": True,
        "sees_all": True,
        "fallbacks": [word],
        "has_mirror": False,
        "reserved": [word, word],
        "clients": [{"name": word, "what": word, "text": word}] * 2,
        **_server(word),
    }


def _hit(word: str) -> dict[str, Any]:
    when = datetime(2026, 7, 11, tzinfo=UTC)
    return {"name": "acme", "display_name": word, "version": word, "summary": word, "when": when}


def _search(word: str) -> dict[str, Any]:
    return {"q": word, "results": [_hit(word)], "total": 230, "truncated": True}


def _error(word: str) -> dict[str, Any]:
    return {"status": 404, "title": word, "message": word}


_PAGES = {"home.html": _home, "project.html": _project, "search.html": _search, "error.html": _error}


def _render(name: str, word: str = "acme", base: str = "../../", **changed: Any) -> Reader:
    context = {"base": base, "version": "1.2.3", **_PAGES[name](word), **changed}
    return Reader(Templates().render(name, **context))


@pytest.mark.parametrize("name", _PAGES)
def test_hostile_words_stay_words(name: str) -> None:
    """Markup in any value is shown as it was written and becomes no tag, attribute or template expression."""
    page = _render(name, _EVIL)
    tags = {tag for tag, _ in page.tags}
    assert {"script", "style", "img", "iframe"} & tags == set()
    assert [key for _, attributes in page.tags for key in attributes if key.startswith("on") or key == "style"] == []
    assert _EVIL in page.text


@pytest.mark.parametrize("name", _PAGES)
@pytest.mark.parametrize("word", ("acme", _EVIL))
def test_every_page_is_whole(name: str, word: str) -> None:
    """Tags balance, ids are unique, landmarks are there, and every fragment and label points at something."""
    page = _render(name, word)
    ids = page.values("id")
    tags = [tag for tag, _ in page.tags]
    assert page.unbalanced == []
    assert sorted(set(ids)) == sorted(ids)
    assert [tags.count(tag) for tag in ("header", "main", "footer", "h1", "title")] == [1] * 5
    pointed = [link[1:] for link in page.values("href") if link.startswith("#")]
    assert "main" in pointed
    assert set(pointed + page.values("for") + page.values("aria-labelledby")) <= set(ids)


@pytest.mark.parametrize("name", _PAGES)
@pytest.mark.parametrize("base", ("./", "../../", ""))
def test_links_stay_below_any_prefix(name: str, base: str) -> None:
    """No link, form or resource is absolute, except what the project itself names and the icon, which is data."""
    page = _render(name, base=base)
    addresses = page.values("href") + page.values("src") + page.values("action")
    assert f"{base}-/style.css" in addresses
    assert f"{base}-/search" in addresses
    assert "" not in addresses
    outside = [a for a in addresses if a.startswith(("/", "//")) or re.match(r"[a-z]+:", a)]
    assert {a for a in outside if not a.startswith("data:image/svg+xml,")} <= {"https://acme.example/"}


def test_a_missing_value_is_a_fault() -> None:
    """A page is never sent with a hole in it."""
    with pytest.raises(jinja2.UndefinedError, match="message"):
        Templates().render("error.html", base="./", version="1", status=404, title="x")


@pytest.mark.parametrize(
    ("host", "plain_http", "expected"),
    (
        ("pkgs.example", True, True),
        ("192.0.2.7", True, True),
        ("pkgs.example", False, False),
        ("localhost", True, False),
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("[::1]", True, False),
        ("::1", True, False),
    ),
)
@pytest.mark.parametrize("name", ("home.html", "project.html"))
def test_trusted_host_only_where_pip_needs_it(name: str, host: str, plain_http: bool, expected: bool) -> None:
    """Plain HTTP is refused by pip except on loopback; only then is it told to trust the host."""
    assert expected == (f"--trusted-host {host}" in _render(name, host=host, plain_http=plain_http).text)


def test_home_page_configures_clients_for_this_url() -> None:
    """The blocks to copy carry the URL by which the reader came."""
    text = _render("home.html", url="https://p.example/x/", simple_url="https://p.example/x/simple/").text
    for line in (
        "pip install --index-url https://p.example/x/simple/",
        "uv pip install --default-index https://p.example/x/simple/",
        "twine upload --repository-url https://p.example/x/ dist/*",
        "uv publish --publish-url https://p.example/x/",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("changed", "present", "absent"),
    (
        ({"has_passwords": False}, "without a password file", "--username YOU"),
        ({"uploads": "open"}, "No credentials are needed", "Uploads need"),
        ({"uploads": "credentials"}, "--username YOU", "No credentials"),
        ({"fallbacks": []}, "there is no fallback", "comes from"),
        ({"fallbacks": ["https://mirror.example/simple/"]}, "https://mirror.example/simple/", "no fallback"),
        ({"fallbacks": ["https://one.example/", "https://two.example/"], "has_mirror": True}, "or else", "comes from"),
        ({"reserved": []}, "comes from", "Never asked"),
        ({"reserved": ["acme-*", "corp-*"]}, "acme-*,\ncorp-*.", "no fallback"),
        ({"may_list": False, "sees_all": False, "recent": []}, "needs credentials", "1,412 files"),
        ({"sees_all": False}, "What you may see", "1,412 files"),
        ({"recent": [], "projects": 0}, "Nothing is here yet", "All projects"),
    ),
)
def test_home_page_says_what_this_server_does(changed: dict[str, Any], present: str, absent: str) -> None:
    """Each setting that a visitor meets has its sentence, and the opposite sentence is not there."""
    text = _render("home.html", **changed).text
    assert present in text
    assert absent not in text


def test_project_page_pins_the_version_it_shows() -> None:
    """What is copied installs what is read, and a project whose files carry no version is not pinned."""
    context = _project("1.0")
    assert "acme==1.0\n" in _render("project.html", **context).text
    context["release"]["version"] = ""
    assert "acme==" not in _render("project.html", **context).text


@pytest.mark.parametrize(
    ("size", "expected"),
    (
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**2, "5.0 MiB"),
        (1024**3, "1.0 GiB"),
        (2048 * 1024**3, "2048.0 GiB"),
    ),
)
def test_sizes_are_readable(size: int, expected: str) -> None:
    """Bytes become the largest unit that leaves a whole one."""
    assert expected == templating._filesize(size)


def test_dates_are_utc() -> None:
    """A day is named in UTC whatever the zone of the value, and programs get the second."""
    when = datetime(2026, 7, 11, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert templating._date(when) == '<time datetime="2026-07-10T23:30:00Z">2026-07-10</time>'


@pytest.mark.parametrize(
    ("text", "content_type", "expected"),
    (
        ("*a* `b`", "text/markdown", "<em>a</em> <code>b</code>"),
        ("~~a~~", "text/markdown; charset=UTF-8; variant=GFM", "<del>a</del>"),
        ("~~a~~", "text/markdown; variant=CommonMark", "<p>~~a~~</p>"),
        ("~~a~~", "text/markdown; variant=unknown", "<del>a</del>"),
        ("*a* ``b``", "text/x-rst", "<em>a</em>"),
        ("*a* ``b``", None, "<em>a</em>"),
        ("*a*", "text/plain", "<pre>*a*</pre>"),
        ("*a*", "application/x-unknown", "<pre>*a*</pre>"),
        ("*a*", "text/markdown\r\nx: y", "<pre>*a*</pre>"),
        ("*a*", "\x00;;=\udcff", "<pre>*a*</pre>"),
        ("`broken <rst\n====", None, "<pre>`broken &lt;rst\n====</pre>"),
        ("![a chart](https://i.example/c.svg)", "text/markdown", "<p>a chart</p>"),
        ('![<script>x</script>"](https://i.example/c.svg)', "text/markdown", "&lt;script&gt;x&lt;/script&gt;"),
        ("[a](https://a.example)", "text/markdown", '<a href="https://a.example" rel="nofollow noopener">a</a>'),
        ("a \udcff", "text/plain", "<pre>a \udcff</pre>"),
        ("a \udcff", "text/markdown", "<p>a ?</p>"),
    ),
)
def test_descriptions_render_by_their_type(text: str, content_type: str | None, expected: str) -> None:
    """The core metadata's types and variants; what does not render is shown as written; images show their text."""
    assert expected in render_description(text, content_type)


@pytest.mark.parametrize("content_type", ("text/markdown", "text/x-rst", "text/plain"))
@pytest.mark.parametrize(
    "text",
    (
        _EVIL,
        "[x](javascript:alert(1)) <a href='javascript:alert(1)'>x</a> `x <javascript:alert(1)>`_",
        "<h1 id=main style='position:fixed' onclick=alert(1)>x</h1><form action=//e.example><button>x</button></form>",
        "<iframe src=//e.example></iframe><svg onload=alert(1)><style>*{display:none}</style><base href=//e.example>",
        ".. raw:: html\n\n   <script>alert(1)</script>\n\n.. include:: /etc/hostname\n",
        "![x\" onerror=alert(1) y=\"](x) <img alt='<script>alert(1)</script>' src=x>",
        "<a title='<img alt=\"<script>alert(1)</script>\">' href=x>x</a>",
    ),
)
def test_descriptions_do_no_harm(text: str, content_type: str) -> None:
    """No script, no style, no form, no image, no foreign scheme and no anchor of our page, in any type."""
    page = Reader(render_description(text, content_type).encode())
    tags = {tag for tag, _ in page.tags}
    assert tags & {"script", "style", "form", "button", "iframe", "svg", "img", "base", "object"} == set()
    assert {key for _, attributes in page.tags for key in attributes} <= {"href", "rel", "id", "title", "class"}
    assert [link for link in page.values("href") if link.lower().startswith("javascript")] == []
    assert "main" not in page.values("id")


@pytest.mark.parametrize(
    ("text", "content_type"),
    (
        pytest.param("x" * (templating.MAX_DESCRIPTION + 1), "text/markdown", id="too long"),
        pytest.param("|a" * 500 + "|\n" + "|-" * 500 + "|\n" + "|b|\n" * 5000, "text/markdown", id="25 MB of cells"),
        pytest.param("".join("  " * depth + "* x\n\n" for depth in range(300)), "text/x-rst", id="300 lists deep"),
    ),
)
def test_descriptions_that_ask_too_much_are_shown_as_written(text: str, content_type: str) -> None:
    """Size, amplification and nesting end in plain text, not in an error and not in the server's memory."""
    assert render_description(text, content_type).startswith("<pre>")


def test_a_rendering_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock ends what the processor limit does not, and the text is shown as written."""
    monkeypatch.setattr(templating, "_SECONDS", 0.001)
    assert render_description("*never rendered before*", "text/markdown") == "<pre>*never rendered before*</pre>"


def test_no_process_to_be_had_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full process table shows the text as written once, and the next reader gets it rendered."""
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/nonexistent/python")
        assert render_description("*later*", "text/markdown") == "<pre>*later*</pre>"
    assert "<em>later</em>" in render_description("*later*", "text/markdown")


def test_no_setting_of_this_machine_opens_files_to_a_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docutils.conf where the server was started does not let a description include files."""
    (tmp_path / "docutils.conf").write_text("[general]\nfile_insertion_enabled: yes\n")
    (tmp_path / "secret.txt").write_text("hunter2")
    monkeypatch.chdir(tmp_path)
    assert "hunter2" not in render_description(".. include:: secret.txt\n", "text/x-rst")


@pytest.mark.parametrize(
    ("template", "expected"),
    (
        ("<a href='{{URL}}'>{{ NUMPKGS }}</a>", "<a href='https://h/?a=1&amp;b'>7</a>"),
        ("{{VERSION}} {{\tPACKAGES }} {{SIMPLE}}", "{{URL}} &lt;p&gt; s"),
        ("% import os\n  % end\n%%\r\n", "% import os\n  % end\n%%\r\n"),
        ("{{x}} {{!URL}} {{URL.x}} {{ 7*7 }} {% raw %} {URL}", "{{x}} {{!URL}} {{URL.x}} {{ 7*7 }} {% raw %} {URL}"),
        ("{{{URL}}}", "{https://h/?a=1&amp;b}"),
        ("{{url}} é", "{{url}} é"),
    ),
)
def test_own_home_page_replaces_five_names_and_nothing_else(template: str, expected: str) -> None:
    """Values are escaped and not expanded again; code lines and unknown names stay as they are."""
    values = {"URL": "https://h/?a=1&b", "VERSION": "{{URL}}", "NUMPKGS": 7, "PACKAGES": "<p>", "SIMPLE": "s"}
    assert expected == render_welcome(template, values).decode()


def _palettes(style: str) -> list[dict[str, str]]:
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    return [light, dark]


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2, from relative luminances."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_stylesheet_is_small_and_fetches_nothing() -> None:
    """Under 8 KB, and without an address in it."""
    style = Templates().stylesheet().decode()
    assert len(style) < 8192
    assert re.findall(r"url\(|@import|https?:|//", style) == []


@pytest.mark.parametrize("scheme", (0, 1), ids=("light", "dark"))
@pytest.mark.parametrize("colour", ("ink", "muted", "accent", "warn", "literal", "keyword"))
@pytest.mark.parametrize("ground", ("paper", "raised"))
def test_text_is_readable_in_both_schemes(scheme: int, colour: str, ground: str) -> None:
    """WCAG 2.2, 1.4.3: text has a contrast ratio of at least 4.5 to 1."""
    palette = _palettes(Templates().stylesheet().decode())[scheme]
    assert _contrast(palette[colour], palette[ground]) >= 4.5
    assert _contrast(palette["on-accent"], palette["accent"]) >= 4.5


@pytest.mark.parametrize(
    "content_type", ('text/markdown; x="' + ";" * 400_000, "text/markdown; variant*" + "9" * 5000 + "=x", ";;;", "=")
)
def test_a_hostile_content_type_is_read_at_once(content_type: str) -> None:
    """Whatever stands in it, the description is shown."""
    assert "words" in render_description("words", content_type)


def test_a_description_does_not_dress_up_as_ours() -> None:
    """The highlighters' classes stay, those of our own notes do not."""
    rendered = render_description('<p class="note">ours?</p>\n\n```python\nimport os\n```\n', "text/markdown")
    assert "note" not in rendered
    assert "ours?" in rendered
    assert "class=" in rendered
