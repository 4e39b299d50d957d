"""The HDF5 store that every data set ends in."""
