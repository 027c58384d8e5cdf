"""A report: runs as one page of HTML that loads nothing, for people and for CI artifacts.

`build_page` gives the same bytes for the same runs. Whatever a run file says is data: it is
escaped where it is shown, and the page's own policy lets nothing be loaded, nor any script be run
but the page's own.
"""

from harness.report.page import build_page
from harness.report.write import write_whole

__all__ = ["build_page", "write_whole"]
