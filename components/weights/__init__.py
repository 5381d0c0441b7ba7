"""Public checkpoints: where they come from, the layouts they have, and how one becomes another."""
