"""Readers of published file formats; each yields recordings for the store."""
