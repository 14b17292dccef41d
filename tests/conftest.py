"""What all tests know."""


def pytest_addoption(parser):
    parser.addoption(
        "--moments",
        type=int,
        default=2,
        help="at how many moments, drawn from a seed, each signal stops a study (100 take hours)",
    )
