"""One thread for linear algebra, set before NumPy is loaded; a run that several tests read."""

import sys

import pytest

from src import threads

threads.single()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A run of the default model on the small synthetic panel, as docs/inspect.md makes it; not to be written to."""
    from src import fit
    from src.command import command

    folder = tmp_path_factory.mktemp("runs") / "small"
    words = ["data.size=small", "estimators=[]", "figures=false", "progress=false", f"hydra.run.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fit", *words])
        with pytest.raises(SystemExit) as ended:
            command(fit.fit)
    assert ended.value.code in (0, 3)
    return folder
