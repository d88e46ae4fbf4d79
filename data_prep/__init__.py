"""Images in, a zarr store out. No torch here, and nothing above is imported."""
