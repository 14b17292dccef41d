"""Every tiny pipeline, once a file."""

import pytest

from tests.pipelines import PIPELINES


@pytest.fixture(params=PIPELINES, scope="module")
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pipe(family):
    return PIPELINES[family]()
