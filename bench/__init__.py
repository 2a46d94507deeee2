"""What is measured and what is proven by hand: each module runs by itself and ends with one JSON line."""
