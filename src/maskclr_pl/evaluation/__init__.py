"""Corruptions, the robustness table, and the files that hold results."""
