"""The model card: what a person who meets the package should know."""

from collections.abc import Mapping
from typing import Any

CARD = """# stockpot-{name}

A vision-language model: give it a picture and a question, it answers in a few words. Made by the Stockpot recipe `{name}`;
composition as in POINTS1.5 (arXiv 2412.08443): a Qwen2-VL vision tower, a 2x2 patch-merging projector, a Qwen2 language model.

## Scores

Free greedy generation on the split `{split}`, answers read by rule set `{ruleset}`, judge `{judge}`. Overall: **{overall}**.

{benchmarks}
{candidates}
## How to load

```python
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model("models:/stockpot-{name}@champion")  # or the path of this folder
model.predict(pd.DataFrame({{"image": ["picture.png"], "question": ["What colour is the circle?"]}}))
```

`image`: the bytes of a picture file, its base64 text, or a path (not in a scoring server); missing for a question without a picture.
Nothing of the Stockpot repository is needed: `requirements.txt` lists the packages, `code/` holds the model's code, the weights are safetensors.

## Limits

It knows what its training data showed and no more, can be wrong with confidence, and was measured on nothing but the benchmarks above.

Model digest: `{model_digest}`
"""


def card(name: str, scores: Mapping[str, Any]) -> str:
    """Markdown for the recipe `name` and the content of its scores.json."""
    rows = ["| benchmark | score | 95 % interval | questions |", "|---|---|---|---|"]
    rows += [
        f"| {key} | {_number(b.get('value'))} | {_interval(b.get('ci95'))} | {b.get('n', '')} |" for key, b in sorted(scores.get("benchmarks", {}).items())
    ]
    overall = f"{_number(scores.get('overall'))} ({_interval(scores.get('overall_ci95'))})"
    others = [f"| {key} | {_number(c.get('overall'))} |" for key, c in sorted(scores.get("candidates", {}).items())]
    candidates = "\n".join(["", "The candidates that were souped:", "", "| candidate | overall |", "|---|---|", *others, ""]) if others else ""
    known = {key: scores.get(key, "unknown") for key in ("split", "ruleset", "judge", "model_digest")}
    return CARD.format(name=name, overall=overall, benchmarks="\n".join(rows), candidates=candidates, **known)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(value: Any) -> str:
    return "-" if value is None else f"{value[0]:.3f} to {value[1]:.3f}"
