"""A Triton cache in two folders: what was compiled beforehand is read, what was not is one's own.

For processes that may read the first folder, $LINEARCH_KERNEL_CACHE, and not write there. Triton
takes it for its cache manager where TRITON_CACHE_MANAGER names it (module:class).
"""

from __future__ import annotations

import os

from triton.runtime.cache import FileCacheManager


class SharedCache(FileCacheManager):
    """Looks into TRITON_CACHE_DIR first, so that what it puts there is what it finds."""

    def __init__(self, key: str, override: bool = False, dump: bool = False) -> None:
        super().__init__(key, override, dump)
        self._shared = _ReadOnly(os.path.join(os.environ["LINEARCH_KERNEL_CACHE"], key))

    def get_file(self, filename: str) -> str | None:
        return super().get_file(filename) or self._shared.get_file(filename)

    def get_group(self, filename: str) -> dict[str, str] | None:
        return super().get_group(filename) or self._shared.get_group(filename)


class _ReadOnly(FileCacheManager):
    """One key's folder, which is not made if it does not exist."""

    def __init__(self, cache_dir: str) -> None:
        self.cache_dir = cache_dir
