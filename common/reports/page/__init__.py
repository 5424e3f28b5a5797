"""`report.html`: its template, charts and ribbons."""
