"""The logic of Stockpot. Knows nothing of Prefect; `docs/how-it-works.md` has the picture."""
