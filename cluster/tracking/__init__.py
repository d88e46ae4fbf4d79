"""Run folders in MLflow, one way: `python -m cluster.tracking mirror RUNS`, `... serve RUNS` (command.py)."""
