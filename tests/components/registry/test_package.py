import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data.images import decode
from components.errors import DataError
from components.evaluation.scores import model_digest
from components.models.checkpoint import load_model
from components.models.generation import answer
from components.registry import package
from components.registry.digest import folder_digest
from components.registry.package import run, write_package
from components.step import Step
from tests.components.registry.conftest import scores_of

QUESTION = "What colour is the circle?"


def picture(seed=0):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="session")
def loaded(packaged, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(packaged, copy)
    return mlflow.pyfunc.load_model(str(copy))


def test_the_step_writes_a_package_with_everything_and_no_pickle(project):
    run(Step.open("package"))
    found = files(project / "out/package/data")
    assert {"MLmodel", "README.md", "conda.yaml", "python_env.yaml", "requirements.txt", "served_model.py"} <= set(found)
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {Path(n).name for n in found if n.startswith("artifacts/model/")}
    assert {"code/stockpot_vlm/checkpoint.py", "code/stockpot_vlm/decode.py", "code/stockpot_vlm/vlm.py"} <= set(found)
    assert "code/stockpot_vlm/build.py" not in found
    assert {Path(n).suffix for n in found} == {"", ".json", ".md", ".py", ".safetensors", ".txt", ".yaml"}
    assert found["artifacts/model/model.safetensors"] == (project / "out/soup/data/model.safetensors").read_bytes()
    assert b"0.500 (0.450 to 0.550)" in found["README.md"]
    assert not any(str(project) in str(getattr(m, "__file__", "")) for m in sys.modules.values())  # nothing of the try-out stays
    assert not any(str(project) in p for p in sys.path)


def test_two_packagings_are_byte_identical_wherever_they_happen(models, packaged, tmp_path, monkeypatch):
    (tmp_path / "uv.lock").write_text("version = 1\n")  # MLflow would take these along
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    monkeypatch.chdir(tmp_path)
    write_package(models[0], scores_of(0.5, model_digest(models[0])), "tiny", tmp_path / "elsewhere")
    assert files(tmp_path / "elsewhere") == files(packaged)
    assert folder_digest(tmp_path / "elsewhere") == folder_digest(packaged)


def test_a_model_directory_of_links_is_packaged_as_files(models, packaged, tmp_path):
    (tmp_path / "linked").mkdir()
    for file in models[0].iterdir():  # as DVC checks out with cache.type symlink
        (tmp_path / "linked" / file.name).symlink_to(file)
    write_package(tmp_path / "linked", scores_of(0.5, model_digest(models[0])), "tiny", tmp_path / "p")
    assert folder_digest(tmp_path / "p") == folder_digest(packaged)


def test_no_trace_of_place_or_time_is_in_a_package(models, packaged):
    texts = b"".join(data for name, data in files(packaged).items() if not name.endswith((".safetensors", "tokenizer.json")))
    for trace in (str(models[0]), str(packaged), str(Path.cwd()), "/tmp", "/home", "file://", "+cpu"):
        assert trace.encode() not in texts, trace


def test_another_model_or_other_scores_make_another_package(models, packaged, tmp_path):
    write_package(models[1], scores_of(0.5, model_digest(models[1])), "tiny", tmp_path / "model")
    write_package(models[0], scores_of(0.6, model_digest(models[0])), "tiny", tmp_path / "scores")
    digests = [folder_digest(f) for f in (packaged, tmp_path / "model", tmp_path / "scores")]
    uuids = [mlflow.models.Model.load(str(f / "MLmodel")).model_uuid for f in (packaged, tmp_path / "model", tmp_path / "scores")]
    assert len(set(digests)) == len(set(uuids)) == 3


def test_loading_a_package_does_not_change_its_digest(packaged, tmp_path):
    shutil.copytree(packaged, tmp_path / "p")
    (tmp_path / "p/code/stockpot_vlm/__pycache__").mkdir()
    (tmp_path / "p/code/stockpot_vlm/__pycache__/vlm.cpython-311.pyc").write_bytes(b"x")
    assert folder_digest(tmp_path / "p") == folder_digest(packaged)


def test_answers_are_those_of_the_model_for_bytes_base64_data_urls_and_paths(models, loaded, tmp_path):
    data = picture()
    (tmp_path / "picture.png").write_bytes(data)
    text = base64.b64encode(data).decode()
    ways = [data, text, f"data:image/png;base64,{text}", str(tmp_path / "picture.png"), None, ""]
    answers = loaded.predict(pd.DataFrame({"image": ways, "question": [QUESTION] * 6}), params={"max_new_tokens": 6})
    model, processor = load_model(models[0])
    with_picture, without = answer(model, processor, [decode(data, 10**6), None], [QUESTION] * 2, max_new_tokens=6, batch=16)
    assert answers == [with_picture] * 4 + [without] * 2
    assert loaded.predict(pd.DataFrame({"question": [QUESTION]}), params={"max_new_tokens": 6}) == [without]


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        (picture(), None, "row 1: question: expected text"),
        (picture(), "  ", "row 1: question: expected text"),
        (b"no picture", QUESTION, "row 1: image: no picture in one of the formats"),
        (picture()[:200], QUESTION, "row 1: image: the picture is cut off"),
        ("no/such/file.png", QUESTION, "row 1: image: 'no/such/file.png' is no file and no base64 text"),
        ("x" * 5000, QUESTION, "row 1: image"),
        (7, QUESTION, "row 1: image: expected bytes, base64 text or a path, got int"),
    ],
)
def test_bad_input_is_named_by_its_row(loaded, image, question, message):
    with pytest.raises(Exception, match=message):
        loaded.predict(pd.DataFrame({"image": pd.Series([picture(), image], dtype=object), "question": ["Fine?", question]}))


def test_a_scoring_server_reads_no_paths(loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("__pyfunc_model_path__", "somewhere")  # as `mlflow models serve` does
    (tmp_path / "picture.png").write_bytes(picture())
    with pytest.raises(ValueError, match="row 0: image"):
        loaded.predict(pd.DataFrame({"image": [str(tmp_path / "picture.png")], "question": [QUESTION]}))


OUTSIDE = """
import builtins, io, json, socket, sys
sys.path[:] = [p for p in sys.path if p not in json.loads(sys.argv[2])]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
def no_network(*a, **k): raise OSError("no network in this test")
socket.socket.connect = no_network
import pandas as pd, mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
answers = model.predict(pd.DataFrame({"image": [sys.argv[3]], "question": ["What colour is the circle?"]}), params={"max_new_tokens": 6})
loaded = [m for m in sys.modules if m.partition(".")[0] in ("components", "flows", "tasks")]
try:
    import components
    loaded.append("importable")
except ImportError:
    pass
sys.stdout.write(json.dumps({"answers": answers, "loaded": loaded, "ours": sorted(m for m in sys.modules if m.startswith("stockpot_vlm"))}))
"""


def predict_outside(uri, image, cwd, **environment):
    """Loads `uri` and asks one question in a process that can not import this repository and has no network."""
    root = Path(package.__file__).parents[2]
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")} | environment
    command = [sys.executable, "-I", "-B", "-c", OUTSIDE, uri, json.dumps([str(root)]), image]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_scores_of_another_model_are_refused(project):
    (project / "out/evaluate/scores.json").write_text(json.dumps(scores_of(0.5, "another")))
    with pytest.raises(DataError, match=r"scores\.json: model_digest: the scores are of another model"):
        run(Step.open("package"))


@pytest.mark.parametrize(("file", "content"), [("evaluate/scores.json", "{"), ("soup/data/config.json", "{"), ("soup/data/model.safetensors", None)])
def test_damaged_inputs_are_refused_with_a_sentence(project, file, content):
    if content is None:
        (project / "out" / file).unlink()
    else:
        (project / "out" / file).write_text(content)
    with pytest.raises(DataError, match="run the steps soup and evaluate again"):
        run(Step.open("package"))


def test_digest_refuses_a_missing_and_an_empty_folder_and_a_link_to_nowhere(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        folder_digest(tmp_path / "x")
    with pytest.raises(DataError, match="empty"):
        folder_digest(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="link that leads to no file"):
        folder_digest(tmp_path)
