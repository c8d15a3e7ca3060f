"""A local stand-in for the service and its storage, with faults on request.

`options`, `rules` and `faults` say what it shall do and import nothing but the standard
library; `server` starts it and needs the `simulator` extra (fastapi, uvicorn).
"""
