"""Figures, side by side; no test depends on them."""
