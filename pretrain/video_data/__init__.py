"""From folders of videos to samples: what there is, what is drawn, how it is read and cropped."""
