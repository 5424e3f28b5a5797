"""From label and prediction files to numbers: measures, protocols, intervals, tests of significance. No torch here."""
