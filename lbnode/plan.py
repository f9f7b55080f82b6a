"""plan(): the one place that decides what the data plane should contain. Pure."""
