"""The one training loop on the DeepSpeed engine, its checkpoints and resume."""
