"""As cupy.cuda.nccl where the library isn't installed: it imports, and says so."""

available = False
