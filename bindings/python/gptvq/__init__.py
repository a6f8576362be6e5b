"""Large language models at 1.5 to 4.5 bits per weight: quantize, measure, run.

    gptvq.quantize("model/", "small/", bits=2.25, calib="text.txt")
    "".join(gptvq.Model.open("small/").generate("Once upon a time"))

Failures are subclasses of gptvq.Error, which carries the library's status. Calls release the GIL."""
from . import layer, transformers
from ._library import ArgumentError, Cancelled, DataError, Error, FormatError, IOFailure, NumericError, OutOfMemory, UnsupportedError, lib as _lib
from .model import LayerInfo, Model, ModelInfo, Perplexity, Session
from .quantizing import Option, Progress, Report, options, quantize
from .tokenizer import Tokenizer

__version__ = _lib.gptvq_version().decode()
__all__ = ["ArgumentError", "Cancelled", "DataError", "Error", "FormatError", "IOFailure", "LayerInfo", "Model", "ModelInfo", "NumericError", "Option",
           "OutOfMemory", "Perplexity", "Progress", "Report", "Session", "Tokenizer", "UnsupportedError", "layer", "options", "quantize", "set_threads", "transformers"]


def set_threads(threads: int) -> None:
    """Threads of all later calls; 0: one per core (the default). Results do not depend on it."""
    _lib.gptvq_set_threads(threads)


transformers.install()
