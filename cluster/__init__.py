"""The machines: configuration, where folds run, the mirror in MLflow, the command line."""
