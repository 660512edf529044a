"""Calls the Go task as any other."""
from shop import app, checksum, price

print("in Go        ", checksum.delay("lovage", rounds=2).get(timeout=10))
print("later, in Go ", checksum.apply_async(("lovage",), countdown=1).get(timeout=10))
try:
    checksum.delay("lovage", rounds=0).get(timeout=10)
except ValueError as e:
    print("Go said      ", repr(e))
print("in Python    ", price.delay(3).get(timeout=10))
