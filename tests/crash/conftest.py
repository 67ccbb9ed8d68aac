"""Fixtures of the crash tests: pools without nginx, processes that die.

    pool(key=value, ...)    a pool with the null engine and these settings
    smollm2()               a pool that runs the default model
"""

import os

import pytest

from pool import Pool, models_dir


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out under sanitizers")


def model_path(name):
    path = os.path.join(models_dir(), name)
    if not os.path.exists(path):
        pytest.skip("no model file %s" % path)
    return path


@pytest.fixture
def make_pool():
    """Starts nothing; each pool must have ended by itself after the test."""
    pools = []

    def make(conf, options=()):
        pools.append(Pool(conf, options))
        return pools[-1]

    yield make

    problems = []
    for pool in pools:
        try:
            pool.stop(getattr(pool, "allow", ""))
        except Exception as problem:
            problems.append("%s\n%s" % (problem, ""))
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def pool(make_pool):
    def make(options=(), **settings):
        conf = {"name": "null", "file": model_path("smollm2.gguf"),
                "workers": 1, "threads": 1, "null": 1, "null_tokens": 100000}
        conf.update(settings)
        return make_pool(conf, options)
    return make


@pytest.fixture
def smollm2(make_pool):
    def make(options=(), **settings):
        conf = {"name": "smollm2", "file": model_path("smollm2.gguf"),
                "context": 1024, "sequences": 8}
        conf.update(settings)
        return make_pool(conf, options)
    return make
