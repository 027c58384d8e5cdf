"""Take the README's picture of the report: docs/report.png, from the committed baseline.

    python docs/screenshots.py

Needs a Chromium. The picture's bytes depend on its version and on the fonts of the machine, so no
check compares them; what the page says is compared by its tests.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402 - after the checkout is on the path; matplotlib brings it

from harness.report import build_page  # noqa: E402
from harness.store import load  # noqa: E402
from suites.selftest.browser import browser, installed  # noqa: E402

BASELINE = ROOT / "results" / "baselines" / "cpu-interpreter"
PICTURE = ROOT / "docs" / "report.png"
MOST_BYTES = 300_000
# The first heat map with a case chosen; as wide as the page is made for.
WIDTH, HEIGHT = 1240, 900
_CHOOSE = """(() => {
  document.documentElement.dataset.theme = "light";
  document.querySelector("#filters").style.position = "static";
  const map = document.querySelector('.map[data-o="cross_entropy"]');
  const power = [...map.querySelectorAll("th.p")].findIndex(head => head.textContent === "2");
  map.querySelector('[data-d="fp32"] tr[data-p="naive"]').cells[1 + power].click();
  const top = document.querySelector("#maps").getBoundingClientRect().top + scrollY - 16;
  scrollTo({top, behavior: "instant"});
})()"""


def main() -> None:
    """Render the page, choose a case in its first heat map, and save what is seen."""
    executable = installed()
    if executable is None:
        sys.exit("no Chromium here; install your system's package `chromium`")
    # A browser may still write into its profile while it ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        page = Path(name) / "report.html"
        page.write_text(build_page([load(BASELINE)]), encoding="utf-8")
        with browser(executable, Path(name) / "profile") as shown:
            shown.open(page.as_uri(), width=WIDTH, height=HEIGHT)
            shown.evaluate(_CHOOSE)
            taken = base64.b64decode(shown.call("Page.captureScreenshot")["data"])
    small = io.BytesIO()
    # The page has few colours: 128 of them look the same at a third of the size.
    Image.open(io.BytesIO(taken)).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    if small.tell() > MOST_BYTES:
        sys.exit(f"{small.tell()} bytes are too many for a picture in a README")
    PICTURE.write_bytes(small.getvalue())
    print(f"{PICTURE.relative_to(ROOT)}: {small.tell()} bytes")


if __name__ == "__main__":
    main()
