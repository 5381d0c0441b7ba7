"""What a recipe will take before anything runs: parameters, steps, tokens, memory, GPU-hours."""
