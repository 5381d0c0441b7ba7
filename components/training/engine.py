"""DeepSpeed, rendered from the runtime profile: process group, engine, weights out of it. The only module that imports deepspeed."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed, nn
from torch._C._distributed_c10d import HashStore  # public as torch.distributed.HashStore, which type checkers do not see
from torch.utils import deterministic

from components.errors import RecipeError
from components.profile import Profile
from components.recipe.training import TrainingConfig

logger = logging.getLogger(__name__)


MAX_BUCKET = 500_000_000
"""DeepSpeed's own default for the elements that are reduced at once."""


def render(config: TrainingConfig, profile: Profile, num_ranks: int, num_trainable: int) -> dict[str, Any]:
    """DeepSpeed's configuration.

    Batch sizes are nominal: our loader cuts the batch, and `managed_gradient_accumulation: false` makes every `step()` an optimizer
    step after however many backward passes. Communication does not overlap: the order of additions must not depend on timing.
    Buckets are no larger than the `num_trainable` elements that there are: they are allocated in full.
    bf16 runs with stage 1 at least: DeepSpeed's stage 0 wraps AdamW for half precision in a way that learns visibly less.
    Raises RecipeError for Muon under ZeRO, which cuts matrices into pieces.
    """
    stage = max(profile.zero_stage, 1) if profile.precision == "bf16" else profile.zero_stage
    if stage and config.optimizer.muon is not None:
        raise RecipeError("optimizer.muon needs whole matrices: set zero_stage: 0 and precision: fp32 in the runtime profile, or optimizer.muon: null")
    rendered: dict[str, Any] = {
        "train_batch_size": num_ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.optimizer.clip,
        "zero_optimization": {"stage": stage, "overlap_comm": False, "reduce_bucket_size": max(1, min(MAX_BUCKET, num_trainable))},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
    if profile.precision == "bf16":
        rendered["bf16"] = {"enabled": True}
    return rendered


def device() -> torch.device:
    """This rank's GPU, or the CPU where there is none."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def num_ranks() -> int:
    """Training processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed writes to standard output while it is imported and set up; that belongs to our callers, so it goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _import_deepspeed() -> Any:
    """The module. Its autotuner, which we never use, would import MLflow for 2 s if it could; it does without where it cannot."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")  # else it guesses, with a warning
    hide = "mlflow" not in sys.modules
    if hide:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        with _quiet():
            import deepspeed
    finally:
        if hide:
            del sys.modules["mlflow"]
    return deepspeed


def join(profile: Profile) -> None:
    """Makes this process a rank: threads, determinism, process group (once per process). One rank alone opens no port."""
    torch.set_num_threads(profile.threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.", category=FutureWarning)  # DeepSpeed's calls, not ours
    # A debugging aid that would fill every buffer of every step:
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.cuda.set_device(device())
    deepspeed = _import_deepspeed()
    with _quiet():
        if not torch.cuda.is_available():
            # Else the first collective compiles a C++ operator for a minute, and a fresh machine has no compiler.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if num_ranks() == 1:
            alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # DeepSpeed looks for them
            os.environ.update({k: v for k, v in alone.items() if k not in os.environ})
        if not distributed.is_initialized():
            backend = "nccl" if torch.cuda.is_available() else "gloo"
            if num_ranks() == 1:
                distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
            else:
                distributed.init_process_group(backend)  # torchrun's environment says where
        deepspeed.init_distributed(dist_backend=distributed.get_backend(), auto_mpi_discovery=False, verbose=False)


def leave() -> None:
    """Ends the process group of a worker process."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def build_engine(model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainingConfig, profile: Profile) -> Any:
    """The DeepSpeed engine over `model`. Buffers (rotary frequencies) keep float32 whatever the precision of the weights."""
    engine: Any
    deepspeed = _import_deepspeed()
    rendered = render(config, profile, num_ranks(), sum(p.numel() for p in model.parameters() if p.requires_grad))
    with _quiet():
        buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=rendered, dist_init_required=False)
    for name, buffer in engine.module.named_buffers():
        buffer.data = buffers[name].to(buffer.device)
    return engine


def optimizer_bytes(engine: Any) -> int:
    """Bytes of AdamW's moments on this rank; from the first step on."""
    state = engine.basic_optimizer.state
    return sum(t.numel() * t.element_size() for entry in state.values() for t in entry.values() if torch.is_tensor(t))


def trained_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Every trainable parameter of the model, whole, float32, on the CPU. A collective: all ranks call it.

    Under ZeRO and bf16 this is the optimizer's float32 master, not the rounded copy.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    result = {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            master = safe_get_full_fp32_param(parameter)
            result[name] = (parameter if master is None else master).detach().float().cpu().reshape(_shape(parameter)).clone()
    return result


def _shape(parameter: nn.Parameter) -> torch.Size:
    """The whole parameter's shape, also where ZeRO 3 left an empty one behind."""
    return getattr(parameter, "ds_shape", parameter.shape)
