"""Pictures for papers and for looking at: charts, ribbons, confusion matrices, overlays."""
