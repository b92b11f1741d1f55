"""Pages that are complete in themselves: a template with its own style and script, and nothing from any network."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from soundguide.sheet_cards import decimal


def render_page(name: str, *, also_styled_as: str = "", **values: object) -> str:
    """Return the page of the template ``name``, with its CSS and JavaScript inside.

    ``also_styled_as``: another template, whose CSS comes first.
    """
    folder = files("soundguide") / "templates"
    html, style, script = ((folder / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    if also_styled_as:
        style = (folder / f"{also_styled_as}.css").read_text(encoding="utf-8") + style
    environment = jinja2.Environment(
        autoescape=True, finalize=_harmless, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["decimal"] = decimal
    return environment.from_string(html).render(
        **values,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        # Only these two texts may style or run: markup that slipped past the escaping would still be dead.
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )


def _harmless(value: Any) -> Any:
    """Escape what is no markup yet, and break up the ``//`` of addresses, so that nothing looks like a link."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(str(escape(value)).replace("//", "&#47;&#47;"))  # noqa: S704 - escaped in this line


def _csp_hash(text: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")  # noqa: S704 - base64 is safe
