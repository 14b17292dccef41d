"""What all tests know."""

import gc
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: one thread each, in what they start, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption(
        "--moments",
        type=int,
        default=5,
        help="at how many moments, drawn from a seed, each signal stops a study",
    )


def pytest_configure(config):
    """Files are handed out by their paths: the last are short. xdist would keep those with the fewest
    tests for last, the longest among them, and leave a worker without work."""
    config.option.loadscopereorder = False


def pytest_collection_finish():
    """What is imported stays: no study, when it has garbage collected, has that looked at again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    gc.unfreeze()
