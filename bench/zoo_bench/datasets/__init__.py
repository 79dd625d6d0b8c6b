"""Datasets in COCO format: the synthetic `shapes`, and the reading and checking of any other."""
