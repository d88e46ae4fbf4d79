"""Readers: a folder of files -> studies. One file per archive's layout."""
