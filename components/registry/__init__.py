"""From scores to a champion: model package, gate, promotion log, MLflow aliases as its projection."""
