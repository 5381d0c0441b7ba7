"""How params.yaml and dvc.yaml are written."""

import io
from typing import Any

from ruamel.yaml import YAML


def to_yaml(data: Any) -> str:
    """Canonical YAML 1.2 text, with a header that says that it is compiled."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO("# Compiled by `stockpot use RECIPE`; do not edit.\n")
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 10**6, False  # type: ignore[assignment]
    text.seek(0, io.SEEK_END)
    yaml.dump(data, text)
    return text.getvalue()
