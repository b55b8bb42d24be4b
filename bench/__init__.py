"""How fast fastgen is: paired, interleaved measurements against plain PyTorch, with the roof each one stands under."""
