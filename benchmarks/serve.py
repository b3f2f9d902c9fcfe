"""The loop that the process of a rival runs. This module imports only the standard library, so that
other engines run without the settings of this project."""

import json
import statistics
import sys
import time


def serve(step, least=3, **facts):
    """Run a first `step`, then a block of at least `least` steps for each line of input.

    The line is the length of the block in seconds.

    Prints a line of JSON after the first step (`facts` and the machine's monotonic time) and after
    each block (the median time of a step in milliseconds).
    """
    step()
    print(json.dumps({"ready": time.monotonic(), **facts}), flush=True)
    for line in sys.stdin:
        times = []
        while len(times) < least or sum(times) < float(line):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        print(json.dumps(1e3 * statistics.median(times)), flush=True)
