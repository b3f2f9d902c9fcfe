"""Lets scripts that `./reproduce python` runs import Theano first, as scripts of 2015 do."""

import original_stack
