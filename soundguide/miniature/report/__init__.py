"""The miniature's report: every figure that it must reach, measured from fresh samples beside its target."""

from soundguide.miniature.report.figures import PARTS, Figure, Part, Report
from soundguide.miniature.report.run import Amount, run_report

__all__ = ["PARTS", "Amount", "Figure", "Part", "Report", "run_report"]
