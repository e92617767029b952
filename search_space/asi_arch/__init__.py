"""Files in the convention of ASI-Arch (arXiv 2507.18074), read and run without its libraries."""
