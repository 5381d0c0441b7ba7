"""dvc.yaml -> units with every hash that does not depend on another unit; and what of them is done already."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import RecipeError
from components.pipeline.bundle import CODE, Bundle
from components.pipeline.content import Content
from components.pipeline.identity import Record, completed, run_key


@dataclass(frozen=True)
class Unit:
    """One stage, ready to run anywhere."""

    stage: str
    entry: dict[str, Any]
    """Its entry of dvc.yaml."""
    after: tuple[str, ...]
    """The stages whose outputs it reads."""
    spec: Record
    """Its lock entry, as far as it is known: cmd, deps, params, outs (paths)."""

    def bundle(self, upstream: dict[str, Record]) -> Bundle:
        """The whole unit, once the stages before it are done."""
        planned = completed(self.spec, {a: upstream[a] for a in self.after})
        return Bundle(run_key(planned), self.stage, self.entry, planned)

    def identity(self, upstream: dict[str, Record]) -> str:
        """Run-cache key, once the stages before it are done."""
        return self.bundle(upstream).identity

    def inputs(self, upstream: dict[str, Record]) -> dict[str, str]:
        """Data input path -> md5."""
        return self.bundle(upstream).inputs


@dataclass(frozen=True)
class Plan:
    """All units of a recipe in topological order, over one snapshot of the code."""

    units: dict[str, Unit]
    snapshot: Path

    def done(self, content: Content) -> dict[str, Record]:
        """Records of all that is finished already. A stage after an unfinished one has no identity yet, hence is not done."""
        found: dict[str, Record] = {}
        for name, unit in self.units.items():
            if all(a in found for a in unit.after) and (record := content.lookup(unit.identity(found))):
                found[name] = record
        return found


def make_plan(folder: Path, code_root: Path, content: Content, snapshot: Path, revised: Mapping[str, str] | None = None) -> Plan:
    """Plans the compiled recipe in `folder` (params.yaml, dvc.yaml).

    Code is copied from `code_root` to `snapshot` once, so that an edit meanwhile changes nothing; other inputs are looked
    for in the DVC project, hashed by DVC and put in its cache; `revised` has the md5 of those that are taken from an earlier
    revision instead. Raises DataError for an input that is nowhere.
    """
    from dvc.utils.serialize import load_yaml

    stages: dict[str, Any] = load_yaml(str(folder / "dvc.yaml"))["stages"]
    maker = {path: name for name, entry in stages.items() for path in _outs(entry)}
    data = {d for e in stages.values() for d in e["deps"] if d not in maker and not d.startswith(CODE)}
    hashes = {d: (revised or {}).get(d) or _data_md5(content, d) for d in sorted(data)}
    for file in sorted({d for e in stages.values() for d in e["deps"] if d.startswith(CODE)}):
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(code_root / file, snapshot / file)
        hashes[file] = hashlib.md5((snapshot / file).read_bytes(), usedforsecurity=False).hexdigest()
    content.push([hashes[d] for d in data])
    units = {name: _unit(name, entry, maker, hashes, folder) for name, entry in stages.items()}
    return Plan({name: units[name] for name in _topological(units)}, snapshot)


def _unit(name: str, entry: dict[str, Any], maker: dict[str, str], hashes: dict[str, str], folder: Path) -> Unit:
    deps = [{"path": d} if d in maker else {"path": d, "hash": "md5", "md5": hashes[d]} for d in sorted(entry["deps"])]
    spec = {"cmd": entry["cmd"], "deps": deps, "params": {"params.yaml": read_params(folder, entry["params"])}, "outs": sorted(_outs(entry))}
    after = tuple(sorted({maker[d] for d in entry["deps"] if d in maker}))
    return Unit(name, entry, after, spec)


def read_params(folder: Path, keys: list[str]) -> dict[str, Any]:
    """Declared parameters as DVC itself reads them, sorted by key. Raises RecipeError for a key that is not there."""
    from dvc.dependency.param import read_param_file
    from dvc_objects.fs.local import localfs

    values = read_param_file(localfs, str(folder / "params.yaml"), keys, flatten=True)
    if absent := sorted(set(keys) - set(values)):
        raise RecipeError(f"{folder / 'params.yaml'}: {', '.join(absent)}: declared in dvc.yaml and missing here: run `stockpot use RECIPE` again")
    return dict(sorted(values.items()))


def _outs(entry: dict[str, Any]) -> list[str]:
    items = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    return [i if isinstance(i, str) else next(iter(i)) for i in items]


def _data_md5(content: Content, path: str) -> str:
    """What is in the checkout counts, as for `dvc repro`; what is tracked and not here is known by its .dvc file."""
    if not (content.root / path).exists() and (md5 := content.tracked(path)):
        return md5
    return content.add(content.root / path)


def _topological(units: dict[str, Unit]) -> list[str]:
    from graphlib import TopologicalSorter

    return list(TopologicalSorter({n: u.after for n, u in units.items()}).static_order())
