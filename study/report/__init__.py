"""Write table rows as tables, figures and an HTML page."""
