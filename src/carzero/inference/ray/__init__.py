"""One scoring job on many workers: images in parts, each scored by a free worker, whatever dies on the way."""
