"""The importer of Cataract-101 as a command."""
