"""What every child would do for itself, done once in the server that forks them: the worker is imported, and what numba
needs a second for at the first call of anything compiled.
"""

from core.canonical import of_batches
from core.overlay import Row
from core.rows import to_batch
from ops.chaos import worker

__all__ = ["worker"]

of_batches([to_batch([Row(bytes(16), bytes(16))])])
