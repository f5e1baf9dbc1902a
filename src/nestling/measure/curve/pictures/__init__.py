"""Curves as pictures: matplotlib, SVG and the HTML report."""
