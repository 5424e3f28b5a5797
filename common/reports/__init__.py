"""Tables, plots and workbooks, always computed from prediction files."""
