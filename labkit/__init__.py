"""labkit: the small shared module of *Large Language Models from Theory to Practice with DeepSpeed*.

Importing it is cheap (no torch) and sets the few environment variables that make DeepSpeed quiet
and at home on this machine. What is the lesson stays in the chapters; what is not, lives here.
"""

from labkit import env

__version__ = "0.1.0"

env.quiet()
