"""Runtime profiles: what is in the repository is valid, what is wrong is named with its remedy."""

from pathlib import Path

import pytest

from components.errors import RecipeError
from components.profile import Profile
from components.runtime import load_runtime

ROOT = Path(__file__).parents[2]
CLUSTER = f"launch: kubernetes\ncluster:\n  image: r/s@sha256:{'12' * 32}\n"


@pytest.mark.parametrize("path", sorted((ROOT / "infra/profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_profiles_of_the_repository_are_valid(path: Path) -> None:
    assert isinstance(load_runtime(str(path)).for_step(), Profile)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("paralel_units: 2\n", r"paralel_units: unknown key; did you mean parallel_units\?"),
        (CLUSTER + "  name_space: x\n", r"cluster.name_space: unknown key; did you mean namespace\?"),
        (CLUSTER + "  requests: {train: {gpu: 8}}\n", "cluster.requests.train.gpu: unknown key"),
        (CLUSTER + "  requests: {training: {gpus: 8}}\n", "unknown: training: a kind of stage is one of default, draw, "),
        (CLUSTER + "  requests: {train: {gpus: 8}}\n", "a training pod gets 8 GPUs for 1 processes: one process per GPU"),
        (CLUSTER + "  requests: {train: {memory: lots}}\n", "cluster.requests.train.memory: .*'lots'"),
        ("launch: kubernetes\ncluster: {image: stockpot:latest}\n", "stockpot:latest: name the image by its digest"),
        ("launch: kubernetes\n", "cluster: to be given with `launch: kubernetes`"),
        ("launch: [kubernetes\n", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_file_key_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(RecipeError, match=words) as raised:
        load_runtime(str(tmp_path / "p.yaml"))
    assert str(raised.value).startswith(str(tmp_path / "p.yaml"))
