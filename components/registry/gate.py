"""The gate: may this model become champion? A pure function of two sets of scores and the recipe's `gate` section."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from components.errors import DataError
from components.recipe.gate import Gate

RULE = "overall-1"
"""Name of the rule below; a changed rule gets a new name, so that old verdicts are not taken for its verdicts."""


@dataclass(frozen=True)
class Verdict:
    """`promoted`, and one sentence that says why or why not."""

    promoted: bool
    reason: str


def policy_digest(gate: Gate) -> str:
    """SHA-256 of the rule's name and its settings (hex)."""
    return hashlib.sha256(json.dumps([RULE, gate.model_dump(mode="json")], sort_keys=True).encode()).hexdigest()


def overall(scores: Mapping[str, Any]) -> float:
    """The overall score of a `scores.json`, 0 to 1. Raises DataError when there is none or it is no such number."""
    value = scores.get("overall")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise DataError(f"scores.json: overall: expected a number from 0 to 1, got {value!r}: run the step evaluate again")
    return float(value)


def judge(scores: Mapping[str, Any], champion: Mapping[str, Any] | None, gate: Gate) -> Verdict:
    """The new overall score must be at least `minimum`, and exceed the champion's by more than `margin`. A tie is refused.

    Both are `scores.json` documents of the reporting split; `champion` is None when there is no champion yet.
    Decimal arithmetic on the written numbers: 0.8 does not exceed 0.7 by more than 0.1. Raises DataError for scores without an overall.
    """
    new, minimum = _exact(overall(scores)), _exact(gate.minimum)
    if new < minimum:
        return Verdict(False, f"overall {_show(new)} is below the gate's minimum of {_show(minimum)}")
    if champion is None:
        return Verdict(True, f"overall {_show(new)}: the first champion")
    old, margin = _exact(overall(champion)), _exact(gate.margin)
    note = _differently(scores, champion)
    if new > old + margin:
        return Verdict(True, f"overall {_show(new)} is better than the champion's {_show(old)}{note}")
    if new > old:
        return Verdict(False, f"overall {_show(new)} is better than the champion's {_show(old)}, but not by more than the margin of {_show(margin)}{note}")
    how = "equals" if new == old else "is worse than"
    return Verdict(False, f"overall {_show(new)} {how} the champion's {_show(old)}{note}")


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _show(value: Decimal) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _differently(scores: Mapping[str, Any], champion: Mapping[str, Any]) -> str:
    """Says so when the two were not measured in the same way; the verdict stays, a reader must know."""
    keys = [k for k in ("split", "ruleset", "judge", "counted", "weights") if scores.get(k) != champion.get(k)]
    if sorted(scores.get("benchmarks", {})) != sorted(champion.get("benchmarks", {})):
        keys.append("benchmarks")
    return f" (measured differently: {', '.join(keys)})" if keys else ""
