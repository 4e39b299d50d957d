"""Contents and problems of a data set (`prepare check=true`)."""
