"""How far each encoder is on a data set, by the records that extraction and training leave."""
