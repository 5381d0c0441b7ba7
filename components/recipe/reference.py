"""docs/reference/recipe.md from the schema: every section and key of a recipe, its type, bounds, default and meaning.

Written anew by `python -m components.recipe.reference > docs/reference/recipe.md`; a test fails when the page is stale.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import StringConstraints

from components.recipe.base import Name
from components.recipe.recipe import Recipe

INTRO = """# Recipe

Generated from the schema in `components/recipe/`; do not edit. After a change there:
`python -m components.recipe.reference > docs/reference/recipe.md`

A recipe is one flat YAML 1.2 file (`1e-5` is a number). It holds what changes the result. Unknown keys are refused.
Machine, threads, precision and storage are not in it: see [how it works](../how-it-works.md#runtime-profile).
`--set key.key=value` overrides a key, the value in YAML. `stockpot recipe show RECIPE` prints a recipe with every default filled in,
`stockpot recipe check RECIPE` checks it. In the headings below, NAME is a name of your choice: lower-case letters, digits and `_`, a letter first.
"""

RULES = """## Rules across keys

Checked with the rest, before any work:

- A stage without `init_from` starts from the stage before it. The first one, and one with `init_from: null`, starts from random weights and a tokenizer
  trained on its own rows.
- `init_from` names an earlier stage.
- The last stage has objective `lm`: it is souped and evaluated.
- Only the last stage may have `candidates`.
- A candidate may not change `objective` or `init_from`: a soup needs a common start.
- A stage with objective `text` trains the group `llm` alone; one with objective `contrastive` not the `connector`, with `template: plain` and `batch.samples`.
- `batch.max_tokens` is at most `model.context`.
- A `batch` gives exactly one of `samples` and `packs`, a `schedule` exactly one of `steps` and `epochs`.
- `data.sources`, a filter's `sources` and `curation.mixture` name sources of the recipe.
- A filter's `scorer`, and a `judge` that is a name, name a stage with objective `text`,
  or `weights` where the model starts from public ones.
- Where `soup.selection` is null, `held_out.selection` is above 0; where a benchmark's `path` is null, `held_out.report` is.
  Both together leave at least 20 percent.
- At least one benchmark counts in the overall score.
- A path below `out/` needs a `draw` section.
- Names that belong to the pipeline are refused:
  stages `draw`, `ingest`, `rewrite`, `curate`, `soup`, `evaluate`, `package`, `promote`, `weights`; source `dropped`; candidate `soup`.
- `draw.min_side` is at most `draw.max_side`; `draw.withheld` leaves some pairs for training.
- Widths are multiples of their heads, `heads` of `kv_heads`; the head size of `qwen2_vl_vit` is a multiple of 4.
- `model.min_pixels` is at most `model.max_pixels`.
- `model.weights` has `whole` alone, or `llm` and maybe `vision`; it goes with `qwen2_vl_vit` and `qwen2`.
- A `source` in a bucket needs its `digest`, a name on the hub its commit or a digest.
- `model.resolution.kind` is `native` for `qwen2_vl_vit` and not for the others; `size` goes with the others, a multiple of `patch` times `merge`.
- `model.connector.pool` `none` goes with `merge` 1, the others with more; `vision.select_layer` is one of `depth`.
"""

NAME_PATTERN = next(m.pattern for m in get_args(Name) if isinstance(m, StringConstraints))
WORDS = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}

Schema = dict[str, Any]


def markdown() -> str:
    """The whole page."""
    schema = Recipe.model_json_schema()
    return "\n".join([INTRO, *_section("Recipe", "", schema, schema["$defs"]), RULES])


def _section(title: str, path: str, schema: Schema, defs: Schema) -> Iterator[str]:
    """A heading, the section's sentence, its table, then the sections below it."""
    yield f"## {title}\n\n{_prose(schema['description'])}\n"
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[str, str]] = []
    for key, field in schema["properties"].items():
        here = f"{path}.{key}" if path else key
        inner = list(_below(field, here, defs))
        below += inner
        default = "required" if key in schema.get("required", []) else f"`{json.dumps(field['default'])}`" if "default" in field else "the section's own"
        meaning = field.get("description") or (defs[inner[0][1]]["description"] if len(inner) == 1 else "which kind" if key == "kind" else "")
        rows.append(f"| `{key}` | {_cell(_type(field))} | {_cell(default)} | {_cell(meaning)} |")
    if rows[2:]:
        yield "\n".join(rows) + "\n"
    for where, name in below:
        yield from _section(f"`{where}`", where, defs[name], defs)


def _below(schema: Schema, path: str, defs: Schema) -> Iterator[tuple[str, str]]:
    """(dotted path, section) for every section that this field holds: itself, as values of a mapping, or in a list."""
    if "$ref" in schema:
        yield path, schema["$ref"].rpartition("/")[2]
    options = schema.get("anyOf", [])
    several = sum("$ref" in option for option in options) > 1
    for option in options:
        yield from _below(option, f"{path} ({option['$ref'].rpartition('/')[2].lower()})" if several and "$ref" in option else path, defs)
    if isinstance(schema.get("items"), dict):
        yield from _below(schema["items"], path, defs)
    for option in schema.get("oneOf", []):
        name = option["$ref"].rpartition("/")[2]
        yield f"{path}: {defs[name]['properties']['kind']['const']}", name
    if values := _values(schema):
        yield from _below(values, f"{path}.{'GROUP' if 'propertyNames' in schema and 'enum' in schema['propertyNames'] else 'NAME'}", defs)


def _values(schema: Schema) -> Schema | None:
    """What a mapping maps to; None when it is no mapping or says nothing about it."""
    found = next(iter(schema.get("patternProperties", {}).values()), None) or schema.get("additionalProperties")
    return found if isinstance(found, dict) else None


def _type(schema: Schema) -> str:
    """A short phrase: `integer > 0`, `a` or `b`, list of names."""
    if "$ref" in schema:
        return "section"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "oneOf" in schema:
        return "section by `kind`"
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{v}`" for v in schema.get("enum", [schema.get("const")]))
    return _plain_type(schema)


def _plain_type(schema: Schema) -> str:
    """Lists, mappings, names and numbers with their bounds."""
    if "prefixItems" in schema:
        return f"[{', '.join(_type(item) for item in schema['prefixItems'])}]"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if schema["type"] == "object":
        keys, values = _type(schema["propertyNames"]) if "enum" in schema.get("propertyNames", {}) else "NAME", _values(schema)
        least = ", at least one" if schema.get("minProperties") else ""
        return f"mapping {keys}: {_type(values) if values and '$ref' in values else 'keys'}{least}"
    if schema.get("pattern") == NAME_PATTERN:
        return "NAME"
    bounds = [f"{sign} {schema[key]}" for key, sign in BOUNDS.items() if key in schema]
    return " ".join([WORDS[schema["type"]], ", ".join(bounds)]).strip()


def _prose(text: str) -> str:
    """One line in which `<name>` outside of code is no HTML."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if i % 2 else re.sub(r"<(?=[a-z/])", "&lt;", part) for i, part in enumerate(parts))


def _cell(text: str) -> str:
    """Prose that may stand in a table."""
    return _prose(text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(markdown())
