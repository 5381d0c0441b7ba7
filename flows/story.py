"""A run told in Markdown, for its page in Prefect and its description in MLflow. Knows nothing of Prefect."""

import base64
from typing import Any

from components.chain import Chain
from components.pipeline.identity import Record
from components.tracking.store import without_password
from flows.ending import headline, verdict_line

TRAINING = "?workflowType=machine_learning"
"""Has MLflow show a page among its pages for training, not for language-model applications."""


def description(chain: Chain, line: dict[str, Any], failures: str) -> str:
    """For MLflow, whose page has the run's name, its metrics and its pictures already."""
    links = [f"[{name}]({chain.run_page}{artifact}{TRAINING})" for name, artifact in _artifacts(line).items() if artifact.endswith(".html")]
    return "\n\n".join(p for p in (_verdict(line), ", ".join(links), _failures(failures), _scores(line), _steps(line)) if p)


def page(chain: Chain, line: dict[str, Any], failures: str, records: dict[str, Record]) -> str:
    """For Prefect: verdict, links, the plot, scores and steps."""
    parts = [f"# {chain.run_name}", _verdict(line), _failures(failures), _links(chain, line)]
    if plot := chain.plot(records):
        parts.append(f"![scores of soup and candidates](data:image/png;base64,{base64.b64encode(plot).decode()})")
    return "\n\n".join(part for part in [*parts, _scores(line), _steps(line)] if part)


def short(line: dict[str, Any]) -> str:
    """One line: the overall score and the verdict, or how far it came."""
    words = [f"soup {line['scores']['soup']['overall']:.3f}"] if line["scores"] else []
    return "; ".join([*words, verdict_line(line["registry"]) if line["registry"] else headline(line)])


def _verdict(line: dict[str, Any]) -> str:
    words = [f"Soup **{line['scores']['soup']['overall']:.3f}** overall."] if line["scores"] else []
    words += [f"**{r['name']} version {r['version']} is {r['alias'] or 'kept'}**: {r['reason']}."] if (r := line["registry"]) else []
    words += [f"{d['rows_kept']} of {d['rows_in']} rows kept, {d['quarantined']} quarantined."] if (d := line["data"]) else []
    return " ".join(words)


def _failures(sentences: str) -> str:
    """In a fence: other people's words, such as file names, are no Markdown of ours."""
    return f"**What failed**\n\n~~~text\n{sentences.replace('~~~', '~ ~ ~')}\n~~~" if sentences else ""


def _links(chain: Chain, line: dict[str, Any]) -> str:
    """To MLflow: where it is a server, or where `make ui` shows the file."""
    if not chain.run_id:
        return ""
    served = chain.tracking_uri.startswith("http")
    base = without_password(chain.tracking_uri).rstrip("/") if served else f"http://127.0.0.1:{chain.settings.mlflow_port}"
    told = [f"[{name}]({base}/{chain.run_page}{artifact}{TRAINING})" for name, artifact in {"run": "", **_artifacts(line)}.items()]
    return f"MLflow: {', '.join(told)}" + ("" if served else f" (while `make ui` runs; or `mlflow ui --backend-store-uri {chain.tracking_uri}`)")


def _artifacts(line: dict[str, Any]) -> dict[str, str]:
    """What the run's page in MLflow has: name -> path."""
    card = {"data card": "/artifacts/card.html"} if line["data"] else {}
    return card | ({"report": "/artifacts/report.html", "lock file": "/artifacts/dvc.lock"} if line["scores"] else {})


def _scores(line: dict[str, Any]) -> str:
    if not line["scores"]:
        return ""
    soup = line["scores"]["soup"]
    rows = {"soup": soup, **line["scores"]["candidates"]}
    columns = [(part, name) for part in ("languages", "kinds") for name in sorted(soup[part])]
    table = [["model", "overall", *(_text(name) for _, name in columns)]]
    table += [[_text(name), *(f"{v:.3f}" for v in [s["overall"], *(s[part][column] for part, column in columns)])] for name, s in rows.items()]
    others = ", ".join(f"{_text(name)} {value:.3f}" for name, value in soup["benchmarks"].items() if value is not None)
    return f"{_table(table)}\n\nBenchmarks: {others}"


def _steps(line: dict[str, Any]) -> str:
    return _table([["step", "state", "time"], *([s["name"], s["state"], _time(s["seconds"])] for s in line["steps"])])


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return "" if not seconds else f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{seconds:.1f} s"


def _text(name: str) -> str:
    """Kinds and languages are other people's words."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("[", "\\[")
