"""The page of a run: one self-contained HTML file that asks for nothing from anywhere."""

from __future__ import annotations

from edgeseg.report.model import ReportData


def render_page(data: ReportData) -> str:
    """Give the whole page as HTML text."""
    raise NotImplementedError(data.run_name)
