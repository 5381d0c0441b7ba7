"""One rank of a test, run by torchrun in a project: trains a candidate under several ZeRO stages and writes what it saw.

`python -m tests.components.training.rank NAME OUT STAGE...`
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from components.data.encode import Pictures
from components.profile import Profile
from components.step import Step
from components.training import engine as engines
from components.training.exam import Exam
from components.training.loop import Run, fit
from components.training.objective import OBJECTIVES
from components.training.optimizer import build_optimizer, freeze, set_rates
from components.training.rank import begin, build_loader, stage_config


def main(name: str, out: str, stages: list[str]) -> None:
    step = Step.open(name)
    config = stage_config(step)
    for stage in stages:
        profile = Profile.model_validate({"zero_stage": int(stage), "processes": engines.num_ranks()})
        engines.join(profile)
        start = begin(step, config)
        freeze(start.model, config)
        learner = OBJECTIVES[config.objective].learner(start.model, config, step.seed)
        optimizer = build_optimizer(learner, config)
        set_rates(optimizer, 0)
        engine = engines.build_engine(learner, optimizer, config, profile)
        loader = build_loader(start.samples, Pictures(start.processor), step, config)
        history = fit(engine, loader, Exam([], 0), Run(name, config, config.schedule.steps or 1, {}, None, 60), lambda: False)
        blind = sum(m.pixel_values is None for s in range(len(history.losses)) for m in loader.step(s).micro_batches)
        seen = {"losses": history.losses, "optimizer_bytes": engines.optimizer_bytes(engine), "blind_micro_batches": blind}
        weights = engines.trained_weights(engine)
        prefix = Path(out, f"zero{stage}-of{engines.num_ranks()}-rank{engines.rank()}")
        prefix.with_suffix(".json").write_text(json.dumps(seen))
        save_file(weights, prefix.with_suffix(".safetensors"))
        engine.destroy()
    engines.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
