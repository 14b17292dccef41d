"""Rows as tables, figures and a page."""
