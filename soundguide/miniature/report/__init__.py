"""The miniature's report: every figure that it must reach, measured from fresh samples beside its target."""

from soundguide.miniature.report.faces import with_face_models
from soundguide.miniature.report.figures import PARTS, Figure, Part, Report
from soundguide.miniature.report.run import run_report
from soundguide.miniature.report.study import Amount

__all__ = ["PARTS", "Amount", "Figure", "Part", "Report", "run_report", "with_face_models"]
