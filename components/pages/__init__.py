"""Pages that steps leave as outputs: one HTML file each that needs nothing else; their look, their charts, their thumbnails."""
