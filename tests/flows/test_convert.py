import json

import pytest

from flows.cli import app
from tests.components.weights.conftest import layout_b, model, own, processor

__all__ = ["layout_b", "model", "own", "processor"]


def test_convert_says_what_it_wrote_and_how_it_was_tested(layout_b, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app(["convert", "A", str(layout_b), "a", "--json"], result_action="return_value")
    line = json.loads(capsys.readouterr().out)
    assert (line["from"], line["to"], line["target"], line["tensors"]) == ("B", "A", "a", line["tensors_bit_equal"])
    app(["convert", "stockpot", "a", "own", "--dtype", "float32"], result_action="return_value")
    assert "layout stockpot of a (layout A)" in capsys.readouterr().out
    with pytest.raises(Exception, match="exists already"):
        app(["convert", "A", "own", "a"], result_action="return_value")
