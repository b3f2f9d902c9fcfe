"""Trained networks in one file, and predictions with them."""
