"""inlay: parameter-efficient fine-tuning on a 4-bit base, benchmarked."""

__version__ = "0.1.0"
