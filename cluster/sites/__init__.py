"""Sites: YAML files, each named by site=; `python -m cluster.sites new` writes one for the user's own Slurm."""
