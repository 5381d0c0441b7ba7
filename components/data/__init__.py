"""From files to batches: drawing, ingest, canonical Parquet, sampling order, packing, loading."""
