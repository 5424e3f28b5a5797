"""One module a format: its reader, which gives `Annotated`, and its writer."""
