"""The tests; each worker of a parallel run has cores of its own: threads of two trainings on one core mostly wait."""

import os

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[int(worker[2:]) % len(cores) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])])
