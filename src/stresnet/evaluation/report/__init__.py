"""The report of an evaluation: a page, ``report.html``, and the same numbers for programs, ``report.json``.

The page is a single file without scripts or requests; it can be mailed, archived and opened anywhere.
"""

from stresnet.evaluation.report.content import Example, LearningCurve, Report, ReportRow
from stresnet.evaluation.report.write import write_report

__all__ = ["Example", "LearningCurve", "Report", "ReportRow", "write_report"]
