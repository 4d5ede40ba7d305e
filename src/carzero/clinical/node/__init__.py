"""A node beside the PACS: images in by C-STORE, folder or web, results back, nothing lost on the way."""
