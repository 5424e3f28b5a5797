"""Tables, pictures, workbooks and the page of a comparison, always computed from prediction files."""
