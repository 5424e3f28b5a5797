"""The importer of Cataracts-1K as a command."""
