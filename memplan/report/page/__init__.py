"""A profile as one HTML page, or its main charts as an SVG. Data in, text out: all it computes is where to draw."""

from memplan.report.page.document import render_page as render_page
from memplan.report.page.export import render_svg as render_svg
