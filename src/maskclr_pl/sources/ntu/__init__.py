"""Raw files of NTU RGB+D."""
