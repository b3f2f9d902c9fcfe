"""results/ as a page and figures, beside the published numbers."""
