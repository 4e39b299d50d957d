"""Protocols that measure a pre-trained backbone."""
