"""A second process gives the answer that the first would have found, and never outlives it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from src.aside import helper, in_place


def double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def fail(number: int) -> None:
    raise ValueError(f"no {number}")


def die(parent: int) -> int:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def test_the_answer_comes_from_another_process():
    with helper(2, "tests.test_aside") as begin:
        answer, worker = begin("tests.test_aside.double", 21)()
    assert answer == 42
    assert worker != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_with_one_core_the_work_is_done_in_place():
    with helper(1, "tests.test_aside") as begin:
        assert begin is in_place
        assert begin("tests.test_aside.double", 21)() == (42, os.getpid())


def test_an_error_is_raised_where_the_answer_is_asked_for():
    with helper(2, "tests.test_aside") as begin:
        answer = begin("tests.test_aside.fail", 3)
        with pytest.raises(ValueError, match="no 3"):
            answer()


def test_work_of_a_process_that_died_is_done_in_place():
    with helper(2, "tests.test_aside") as begin:
        assert begin("tests.test_aside.die", os.getpid())() == 7


PARENT = """
import time
from src.aside import helper
if __name__ == "__main__":
    with helper(2, "tests.test_aside") as begin:
        print(begin("tests.test_aside.double", 1)()[1], flush=True)
        time.sleep(60)
"""


def test_the_process_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}
    ) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.kill()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if is_zombie(worker):
            return
        time.sleep(0.1)
    pytest.fail("the process outlived its parent")


def is_zombie(process: int) -> bool:
    """Whether a process has ended and only waits to be counted, as where nobody adopts orphans."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return listed.stdout.strip().startswith("Z")
