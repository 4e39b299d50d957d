"""Files of pose estimators."""
