"""A stream that lives: from what arrives of somebody's watch to the answers, and to a page that shows them."""
