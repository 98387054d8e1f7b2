"""What a run looks like to a reader: one page and one terminal table, both drawn from the files of the run alone.

`write_page` draws `report.html`; `terminal.print_table` prints the table. No model, tensor or network is touched, so a
report can be drawn again on any machine that holds the run's folder.
"""

from inlay.tuner.report.files import read_record
from inlay.tuner.report.page import write_page

__all__ = ["read_record", "write_page"]
