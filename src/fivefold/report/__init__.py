"""What a run found, to look at and to publish: a page, pictures and a model card."""
