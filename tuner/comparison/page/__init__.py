"""What a comparison looks like to a reader: a page, tables and figures, drawn from its files alone."""

from pathlib import Path

from inlay.tuner.comparison.page import paper, tables
from inlay.tuner.comparison.page.files import read_files
from inlay.tuner.comparison.page.page import draw_page
from inlay.tuner.run_directory import write_whole

__all__ = ["write_pages"]


def write_pages(folder: Path) -> Path:
    """Writes `comparison.html`, `.csv`, `.md`, `.tex` and `figures/*` from the files in `folder`.

    The same files give the same bytes. No model, tensor or network is touched.

    Returns:
        The page's path.

    Raises:
        RequestError: `folder` is not a comparison, or a file of it is missing or damaged.
    """
    files = read_files(folder)
    page = folder / "comparison.html"
    drawn = paper.draw_figures(files)
    text = draw_page(files, drawn)
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in drawn.items():
        write_whole(folder / "figures" / name, content)
    for suffix, make in (("csv", tables.as_csv), ("md", tables.as_markdown), ("tex", tables.as_latex)):
        write_whole(folder / f"comparison.{suffix}", make(files.record))
    write_whole(page, text)
    return page
