"""Readers of files written by pose estimators."""
