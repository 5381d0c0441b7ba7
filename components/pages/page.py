"""Templates to pages. They extend `page.html.jinja`, the look that all pages share, and may use the macros of `page.macros.html.jinja`.

What is put in is other people's text: all of it is escaped, and a page forbids itself scripts and the network.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: Any) -> str:
    """The page that a template makes of these values. Same values, same text."""
    loader = FileSystemLoader([template.parent, Path(__file__).parent])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template.name).render(**values)
