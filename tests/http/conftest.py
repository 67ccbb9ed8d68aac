"""Fixtures of the HTTP tests.

    nginx(http=..., server=..., ...)   a server for one test; see nginx.py
    smollm2                            one server with the default model,
                                       shared by all tests that only ask it
    model("gemma3.gguf")               path of a model file; skips without it

A test is marked `slow` when it has nothing to show under sanitizers, where
the same code takes many times as long.
"""

import os

import pytest

from nginx import Nginx, models_dir

SMOLLM2_HTTP = """
    infer_model smollm2 {
        file  @MODELS@/smollm2.gguf;
    }
"""

SMOLLM2_SERVER = """
        location /v1/        { infer_pass smollm2; }
        location = /status   { infer_status; }
        location = /metrics  { infer_metrics; }
        location = /readyz   { infer_pass smollm2; }
"""


# Files that take longest. They begin first, so that none is left alone at the
# end of a run in which several files run at a time.
LONGEST = ["test_share", "test_life", "test_limits", "test_trace",
           "test_classify", "test_nodes", "test_config", "test_replaced",
           "test_swap", "test_examples", "test_status_page", "test_flow"]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out under sanitizers")


def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.module.__name__, len(rank)))


def model_path(name):
    path = os.path.join(models_dir(), name)
    if not os.path.exists(path):
        pytest.skip("no model file %s" % path)
    return path


@pytest.fixture
def model():
    return model_path


@pytest.fixture
def nginx():
    """Starts servers; each is stopped and checked when the test ends."""
    started = []

    def begin(**parts):
        server = Nginx(**parts)
        started.append(server)
        return server

    yield begin

    problems = []
    for server in reversed(started):
        try:
            server.stop()
        except AssertionError as problem:
            problems.append(str(problem))
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="session")
def smollm2():
    model_path("smollm2.gguf")
    server = Nginx(http=SMOLLM2_HTTP, server=SMOLLM2_SERVER, workers=2,
                   ready="/readyz")
    yield server
    server.stop()
