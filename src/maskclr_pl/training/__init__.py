"""A training from its configuration to its run folder."""
