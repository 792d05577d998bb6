"""Custom pages, from a Jinja2 template or a static file. Both are loaded at start-up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Final

from ..exceptions import ConfigurationError
from .content import Content
from .renderers import RenderedBody

_TYPE: Final = (b"content-type", b"text/html; charset=utf-8")

Page = Callable[[Content], RenderedBody]
"""A function that renders the content as HTML."""


def read_file(path: str | PathLike[str]) -> Page:
    """Load a static page. Raises `ConfigurationError` if it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"file={str(path)!r} cannot be read: {error.strerror}.") from error
    body = RenderedBody(content, (_TYPE, (b"vary", b"accept")))
    return lambda _: body


def read_template(path: str | PathLike[str]) -> Page:
    """Load a Jinja2 template, which may extend and include templates in its directory.

    Its variables are `title`, `message`, `ends_at` (a datetime in UTC, or `None`), `mode`,
    `language` and `translation`; they are escaped. Raises `ConfigurationError` if it cannot be read
    or rendered, or without Jinja2.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ConfigurationError(
            "template= needs Jinja2: pip install 'fastapi-maintenance-cluster[jinja2]'. "
            "A page without variables can be given as file=."
        ) from error
    where = Path(path)
    environment = Environment(
        loader=FileSystemLoader(where.parent),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
    )
    with _naming(where):
        template = environment.get_template(where.name)

    def render(content: Content) -> RenderedBody:
        with _naming(where):
            page = template.render(
                title=content.title,
                message=content.message,
                ends_at=content.ends_at,
                mode=content.state.mode,
                language=content.language,
                translation=content.translation,
            )
        return RenderedBody(page.encode(), (_TYPE, (b"vary", b"accept, accept-language")))

    return render


@contextmanager
def _naming(template: Path) -> Iterator[None]:
    """Name the template in errors of it, which may be of any kind."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        sentence = f"template={str(template)!r} cannot be used: {reason}."
        raise ConfigurationError(sentence) from error
