"""Templates of pages, which lie beside the modules that fill them in."""

from __future__ import annotations

from pathlib import Path

import jinja2


def template(path: Path) -> jinja2.Template:
    """The template in a file: values are escaped, and one that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)
