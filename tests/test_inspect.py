"""Pages of docs are true: their Python runs and prints what they say, their commands compose."""

import contextlib
import importlib.util
import io
import re
import shlex
import shutil

import matplotlib
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from src import command, loo
from src.trace import ROOT
from tests.test_command import CONF

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "data" / "README.md"]
SNIPPET = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
TYPED = re.compile(r"^ {4}(python -m src\.(?:.*\\\n)*.*)|`(python -m src\.[^`]+)`", re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?![\w@])")
HYDRA = dict.fromkeys(("fit", "check", "prior"), "config") | {
    name: name for name in ("recover", "placebo", "calibrate", "bench", "target", "export", "loo")
}
BLANK = re.compile(r"<[^>]*>|\.\.\.|\n")  # something for the reader to fill in


def name_of(page) -> str:
    return str(page.relative_to(ROOT))


def snippets(page) -> list[tuple[str, str]]:
    """Python of a page, each with what the page says that it prints."""
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


def alike(said: str, printed: str) -> bool:
    """The same words, and numbers as close as another sampling of the same posterior has them."""
    words = [sorted(NUMBER.sub("", text).split()) for text in (said, printed)]
    numbers = [NUMBER.findall(text) for text in (said, printed)]
    if words[0] != words[1] or len(numbers[0]) != len(numbers[1]):
        return False
    return all(is_close(one, two) for one, two in zip(*numbers, strict=True))


def is_close(one: str, two: str) -> bool:
    places = len(one.partition(".")[2])
    # one place after the point are percent, whose interval ends move by one or two from one sampling to the next
    least, share = (4.0 if places == 1 else max(0.05, 10.0 ** (1 - places)), 0.15) if places else (0.0, 0.3)
    return abs(float(one) - float(two)) <= least + share * abs(float(one))


def run_in_order(found: list[tuple[str, str]]) -> None:
    """Run snippets in one namespace and hold what they print against what is said."""
    space: dict = {}
    for code, said in found:
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            exec(compile(code, "snippet", "exec"), space)
        assert alike(said, heard.getvalue()), f"{code}\nprints\n{heard.getvalue()}"


@pytest.fixture
def place(small_run, tmp_path, monkeypatch):
    """A working directory that holds the run of the page."""
    (tmp_path / "traces").mkdir()
    for name in ("small", "mine"):
        shutil.copytree(small_run, tmp_path / "traces" / name)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    yield tmp_path
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=name_of)
def test_the_snippets_of_a_page_run_in_order_and_print_what_it_says(page, place):
    run_in_order(snippets(page))
    for figure in re.findall(r'savefig\("(.*?)"', page.read_text(encoding="utf-8")):
        assert (place / figure).stat().st_size > 10_000


def test_the_page_on_the_posterior_has_snippets():
    assert len(snippets(ROOT / "docs" / "inspect.md")) > 12


def test_a_snippet_that_breaks_or_says_otherwise_is_found():
    with pytest.raises(AttributeError):
        run_in_order([("import arviz as az", ""), ("az.plot_no_such_thing()", "")])
    with pytest.raises(NameError):
        run_in_order([("later", ""), ("later = 1", "")])
    with pytest.raises(AssertionError, match="prints"):
        run_in_order([("print('att', 0.25)", "att 0.45\n")])
    with pytest.raises(AssertionError, match="prints"):
        run_in_order([("print('att', 0.25)", "")])


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("att 0.25 5167", "att   0.26\n5400", True),
        ("att 29.9", "att 30.6", True),
        ("att -0.0065", "att 0.004", True),
        ("[-0.7 28.9 67.1]", "[ 0.8 28.6 64.1]", True),
        ("att 29.9", "att 10.6", False),
        ("C36 C39 5.7 5.8", "C39 C36 5.7 5.7", True),
        ("att 0.25", "atu 0.25", False),
        ("att 0.25", "att -0.25", False),
        ("0 divergent", "40 divergent", False),
        ("att 0.25", "att 0.25 0.3", False),
    ],
)
def test_what_counts_as_the_same(said, printed, same):
    assert alike(said, printed) == same


def commands() -> list[tuple[str, str]]:
    """Commands of the pages, without those that leave something to the reader, each with its page."""
    found = {}
    for page in PAGES:
        for block, inline in TYPED.findall(page.read_text(encoding="utf-8")):
            text = re.sub(r"\\\n\s*", "", block) if block else " ".join(inline.split())
            text = re.sub(r"\s+#.*", "", text)
            if not BLANK.search(text):
                found.setdefault(text, name_of(page))
    return [(page, text) for text, page in found.items()]


def first_of(word: str) -> str:
    """A setting with the first of the values that it is swept over."""
    override = OverridesParser.create().parse_override(command.understood([word])[0])
    if not override.is_sweep_override():
        return override.input_line
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


@pytest.mark.parametrize(("page", "text"), commands())
def test_the_commands_of_the_pages_mean_something(page, text):
    module, *words = shlex.split(text)[2:]
    assert importlib.util.find_spec(module) is not None
    name = HYDRA.get(module.removeprefix("src."))
    if name is None or "--help" in words:
        return
    words = [word for word in words if word != "-m" and not word.startswith("hydra")]
    told = loo.with_runs(words) if name == "loo" else command.with_run(words)
    command.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        command.settings(compose(name, [first_of(word) for word in told]))
