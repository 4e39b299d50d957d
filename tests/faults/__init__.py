"""Kills and full disks at a chosen operation on the files of a folder."""
