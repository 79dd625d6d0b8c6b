"""What a document shows, in the formats of other tools: the same rows, chosen as `render` chooses them."""
