"""The artifact folder of a fitted model: how it is written, checked and read, for training and for serving."""
