"""The one place that logs to MLflow runs: a parent run per pipeline run, a child run per executed step.

MLflow is the record, not the work: while steps run, a server that went away costs warnings, never the run. The points
stay in the unit's `metrics.jsonl`, and logging them again later adds none twice. MLflow is imported on first use (3 s).
"""
