"""The paper: data, network, losses, training, evaluation. No cluster and no tracker here."""
