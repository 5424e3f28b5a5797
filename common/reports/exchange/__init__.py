"""What reports take from and give to others: predictions made elsewhere, bundles of what a table rests on."""
