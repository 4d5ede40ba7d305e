"""One scoring job on many workers: images in parts, each part scored by whoever is free, whatever dies on the way."""
