"""The formats that ingest reads: one file each, and the parts that they share."""
