"""Prints how Python binds calls to functions: one JSON object a line.

Written to python_errors.json with: python3 python_errors.py > python_errors.json
Each function of bind_python_test.go is called with every number of positional
arguments up to four and every choice of up to two keywords. A line has the
function, the call, and either the TypeError's text or the locals that result.
"""

import itertools
import json
import re


def none(): return locals()
def one(x): return locals()
def two(x, y): return locals()
def three(x, y, z): return locals()
def defaulted(x, y=7): return locals()
def alldefault(x=1, y=2): return locals()
def rest(x, *rest): return locals()
def restdefault(x, y=7, *rest): return locals()
def extra(x, **extra): return locals()
def kwonly(x, *, k): return locals()
def kwonlydefault(x, y=7, *, k=8, l): return locals()
def kwonlymany(*, k, l, z): return locals()
def everything(x, y=7, *rest, k, l=9, **extra): return locals()


FUNCTIONS = [none, one, two, three, defaulted, alldefault, rest, restdefault,
             extra, kwonly, kwonlydefault, kwonlymany, everything]
KEYWORDS = ["x", "y", "z", "k", "l"]


def main():
    for function in FUNCTIONS:
        for count in range(5):
            for size in range(3):
                for names in itertools.combinations(KEYWORDS, size):
                    args = list(range(11, 11 + count))
                    kwargs = {name: 21 + i for i, name in enumerate(names)}
                    line = {"function": function.__name__, "args": args, "kwargs": kwargs}
                    try:
                        line["bound"] = function(*args, **kwargs)
                    except TypeError as error:
                        # Newer Pythons add a guess at the name that was meant.
                        line["error"] = re.sub(r"\. Did you mean .*", "", str(error))
                    print(json.dumps(line, separators=(",", ":")))


main()
