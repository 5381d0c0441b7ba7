"""The reference page says what the code does."""

from pathlib import Path

from components.data.canonical import SCHEMA
from components.data.images import FORMATS
from components.data.quarantine import REASONS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "data.md"


def test_the_page_names_every_reason_column_and_format():
    text = PAGE.read_text(encoding="utf-8")
    table = text.split("| reason |")[1]
    assert [line.split("| ") for line in table.splitlines() if line.startswith("| `")] == [["", f"`{c}` ", f"{s} |"] for c, s in REASONS.items()]
    assert all(f"`{name}`" in text for name in SCHEMA.names)
    assert all(form in text.upper() for form in FORMATS)
