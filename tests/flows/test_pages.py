"""What one sees of a finished run, in a real browser: report.html and card.html, its page in Prefect, its pages in MLflow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright

from components.tracking.store import client
from tests.conftest import Ended, Project, free_port

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SECONDS = 60_000

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    with sync_playwright() as p:
        context = p.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": 1400, "height": 1000}
        )
        context.set_default_timeout(SECONDS)
        expect.set_options(timeout=SECONDS)
        yield context
        context.close()


@pytest.fixture
def page(browser: BrowserContext) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def is_drawn(picture: Locator) -> bool:
    """Whether the browser could decode a picture; it may have to scroll there first."""
    picture.scroll_into_view_if_needed()
    return picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth > 0)")


def test_the_report_is_whole_on_a_desk_and_a_phone_by_day_and_night(page: Page, finished: tuple[Project, Ended]) -> None:
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(request.url.split(":")[0]))
    page.goto((finished[0].root / "out/evaluate/report.html").as_uri())
    for heading in ("Candidates and soup", "By language", "By kind of question", "By benchmark", "Does it look?", "Would more time help?", "Confusions"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.locator(".big")).to_have_text(f"{finished[1].line['scores']['soup']['overall']:.3f}")
    pictures = page.locator("img").all()
    assert len(pictures) >= 12
    assert all(is_drawn(picture) for picture in pictures)
    assert page.locator("polyline").count() >= 3
    for width in (1400, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert brightness(page, "light") > 200 > 60 > brightness(page, "dark")
    assert said == []
    assert asked == {"file"}


def test_the_data_card_is_whole_on_a_desk_and_a_phone_by_day_and_night(page: Page, finished: tuple[Project, Ended]) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((finished[0].root / "out/curate/card.html").as_uri())
    for heading in ("Step by step", "By source", "By language", "By category", "Decontamination", "Scores and lengths", "Answers", "Kept", "Quarantine"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    data = finished[1].line["data"]
    expect(page.get_by_text(f"{data['rows_kept']} of {data['rows_in']} rows are kept")).to_be_visible()
    pictures = page.locator("img").all()
    assert len(pictures) >= 12
    assert all(is_drawn(picture) for picture in pictures)
    assert page.locator("line.mark").count() >= 2  # thresholds of perplexity, by language
    for width in (1400, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert brightness(page, "light") > 200 > 60 > brightness(page, "dark")
    assert said == []


def brightness(page: Page, scheme: Literal["light", "dark"]) -> float:
    """Of the page's background, 0 to 255."""
    page.emulate_media(color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.strip("rgb()").split(",")) / 3


def test_the_flow_runs_page_tells_the_story(page: Page, finished: tuple[Project, Ended], prefect_server: dict[str, str]) -> None:
    line = finished[1].line
    api = prefect_server["PREFECT_API_URL"]
    request = urllib.request.Request(f"{api}/artifacts/filter", b'{"artifacts": {"key": {"any_": ["summary"]}}}', {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        (flow_run,) = {a["flow_run_id"] for a in json.load(reply) if line["run_id"] in a["data"]}
    page.goto(f"{api.removesuffix('/api')}/runs/flow-run/{flow_run}")
    verdict = f"{line['registry']['name']} version {line['registry']['version']} is champion"
    expect(page.get_by_text(verdict).first).to_be_visible()  # in the log, which the page opens with
    page.get_by_text("Artifacts", exact=True).click()
    page.get_by_text("summary", exact=True).first.click()
    expect(page.get_by_text(verdict).first).to_be_visible()
    for step in line["steps"]:
        expect(page.get_by_role("row").filter(has=page.get_by_text(step["name"], exact=True)).get_by_text("ran", exact=True)).to_be_visible()
    scores = page.get_by_role("row").filter(has=page.get_by_text("soup", exact=True)).first
    expect(scores).to_contain_text(f"{line['scores']['soup']['overall']:.3f}")
    assert is_drawn(page.get_by_alt_text("scores of soup and candidates"))
    report = page.get_by_role("link", name="report", exact=True).get_attribute("href") or ""
    assert f"/runs/{line['run_id']}/artifacts/report.html" in report
    card = page.get_by_role("link", name="data card", exact=True).get_attribute("href") or ""
    assert f"/runs/{line['run_id']}/artifacts/card.html" in card


@pytest.fixture(scope="module")
def mlflow(finished: tuple[Project, Ended], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server over a copy of the finished run."""
    project, port = finished[0].copy(tmp_path_factory.mktemp("served") / "project"), free_port()
    home = project.root / ".stockpot"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (home / "mlflow.log").open("w") as log:
        server = subprocess.Popen([*command, "--workers", "1"], cwd=project.root, env=env, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health", server, home / "mlflow.log")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(480):
        try:
            urllib.request.urlopen(address, timeout=2)
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
    raise AssertionError(log.read_text())


def test_mlflow_shows_report_verdict_metrics_tables_machine_and_curves(page: Page, finished: tuple[Project, Ended], mlflow: str) -> None:
    line = finished[1].line
    registry = line["registry"]
    page.goto(f"{mlflow}/#/models/{registry['name']}/versions/{registry['version']}")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report of its evaluation").click()
    shown = opened.value.frame_locator("iframe")
    expect(shown.get_by_role("heading", name="accuracy of the soup")).to_be_visible()
    assert all(is_drawn(picture) for picture in shown.locator("img").all()[:3])
    run = opened.value.url.split("/artifacts/")[0]
    assert run.endswith(line["run_id"])
    opened.value.close()

    page.goto("about:blank")
    page.goto(run)
    expect(page.get_by_text(f"{registry['name']} version {registry['version']} is champion").first).to_be_visible()
    for metric in ("overall", "candidates/a", "languages/en", "kinds/shape", "benchmarks/shuffled"):
        expect(page.get_by_role("link", name=metric, exact=True)).to_be_visible()
    for artifact, says in (("scores_table.json", "kinds/color"), ("steps.json", "instruct-a"), ("params.yaml", "Compiled by")):
        page.goto("about:blank")
        page.goto(f"{run}/artifacts/{artifact}")
        expect(page.get_by_text(says).first).to_be_visible()
    expect(page.get_by_text("dvc.lock", exact=True)).to_be_visible()

    runs = client(mlflow)
    parent = runs.get_run(line["run_id"])
    assert parent.data.metrics["system/cpu_utilization_percentage"] > 0
    (vision,) = runs.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and tags.`stockpot.step` = 'vision'")
    assert {"loss", "lr", "samples_per_second", "tokens_per_second", "seconds"} <= set(vision.data.metrics)
    assert vision.data.params["stages.vision.lr"] == "0.002"
    assert {d.dataset.name for d in vision.inputs.dataset_inputs} >= {"out/curate/data", "out/llm/data"}
    page.goto("about:blank")
    page.goto(f"{mlflow}/#/experiments/{parent.info.experiment_id}/runs/{vision.info.run_id}/model-metrics")
    expect(page.get_by_text("vision (loss)")).to_be_visible()
