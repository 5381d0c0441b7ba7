"""Is each picture decoded once, how much do the filters cost besides, and are the bytes the same for any number of workers and both engines?

Photo-like JPEGs of 512 x 384 pixels (gradients under noise, quality 85) with captions; one in a hundred comes again, as it is or packed harder.
`decode_ratio` is of the filters that look: validity, size, near duplicates (thumbnails and MinHash), length, blocklist. `decode_ratio_all` has exact
duplicates (a digest of all pixels) and the decontamination (another perceptual hash, runs of words) besides; everything else runs all of them.
Baselines from the same run: reading the same shards and decoding alone, shard by shard in turns with the operators, medians over shards; and HF
`datasets.map(num_proc=2)` with the same operators. That library is no dependency: `uv pip install --target FOLDER --no-deps datasets dill
multiprocess`, then `--datasets FOLDER`; without it `hf_ratio` is null.
data-juicer is not compared: its wheel lacks a package and installs others, CUDA among them, when an operator is first used.
"""

import argparse
import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image, ImageFilter
from pyarrow.parquet import ParquetFile
from ruamel.yaml import YAML

from benchmarks.project import Project, scratch
from benchmarks.result import record
from components.curation.facts import row_facts
from components.curation.filter import RowFilter
from components.curation.filters import filters_of
from components.curation.row import Row
from components.curation.shard_engine import find
from components.data.canonical import QUARANTINE_SCHEMA, SCHEMA, ShardWriter, read_batches, shards, write_parquet
from components.profile import Profile
from components.recipe.curation import Curation
from components.step import Step

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 512, 384
SHARD_ROWS = 4096
SOURCE = "photos"
FILTERS_OF_ROWS = [
    {"kind": "image_validity"},
    {"kind": "image_size", "min_side": 64, "max_aspect": 10},
    {"kind": "text_length", "min": 3, "max": 200},
    {"kind": "blocklist", "words": ["lorem ipsum", "click here", "buy now"], "hosts": ["example.com"]},
    {"kind": "exact_duplicates"},
    {"kind": "near_duplicates"},
]
RUNS: dict[str, dict[str, Any]] = {
    "one worker": {"data_workers": 1},
    "one worker again": {"data_workers": 1},
    "two workers": {"data_workers": 2},
    "ray, two workers": {"data_workers": 2, "data_engine": "ray"},
}


class Photos:
    """Pictures cut from large fields of soft colours, blurred detail and grain; each cut is another picture."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.fields = [self._field() for _ in range(6)]

    def _field(self, side: int = 1600) -> Image.Image:
        soft = Image.fromarray(self.rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        detail = Image.fromarray(self.rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(2))
        field = Image.blend(soft, detail.resize((side, side), Image.Resampling.BICUBIC), 0.35)
        grain = self.rng.normal(0, 5, (side, side, 1))
        return Image.fromarray(np.clip(np.asarray(field) + grain, 0, 255).astype(np.uint8))

    def one(self) -> Image.Image:
        """A new picture."""
        field = self.fields[self.rng.integers(len(self.fields))]
        x, y = (int(self.rng.integers(size - length)) for size, length in ((field.width, WIDTH), (field.height, HEIGHT)))
        return field.crop((x, y, x + WIDTH, y + HEIGHT))


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """The file of a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def rows(number: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Canonical rows: a picture and its caption of 8 to 40 words. Of a hundred, one repeats an earlier one, in turns exactly and packed harder."""
    photos, rng = Photos(seed), random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(5000)]
    earlier: list[tuple[Image.Image, str]] = []
    for i in range(number):
        again = i % 100 == 99
        image, caption = rng.choice(earlier) if again else (photos.one(), " ".join(rng.choices(words, k=rng.randint(8, 40))))
        if i % 100 < 5:
            earlier = [*earlier[-20:], (image, caption)]
        yield {
            "id": f"{i:07d}",
            "images": [{"bytes": jpeg(image, 70 if again and i % 200 == 199 else 85), "path": f"{i:07d}.jpg"}],
            "messages": [{"role": "user", "content": "<image>\nDescribe the picture."}, {"role": "assistant", "content": caption}],
            "source": SOURCE,
            "language": "en",
            "category": "caption",
            "license": "none",
            "verdicts": [],
        }


def generate(root: Path, number: int) -> None:
    """A compiled project in `root`: ingested shards, an evaluation file of 50 questions, params.yaml."""
    folder = root / f"out/ingest-{SOURCE}/data"
    with ShardWriter(folder, SHARD_ROWS) as writer:
        some: list[dict[str, Any]] = []
        for row in rows(number):
            some.append(row)
            if len(some) == 256:
                writer.add(pa.Table.from_pylist(some, schema=SCHEMA))
                some = []
        writer.add(pa.Table.from_pylist(some, schema=SCHEMA))
    write_parquet(pa.Table.from_pylist([], schema=QUARANTINE_SCHEMA), folder / "quarantine.parquet")
    with (root / "report.tsv").open("w", encoding="utf-8", newline="") as f:
        table = csv.writer(f, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "image", "question", "answer"])
        for i, row in enumerate(rows(50, seed=1)):
            table.writerow([i, base64.b64encode(row["images"][0]["bytes"]).decode(), f"What is shown in picture {i}?", "a field"])
    params = {
        "seed": 0,
        "sources": {SOURCE: {}},
        "curation": {"filters": FILTERS_OF_ROWS, "shard_rows": SHARD_ROWS},
        "evaluate": {"benchmarks": {"report": {"path": "report.tsv"}}},
    }
    with (root / "params.yaml").open("w", encoding="utf-8") as f:
        YAML().dump(params, f)


def operators() -> list[RowFilter[Any]]:
    """The filters of the project in the current directory."""
    step = Step.open("curate")
    return [f for f in filters_of(step.config("curation", Curation), step) if isinstance(f, RowFilter)]


def files() -> list[Path]:
    """The ingested shards of the project in the current directory."""
    return shards(Path(f"out/ingest-{SOURCE}/data"))


def bare(file: Path) -> int:
    """Decodes all pictures of a shard into RGB, and does nothing else; their number."""
    number = 0
    for table in read_batches(file, ["images"]):
        for batch in table.to_batches(max_chunksize=64):
            for row in batch.column("images").to_pylist():
                for image in row:
                    Image.open(io.BytesIO(image["bytes"])).convert("RGB")
                    number += 1
    return number


class Watch:
    """Looks at a process and all below it, four times a second, from now on.

    `peak_mib`: the most memory that they had at once; what they share counts once (proportional set size). `cpu_seconds`: what they have used.
    """

    def __init__(self, pid: int):
        self.peak_mib = 0.0
        self._cpu: dict[int, float] = {}
        self._before = sum(psutil.Process(pid).cpu_times()[:2])
        self._process = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values()) - self._before

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self._look()

    def _look(self) -> None:
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in [self._process, *self._process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    self._cpu[process.pid] = sum(process.cpu_times()[:2])
                    total += process.memory_full_info().pss
        self.peak_mib = max(self.peak_mib, total / 2**20)

    def stop(self) -> "Watch":
        """Ends the watch."""
        self._look()
        self._stop.set()
        self._thread.join()
        return self


def measure_operators() -> dict[str, Any]:
    """Median CPU seconds a picture, over shards, of decoding alone and of operators; in turns, in this one process."""
    every = operators()
    few = [judging for judging in every if judging.kind not in ("exact_duplicates", "decontamination")]
    work: dict[str, Callable[[Path], object]] = {
        "decoding": bare,
        "operators": lambda file: row_facts(file, SOURCE, few),
        "all": lambda file: row_facts(file, SOURCE, every),
    }
    for call in work.values():
        call(files()[-1])  # all begin warm: imports, evaluation file
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number, file in enumerate(files()):
        turn = number % len(work)
        for name in [*work][turn:] + [*work][:turn]:
            start = time.process_time()
            work[name](file)
            seconds[name].append((time.process_time() - start) / ParquetFile(file).metadata.num_rows)
    ratios = {f"{name}_ratio": median(a / b for a, b in zip(seconds["decoding"], seconds[name], strict=True)) for name in ("operators", "all")}
    return {**{name: median(found) for name, found in seconds.items()}, **ratios}


def measure_pool() -> dict[str, Any]:
    """Seconds of the operators in two workers."""
    start, watch = time.perf_counter(), Watch(os.getpid())
    found = sum(facts.num_rows for _, facts in find(dict(enumerate((f, SOURCE) for f in files())), operators(), Profile(data_workers=2)))
    return {"images": found, "seconds": time.perf_counter() - start, "cpu_seconds": watch.stop().cpu_seconds}


def measure_hf() -> dict[str, Any]:
    """Seconds of the same operators in HF `datasets.map(num_proc=2)`; making the dataset of the shards is not counted."""
    import datasets  # pyright: ignore[reportMissingImports]  # of this benchmark alone

    with tempfile.TemporaryDirectory(dir=".") as cache:
        made: Any = datasets.Dataset.from_parquet([str(f) for f in files()], cache_dir=cache, columns=list(Row.COLUMNS))
        filters = operators()

        def facts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
            shown = [Row(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]
            return {f"fact_{i}": [judging.fact(row) for row in shown] for i, judging in enumerate(filters)}

        types = datasets.Features.from_arrow_schema(pa.schema([(f"fact_{i}", judging.fact_type) for i, judging in enumerate(filters)]))
        start, watch = time.perf_counter(), Watch(os.getpid())
        options = {"batched": True, "batch_size": 64, "num_proc": 2, "remove_columns": made.column_names, "features": types}
        done = made.map(facts, cache_file_name=f"{cache}/facts.arrow", **options)
        return {"images": len(done), "seconds": time.perf_counter() - start, "cpu_seconds": watch.stop().cpu_seconds, "datasets": datasets.__version__}


MEASURES = {"operators": measure_operators, "pool": measure_pool, "hf": measure_hf}


def curate(root: Path, profile: dict[str, Any]) -> dict[str, Any]:
    """One run of the step `curate`: its seconds, its peak memory, and one digest over all files that it wrote."""
    environment = {"PYTHONPATH": str(ROOT), "STOCKPOT_UNIT_PROFILE": json.dumps(profile)}
    start = time.perf_counter()
    process = Project(root, environment).start("python", "-m", "components.steps", "curate")
    watch = Watch(process.pid)
    _, err = process.communicate()
    watch.stop()
    if process.returncode:
        raise SystemExit(f"curate failed with {profile}:\n{err[-3000:]}")
    digest = hashlib.sha256()
    for file in sorted(p for p in (root / "out/curate").rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return {"seconds": time.perf_counter() - start, "cpu_seconds": watch.cpu_seconds, "peak_mib": watch.peak_mib, "digest": digest.hexdigest()}


def measured(root: Path, what: str, packages: str = "") -> dict[str, Any]:
    """One measure, in a process of its own. Not by `-m`: workers import the main module of who starts them, and a step's is small."""
    path = os.pathsep.join(filter(None, [str(ROOT), packages]))
    program = f"from benchmarks.curation import MEASURES; import json; print(json.dumps(MEASURES[{what!r}]()))"
    return Project(root, {"PYTHONPATH": path}).run("python", "-c", program).must(f"the measure {what}").line


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 2) if isinstance(value, float) else value for key, value in values.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="rows, each with a picture (default: 20000)")
    parser.add_argument("--datasets", default="", metavar="FOLDER", help="where HF datasets is installed, if not in the environment")
    parser.add_argument("--memory", action="store_true", help="only one run of the step with two workers, for its memory")
    options = parser.parse_args(arguments)
    with scratch() as root:
        generate(root, options.rows)
        figures: dict[str, Any] = {"rows": options.rows, "picture": f"{WIDTH}x{HEIGHT}", "decode_ratio": None, "hf_ratio": None}
        baseline: dict[str, Any] = {"name": "reading the same shards and decoding alone; HF datasets.map(num_proc=2) with the same operators"}
        if not options.memory:
            alone = measured(root, "operators")
            pool = measured(root, "pool")
            figures["decode_ratio"], figures["decode_ratio_all"] = round(alone["operators_ratio"], 3), round(alone["all_ratio"], 3)
            figures["images_per_cpu_second"] = {name: round(1 / alone[name], 1) for name in ("operators", "all")}
            figures["two_workers"] = rounded({**pool, "images_per_second": pool["images"] / pool["seconds"]})
            baseline["decoding_images_per_cpu_second"] = round(1 / alone["decoding"], 1)
            if options.datasets or _has_datasets():
                hf = measured(root, "hf", options.datasets)
                baseline["hf"] = rounded({**hf, "images_per_second": hf["images"] / hf["seconds"]})
                figures["hf_ratio"] = round(hf["seconds"] / pool["seconds"], 3)
                figures["hf_cpu_ratio"] = round(hf["cpu_seconds"] / pool["cpu_seconds"], 3)
        profiles = {"two workers": RUNS["two workers"]} if options.memory else RUNS
        runs = {name: curate(root, profile) for name, profile in profiles.items()}
        counts = json.loads((root / "out/curate/counts.json").read_text(encoding="utf-8"))
    figures["kept"], figures["by_reason"] = counts["rows_kept"], counts["by_reason"]
    figures["peak_mib"] = round(max(run["peak_mib"] for name, run in runs.items() if "ray" not in name))
    figures["identical_bytes"] = len({run["digest"] for run in runs.values()}) == 1 if len(runs) > 1 else None
    figures["runs"] = {name: rounded(run) for name, run in runs.items()}
    record("curation", figures, baseline)


def _has_datasets() -> bool:
    from importlib.util import find_spec

    return find_spec("datasets") is not None


if __name__ == "__main__":
    main()
