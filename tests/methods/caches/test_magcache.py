import pytest
from pydantic import ValidationError

from fovea.methods.caches import MagCache
from tests.methods.caches.runs import run


def plan(steps, **settings):
    runs = MagCache(**settings).runs(steps)
    return "".join("x" if due else "." for due in runs)


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        ("xx...x...x", {"retention": 0.2, "max_skips": 3, "ratios": (1.0,) * 10}),
        ("x.........", {"retention": 0.0, "max_skips": 99, "ratios": (1.0,) * 10}),
        ("xxxxx.x.x.", {"retention": 0.5, "max_skips": 1, "ratios": (1.0,) * 10}),
        ("xxxxxxxxxx", {"retention": 0.2, "max_skips": 0, "ratios": (1.0,) * 10}),
        ("xxxxxxxxxx", {"retention": 0.2, "threshold": 0.05, "ratios": (1.1,) * 10}),
        # errors of 0.1, then 0.1 + 0.21: the sum of them, not the product alone
        ("xx.x.x.x.x", {"retention": 0.2, "threshold": 0.3, "ratios": (1.1,) * 10}),
        ("xx..x..x..", {"retention": 0.2, "threshold": 0.32, "ratios": (1.1,) * 10}),
        # 0.5, and with the next step 1 again: its error of 0.5 stays; 2 alone is too much
        ("xx..xx..xx", {"retention": 0.2, "threshold": 0.6, "ratios": (0.5, 2.0) * 5}),
    ],
)
def test_plans_by_hand(expected, settings):
    assert plan(10, **settings) == expected


def test_ratios_of_another_number_of_steps_are_taken_at_the_nearest():
    ratios = (1.0, 1.0, 2.0)
    assert plan(5, retention=0.0, max_skips=9, ratios=ratios) == "x..xx"
    assert plan(1, retention=0.0, ratios=ratios) == "x"


@pytest.mark.parametrize(
    ("steps", "always"), [(28, [11]), (50, [20]), (20, [8]), (15, []), (1, []), (100, [39, 40, 41, 42])]
)
def test_the_released_code_runs_what_falls_on_step_eleven_of_twenty_eight(steps, always):
    """round(27 i / (steps - 1)) = 11, by hand; such a step starts the count of skipped ones anew."""
    settings = {"retention": 0.0, "max_skips": 99, "ratios": (1.0,) * 28}
    assert plan(steps, **settings) == "x" + "." * (steps - 1)
    released = plan(steps, **settings, as_released=True)
    assert [i for i, due in enumerate(released) if due == "x"] == [0, *always]


def test_the_released_exception_starts_the_count_anew():
    settings = {"retention": 0.25, "threshold": 0.32, "ratios": (1.1,) * 28}  # two skips in a row at most
    assert plan(28, **settings) == "x" * 7 + "..x" * 7
    assert plan(28, **settings, as_released=True) == "x" * 7 + "..x" + ".x" + "..x" * 5 + "."


def test_every_image_keeps_the_plan_known_before():
    ratios = (1.0, 1.2, 1.1, 1.05)
    cache = MagCache(threshold=0.3, ratios=ratios)
    found = run("flux", cache, ["a fox", "a map"])
    blocks = len(found.flow.transformer.blocks)
    assert found.blocks == [[blocks if due else 0 for due in cache.runs(12)]] * 2


def test_without_ratios_it_says_how_to_get_them():
    with pytest.raises(ValidationError, match=r"scripts\.calibrate"):
        MagCache()
