"""The report in a real browser: what a reader sees, in light and dark, on a narrow screen, without any network."""

import shutil
import subprocess

import pytest

from src import figure
from tests.test_figure import EVERYTHING, comparison_of, table_of, tree_of
from tests.test_report import page_of

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PROBE = """
<!DOCTYPE html><html><body>
<iframe id="f" src="report.html" style="width:{width}px;height:900px"></iframe><pre id="found"></pre>
<script>
document.getElementById("f").onload = function () {{
  const page = document.getElementById("f").contentDocument, view = document.getElementById("f").contentWindow;
  const pictures = [...page.images], heads = [...page.querySelectorAll("h1, h2, h3")].map(h => +h.tagName[1]);
  const body = view.getComputedStyle(page.body);
  document.getElementById("found").textContent = JSON.stringify({{
    title: page.title, language: page.documentElement.lang, pictures: pictures.length,
    drawn: pictures.filter(p => p.complete && p.naturalWidth > 0).length,
    described: pictures.filter(p => p.alt.length > 20).length,
    skips: heads.some((h, k) => k > 0 && h - heads[k - 1] > 1), first: heads[0],
    fits: page.documentElement.scrollWidth <= view.innerWidth + 1,
    ink: body.color, paper: body.backgroundColor, links: page.querySelectorAll("a[href='#answers']").length,
    regions: page.querySelectorAll("[role=region][tabindex='0']").length,
    requests: view.performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length
  }});
}};
</script></body></html>
"""


def seen(folder, width=1000, *flags) -> dict:
    """What the probe finds out about the page."""
    import json
    import re

    (folder / "probe.html").write_text(PROBE.format(width=width))
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000",
            f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", (folder / "probe.html").as_uri(),
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    table = table_of(EVERYTHING)
    pictures, _ = figure.draw_all(folder / "figures", tree_of(), table, comparison_of(table))
    (folder / "report.html").write_text(page_of(EVERYTHING, pictures))
    return folder, len(pictures)


def test_every_picture_is_drawn_and_described_and_nothing_is_fetched(page):
    folder, pictures = page
    found = seen(folder)
    assert found["pictures"] == found["drawn"] == found["described"] == pictures
    assert found["requests"] == 0
    assert found["language"] == "en"
    assert "what adoption did" in found["title"]


def test_headings_are_nested_and_tables_can_be_reached_by_keyboard(page):
    found = seen(page[0])
    assert found["first"] == 1
    assert not found["skips"]
    assert found["links"] == 1
    assert found["regions"] >= 1


def test_a_narrow_screen_does_not_scroll_sideways(page):
    assert seen(page[0], 400)["fits"]


def test_dark_readers_get_a_dark_page(page):
    light, dark = seen(page[0]), seen(page[0], 1000, "--blink-settings=preferredColorScheme=0")
    assert light["paper"] == "rgb(255, 255, 255)"
    assert dark["paper"] == "rgb(22, 24, 29)"
    assert dark["ink"] == "rgb(232, 232, 232)"
