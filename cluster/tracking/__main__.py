import gc
import sys

from cluster.tracking.command import main

status = main()
gc.freeze()  # else Python looks through MLflow's million objects before it ends: two seconds
sys.exit(status)
