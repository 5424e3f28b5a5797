"""Readers of published data sets as their owners release them, one a module; beside each its lists of videos."""
