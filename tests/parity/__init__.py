"""Numbers of the published reference implementations."""
