"""What runs when: the Prefect flows and the command line."""
