"""A unit as a Kubernetes Job: submit or adopt, one watch for all, logs, and what Kubernetes says in plain words. Official client only."""
