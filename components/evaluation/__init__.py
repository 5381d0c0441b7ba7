"""Free generation on benchmarks, versioned reading of answers, scores with intervals, plots."""
