import sys

from cluster.tracking.command import main

sys.exit(main())
