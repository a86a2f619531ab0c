"""The commands beside `fit`; training never imports them."""
