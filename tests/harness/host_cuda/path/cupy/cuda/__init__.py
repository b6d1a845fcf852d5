"""As cupy.cuda. What CuPy doesn't import by itself, such as nccl, isn't here until it is."""


def __getattr__(name: str) -> object:
    import cupy

    return getattr(cupy._MODULE.cuda, name)
