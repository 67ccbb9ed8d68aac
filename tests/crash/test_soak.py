"""Short forms of tests/soak: reloads, kills of every kind of process, and
memory over both. The long forms are started by hand; docs/reliability.md."""

import os
import subprocess
import sys

import pytest

from pool import TOP

SOAK = os.path.join(TOP, "tests", "soak")
FORMS = {
    "reload": ["reload.py", "--reloads", "15", "--swap", "5",
               "--connections", "60", "--seed", "1"],
    "chaos": ["chaos.py", "--workers", "60", "--nginx", "20",
              "--supervisors", "5", "--masters", "2", "--connections", "30",
              "--seed", "1"],
    "soak": ["soak.py", "--seconds", "8", "--kill", "1.5", "--reload", "3",
             "--rate", "40", "--seed", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("form", sorted(FORMS))
def test_short_form(form):
    done = subprocess.run(
        [sys.executable, os.path.join(SOAK, FORMS[form][0]),
         *FORMS[form][1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=280)
    print(done.stdout[-6000:])
    if done.returncode == 77:
        pytest.skip("no model file")
    assert done.returncode == 0
    assert "%s: ok" % form in done.stdout
