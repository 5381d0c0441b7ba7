"""One unit of work each: retries, timeout, what the UI shows; one call down."""
