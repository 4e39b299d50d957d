"""Independent oracles: plain NumPy loops, written from the formulas."""
